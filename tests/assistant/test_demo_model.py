"""What the demo model makes of what models are given."""

from typing import Any

import pytest
from agents import function_tool

from chatkit_postgres.assistant.demo.replies import answer_to, call_for
from chatkit_postgres.assistant.model_input.input_shape import NOTE_BEGINS, NOTE_ENDS


def user_input(*parts: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "input_text", "text": text} for text in parts]}


def answered(output: Any) -> list[dict[str, Any]]:
    call = {"type": "function_call", "call_id": "c", "name": "planets", "arguments": "{}"}
    return [user_input("planets"), call, {"type": "function_call_output", "call_id": "c", "output": output}]


def test_a_quotation_is_no_message() -> None:
    quotation = f"{NOTE_BEGINS}The user is referring to this in particular: \nFirst{NOTE_ENDS}"
    for conversation in (
        [user_input("First"), user_input("Second", quotation)],
        [user_input("First"), user_input(quotation), user_input("Second")],
    ):
        answer = answer_to(conversation, None, [])
        assert "You said: **Second**" in answer
        assert "message number 2 of yours" in answer


def test_files_are_named() -> None:
    read = '<Attachment name="notes.txt" type="text/plain">\nHello\n</Attachment>'
    named = 'The user attached a file: "song.mp3" (audio/mpeg, 5 bytes).'
    answer = answer_to([user_input("Look", read, named)], None, [])
    assert "You said: **Look**" in answer
    assert "`notes.txt`" in answer
    assert "`song.mp3`" in answer


def test_what_a_tool_says_is_a_sentence() -> None:
    assert answer_to(answered("There is no such order."), None, []).endswith("**There is no such order**.")
    assert answer_to(answered([{"type": "input_text", "text": "Mars"}]), None, []).endswith("**Mars**.")


@pytest.mark.parametrize("name", ["show_order", "mcp_files__show_order"])
def test_what_is_proposed_calls_the_tool(name: str) -> None:
    @function_tool(name_override=name)
    def show_order(order: int) -> str:
        return f"order {order}"

    answer = answer_to([user_input("Hello")], None, [show_order])
    proposed = answer.partition("- Say *")[2].partition("*")[0]
    assert call_for([user_input(proposed)], [show_order]) == (name, '{"order": 7}')
