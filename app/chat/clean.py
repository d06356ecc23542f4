"""Model output may hold what cannot be serialised or stored: halves of a surrogate pair that was cut in two, and NUL.

What the client reads is then what is stored, and what it reads again tomorrow.
"""

from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

M = TypeVar("M", bound=BaseModel)


def clean_text(text: str) -> str:
    """Surrogate pairs joined, lone surrogates and NUL replaced; anything else as it is."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
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
        is_clean = b"\\u0000" not in model.__pydantic_serializer__.to_json(model)
    except PydanticSerializationError:
        is_clean = False
    return model if is_clean else type(model).model_validate(_cleaned(model))


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
