"""Reads JSON as the openai client's types, even if fields are missing, unexpected or of another type."""

import math
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from openai import BaseModel
from pydantic import ValidationError

SIMPLE = frozenset({str, int, float, bool, list, dict})
"""Types whose empty value can stand for a missing one."""

Kind = TypeVar("Kind", bound=BaseModel)


def read_as(kind: type[Kind], data: Mapping[str, Any]) -> Kind:
    """Validate, or else construct as the openai client does, which preserves unknown enum values. Each field then has
    an allowed type; a field is None only where no neutral value exists."""
    try:
        return kind.model_validate(data)
    except ValidationError:
        pass
    try:
        # Most servers that leave out a required field leave it out of every delta.
        return kind.model_validate(_defaults(kind) | {name: value for name, value in data.items() if value is not None})
    except ValidationError:
        return _filled(kind.construct(**data))


@lru_cache
def _defaults(kind: type[BaseModel]) -> dict[str, Any]:
    required = {name: _options(field.annotation) for name, field in kind.model_fields.items() if field.is_required()}
    return {name: _neutral(options) for name, options in required.items() if not _is_model(options)}


def _filled(model: Kind) -> Kind:
    for name, field in type(model).model_fields.items():
        # Not by setattr: a field that counts as set would be sent back to the server with the history.
        vars(model)[name] = _fitted(getattr(model, name, None), _options(field.annotation))
    return model


def _fitted(value: Any, options: tuple[Any, ...]) -> Any:
    kinds = {get_origin(option) or option for option in options}
    if isinstance(value, BaseModel):
        return _filled(value)
    if isinstance(value, list) and list in kinds:
        (inner,) = next((get_args(option) for option in options if get_origin(option) is list), ()) or (Any,)
        if _is_model(_options(inner)):
            return [_filled(element) for element in value if isinstance(element, BaseModel)]
        return [_fitted(element, _options(inner)) for element in value if element is not None]
    fitted = _basic(value, kinds)
    return fitted if fitted is not None or NoneType in kinds else _neutral(options)


def _basic(value: Any, kinds: set[Any]) -> Any:
    """The value if its type is allowed, or else converted to a number or a string; None if neither is possible."""
    if isinstance(value, int | float) and kinds & {int, float, str}:
        return _number(value, kinds)
    if kinds & {Any, object, Literal, type(value)}:
        return value
    if str in kinds and isinstance(value, list):
        # Content in parts.
        return "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
    return None


def _number(value: float, kinds: set[Any]) -> Any:
    """The number, if a number is allowed; otherwise its digits."""
    if float in kinds or (int in kinds and isinstance(value, int)):
        return value
    if int in kinds:
        return int(value) if math.isfinite(value) else 0
    return str(value)


def _neutral(options: tuple[Any, ...]) -> Any:
    """The neutral value for a missing field, or None."""
    wanted = get_origin(options[0]) or options[0]
    if wanted is Literal:
        values = get_args(options[0])
        return values[0] if len(values) == 1 else None
    if _is_model(options):
        return _filled(wanted.construct()) if len(options) == 1 else None
    return wanted() if wanted in SIMPLE else None


def _is_model(options: tuple[Any, ...]) -> bool:
    return any(isinstance(option, type) and issubclass(option, BaseModel) for option in options)


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type that is allowed."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
