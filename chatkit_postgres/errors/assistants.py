"""Errors of an answer."""

from chatkit_postgres.errors.base import ChatError


class TranscriptionFailed(ChatError):
    """The speech model could not be reached, or could make nothing of it."""

    status = 502
    code = "transcription_failed"
    sentence = "This recording could not be understood. Please try again."
    retry = True


class AnswerStopped(ChatError):
    """Nobody was reading any more: somebody stopped it, or the connection was lost. What was said is kept."""

    status = 409
    code = "answer_stopped"
    sentence = "This answer was stopped before its end."
    retry = True


class AssistantRefused(ChatError):
    """An assistant's own error that does not invite another try; its sentence is not kept."""

    status = 422
    code = "assistant_refused"
    sentence = "This could not be answered."


class ModelUnavailable(ChatError):
    """The model's server did not answer, broke off, or failed."""

    status = 502
    code = "model_unavailable"
    sentence = "The assistant cannot be reached right now. Please try again."
    retry = True


class ModelBusy(ChatError):
    """The provider's rate limit."""

    status = 503
    code = "model_busy"
    sentence = "The assistant is very busy. Please try again in a moment."
    retry = True


class ModelQuotaUsedUp(ChatError):
    """What was paid for is used up; trying again does not help."""

    status = 503
    code = "model_quota_used_up"
    sentence = "The assistant's usage limit is reached. Please try again later."


class ModelMisconfigured(ChatError):
    """The provider does not know the key or the model, or refuses what we send; the log has its code."""

    status = 502
    code = "model_misconfigured"
    sentence = "The assistant is not set up correctly. Please tell those who run it."


class ModelMistaken(ChatError):
    """It called a tool that is not there, or answered in a form that was not asked for."""

    status = 502
    code = "model_mistaken"
    sentence = "The assistant made a mistake while answering. Please try again."
    retry = True


class TooManySteps(ChatError):
    """It went on calling tools, and came to no answer."""

    status = 502
    code = "too_many_steps"
    sentence = "The assistant came to no answer in as many steps as it may take."
    retry = True


class ContextTooLong(ChatError):
    """By the newest message alone: what is older is left out before."""

    status = 422
    code = "context_too_long"
    sentence = "This message is too long for the assistant. Please send a shorter one."


class ModelSilent(ChatError):
    """It said nothing, or only blanks; thoughts do not count."""

    status = 502
    code = "model_silent"
    sentence = "The assistant did not answer. Please try again."
    retry = True


class ContentRefused(ChatError):
    """By the provider's content filter. No model sees the message again unless it is retried and passes."""

    status = 422
    code = "content_refused"
    sentence = "The assistant may not answer this message."


class AnswerFiltered(ChatError):
    """By the provider, in the middle of it. What came before is kept."""

    status = 422
    code = "answer_filtered"
    sentence = "The assistant may not finish this answer."


class PictureRefused(ChatError):
    """By the provider, or by a model that sees no pictures. With the next message it is only named."""

    status = 422
    code = "picture_refused"
    sentence = "The assistant cannot take this picture. Please ask without it, or send another one."


class InputGuardrailTripped(ChatError):
    """By a user's message, which no model sees again unless it is retried and passes."""

    status = 422
    code = "input_guardrail_tripped"
    sentence = "This cannot be answered here."


class OutputGuardrailTripped(ChatError):
    """By an answer, which was taken back."""

    status = 422
    code = "output_guardrail_tripped"
    sentence = "This answer was withdrawn."
    retry = True


class ToolGuardrailTripped(ChatError):
    """By what a tool was given, or gave. What was told before it stays."""

    status = 422
    code = "tool_guardrail_tripped"
    sentence = "This could not be done."


class AnswerTooLong(ChatError):
    """The model does not stop. What it said up to the limit is kept."""

    status = 502
    code = "answer_too_long"
    sentence = "The answer became too long and was ended here."


class TurnTimedOut(ChatError):
    status = 504
    code = "turn_timed_out"
    sentence = "The answer took too long. Please try again."
    retry = True
