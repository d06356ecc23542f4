"""A guardrail that was tripped: one sentence for the user, and what it was that tripped it."""

from dataclasses import dataclass

from agents import (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)

from chatkit_postgres.errors import ChatError, InputGuardrailTripped, OutputGuardrailTripped, ToolGuardrailTripped

TRIPPED = (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)


@dataclass(frozen=True)
class Refusal:
    """As the ``output_info`` of a guardrail: what its user is told instead of the general sentence."""

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
    # Anything else is for the developer's eyes.
    sentence = info.sentence if isinstance(info, Refusal) else None
    match tripped:
        case InputGuardrailTripwireTriggered():
            return InputGuardrailTripped(sentence)
        case OutputGuardrailTripwireTriggered():
            return OutputGuardrailTripped(sentence)
        case _:
            return ToolGuardrailTripped(sentence)
