"""Errors of the assistant, its model and its tools."""

from chatkit_postgres.errors.base import ChatError


class TranscriptionFailed(ChatError):
    """The speech model could not transcribe the recording."""

    status = 502
    code = "transcription_failed"
    sentence = "This recording could not be understood. Please try again."
    retry = True


class AnswerStopped(ChatError):
    """The last reader left: a user stopped the answer, or the connection was lost. The text sent so far is stored."""

    status = 409
    code = "answer_stopped"
    sentence = "This answer was stopped before its end."
    retry = True


class AssistantRefused(ChatError):
    """An assistant's own error without ``allow_retry``; its sentence is not stored."""

    status = 422
    code = "assistant_refused"
    sentence = "This could not be answered."


class ModelUnavailable(ChatError):
    """The model server did not respond, broke off its response, or failed."""

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
    """The prepaid quota is used up; a retry does not help."""

    status = 503
    code = "model_quota_used_up"
    sentence = "The assistant's usage limit is reached. Please try again later."


class ModelMisconfigured(ChatError):
    """The provider does not know the key or the model, or refuses what we send; the log has its code."""

    status = 502
    code = "model_misconfigured"
    sentence = "The assistant is not set up correctly. Please contact the administrator."


class ModelMistaken(ChatError):
    """The model called a tool that does not exist, or its response has the wrong form."""

    status = 502
    code = "model_mistaken"
    sentence = "The assistant made a mistake while answering. Please try again."
    retry = True


class TooManySteps(ChatError):
    """The model kept calling tools until the maximum number of model calls."""

    status = 502
    code = "too_many_steps"
    sentence = "The assistant reached its limit of steps without an answer."
    retry = True


class ContextTooLong(ChatError):
    """The newest message alone is too long: older ones have already been left out."""

    status = 422
    code = "context_too_long"
    sentence = "This message is too long for the assistant. Please send a shorter one."


class ModelSilent(ChatError):
    """The model sent no text, or only whitespace; reasoning does not count."""

    status = 502
    code = "model_silent"
    sentence = "The assistant did not answer. Please try again."
    retry = True


class OnlyToolsUsed(ModelSilent):
    """The run used tools and ended without text: its agent stops after a tool, or the model sent nothing more."""

    code = "only_tools_used"
    sentence = "The assistant has used its tools, but has not written an answer."


class RefusedWithoutWords(ModelSilent):
    """The model refused to answer, and its refusal has no text."""

    code = "refused_without_words"
    sentence = "The assistant has refused to answer this."


class ApprovalTooLarge(ChatError):
    """The state of a run that waits for an approval exceeds its limit."""

    status = 502
    code = "approval_too_large"
    sentence = (
        "The assistant needs your approval, but this conversation is too large to wait for it. Please start anew."
    )


class ApprovalLost(ChatError):
    """A run that waited for an approval cannot go on: the assistant was changed meanwhile."""

    status = 409
    code = "approval_lost"
    sentence = "The assistant has changed since it asked for your approval. Please ask it again."
    retry = True


class ContentRefused(ChatError):
    """The provider's content filter refused the message. No model sees it again unless a retry passes."""

    status = 422
    code = "content_refused"
    sentence = "The assistant may not answer this message."


class AnswerFiltered(ChatError):
    """The provider's content filter ended the answer. The text received before is stored."""

    status = 422
    code = "answer_filtered"
    sentence = "The assistant may not finish this answer."


class ImageRefused(ChatError):
    """The provider refused an image, or the model reads no images. The next message only names the image."""

    status = 422
    code = "picture_refused"
    sentence = "The assistant cannot accept this image. Please remove it, or send another one."


class InputGuardrailTripped(ChatError):
    """A guardrail rejected the user's message. No model sees it again unless a retry passes."""

    status = 422
    code = "input_guardrail_tripped"
    sentence = "This cannot be answered here."


class OutputGuardrailTripped(ChatError):
    """A guardrail rejected the answer, which was removed."""

    status = 422
    code = "output_guardrail_tripped"
    sentence = "This answer was withdrawn."
    retry = True


class ToolGuardrailTripped(ChatError):
    """A guardrail rejected a tool's input or output. The text sent before is stored."""

    status = 422
    code = "tool_guardrail_tripped"
    sentence = "This could not be done."


class AnswerTooLong(ChatError):
    """The answer exceeds the maximum length. The text up to the limit is stored."""

    status = 502
    code = "answer_too_long"
    sentence = "The answer became too long and was ended here."


class TurnTimedOut(ChatError):
    status = 504
    code = "turn_timed_out"
    sentence = "The answer took too long. Please try again."
    retry = True
