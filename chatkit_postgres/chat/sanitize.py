"""Removes characters from model output that cannot be serialised or stored: NUL, and halves of surrogate pairs.

An event is cleaned before it is saved and sent, so that clients receive the stored text.
"""

from typing import TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from chatkit_postgres.text import clean_json, plain_fields

M = TypeVar("M", bound=BaseModel)


def clean_model(model: M) -> M:
    """The same model if it can be serialised, or else a cleaned copy."""
    try:
        is_clean = b"\\u0000" not in model.__pydantic_serializer__.to_json(model)
    except PydanticSerializationError:
        is_clean = False
    return model if is_clean else type(model).model_validate(clean_json(plain_fields(model)))
