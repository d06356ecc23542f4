"""Which models answer, and how they are reached."""

from chatkit_postgres.assistant.models import ModelOptions
from chatkit_postgres.settings import Settings


def model_options(settings: Settings, *, is_hosted: bool = False) -> ModelOptions:
    key = settings.openai_api_key
    return ModelOptions(
        model=settings.model,
        api=settings.model_api,
        api_key=key.get_secret_value() if key is not None else None,
        base_url=settings.openai_base_url,
        allowed_models=frozenset(settings.allowed_models),
        allowed_tools=frozenset(settings.allowed_tools),
        transcription_model=settings.transcription_model,
        mcp_file=settings.mcp_file,
        is_traced=settings.tracing,
        tracing_key=settings.tracing_key.get_secret_value() if settings.tracing_key is not None else None,
        timeout_seconds=settings.model_timeout_seconds,
        retries=settings.model_retries,
        think_blocks=settings.think_blocks,
        is_hosted=is_hosted,
    )
