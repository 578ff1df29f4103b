"""Checks of values read from JSON against type annotations."""

from __future__ import annotations

import dataclasses
import sys
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Made = TypeVar("Made")


def from_json(made: type[Made], values: Any) -> Made:
    """Return a dataclass with the values of a JSON object, which must have exactly its fields.

    Raises:
        ValueError: a field is missing, unknown or of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{shown(values)} is not an object")
    hints = get_type_hints(made)
    for name in sorted(hints.keys() - values.keys()):
        raise ValueError(f"{name} is missing")
    for name in sorted(values.keys() - hints.keys()):
        raise ValueError(f"{shown(name)} is unknown")
    instance = made(**values)
    check_types(instance)
    return instance


def check_types(instance: Any) -> None:
    """Check that the fields of a dataclass have their annotated types.

    Raises:
        ValueError: a field has another type.
    """
    hints = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if not has_type(value, hints[field.name]):
            raise ValueError(f"{field.name} is {shown(value)}, not {field.type}")


def has_type(value: Any, hint: Any) -> bool:
    """Return whether a value has an annotated type that JSON can represent.

    A bool is not a number, an integer is a float too, and a float is finite: Python's JSON reader
    accepts NaN and Infinity, which JSON does not have.
    """
    if hint is Any:
        return True
    arguments = get_args(hint)
    if get_origin(hint) is UnionType:
        return any(has_type(value, one) for one in arguments)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(has_type(one, arguments[0]) for one in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(
            has_type(one, arguments[1]) for one in value.values()
        )
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is (NoneType if hint is None else hint)


def shown(value: Any) -> str:
    """Return the repr of a value for a message, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
