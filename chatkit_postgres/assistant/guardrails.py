"""Converts tripped guardrails to user-facing errors, and a model's refusal to an answer."""

from dataclasses import dataclass
from typing import Any

from agents import (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    RunErrorHandlerInput,
    RunErrorHandlerResult,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)

from chatkit_postgres.errors import ChatError, InputGuardrailTripped, OutputGuardrailTripped, ToolGuardrailTripped
from chatkit_postgres.observability.logs import get_logger

logger = get_logger(__name__)

TRIPPED = (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)


@dataclass(frozen=True)
class Refusal:
    """As the ``output_info`` of a guardrail: the sentence for the user, instead of the general one."""

    sentence: str


def refusal_of(
    tripped: InputGuardrailTripwireTriggered
    | OutputGuardrailTripwireTriggered
    | ToolInputGuardrailTripwireTriggered
    | ToolOutputGuardrailTripwireTriggered,
) -> ChatError:
    info: object
    if isinstance(tripped, ToolInputGuardrailTripwireTriggered | ToolOutputGuardrailTripwireTriggered):
        info = tripped.output.output_info
    else:
        info = tripped.guardrail_result.output.output_info
    # Other output_info is for developers, not for users.
    sentence = info.sentence if isinstance(info, Refusal) else None
    match tripped:
        case InputGuardrailTripwireTriggered():
            return InputGuardrailTripped(sentence)
        case OutputGuardrailTripwireTriggered():
            return OutputGuardrailTripped(sentence)
        case _:
            return ToolGuardrailTripped(sentence)


def refusal_as_answer(refused: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult:
    """Let a run end normally with a model's refusal, which was streamed like an answer."""
    logger.info("model_refused")
    return RunErrorHandlerResult(final_output=str(refused.error), include_in_history=False)
