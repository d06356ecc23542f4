"""Removes characters from model output that cannot be serialised or stored: NUL, and halves of surrogate pairs.

An event is cleaned before it is saved and sent, so that clients receive the stored text.
"""

from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from chatkit_postgres.text import clean_json

M = TypeVar("M", bound=BaseModel)


def clean_model(model: M) -> M:
    """The same model if it can be serialised, or else a cleaned copy."""
    try:
        is_clean = b"\\u0000" not in model.__pydantic_serializer__.to_json(model)
    except PydanticSerializationError:
        is_clean = False
    return model if is_clean else type(model).model_validate(clean_json(_plain(model)))


def _plain(value: Any) -> Any:
    """Models as dicts, without their own serialisers, which would refuse the text."""
    if isinstance(value, BaseModel):
        return {name: _plain(field) for name, field in value}
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return [_plain(element) for element in value] if isinstance(value, list | tuple) else value
