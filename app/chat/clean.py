"""Model output may hold lone surrogates, which no JSON serialiser takes: half of a pair that was cut in two."""

from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

M = TypeVar("M", bound=BaseModel)


def clean_text(text: str) -> str:
    """Surrogate pairs joined, lone surrogates replaced; anything else as it is."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_model(model: M) -> M:
    """The same model if it can be serialised, or else a cleaned copy."""
    try:
        model.__pydantic_serializer__.to_json(model)
    except PydanticSerializationError:
        return type(model).model_validate(_cleaned(model))
    return model


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, BaseModel):
        return {name: _cleaned(field) for name, field in value}
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(element) for element in value]
    return value
