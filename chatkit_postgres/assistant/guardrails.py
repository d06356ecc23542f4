"""What ends an answer on purpose: a guardrail that tripped, with a sentence for the user, or a model's refusal."""

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


def told_as_answer(refused: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult:
    """What a model says instead of an answer was streamed like one, and is no failure."""
    logger.info("model_refused")
    return RunErrorHandlerResult(final_output=str(refused.error), include_in_history=False)
