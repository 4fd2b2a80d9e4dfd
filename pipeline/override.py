"""Change a recipe from the command line: `--set sync.batch=64`."""

import dataclasses
import typing
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class OverrideError(ValueError):
    """The assignment names no field, or its value does not fit the field; the message says what would."""


def override(config: T, assignment: str) -> T:
    """A copy of a (nested) dataclass with one field changed, its text read by the field's own type.

    Raises `OverrideError`.
    """
    path, sep, text = assignment.partition("=")
    if not sep:
        raise OverrideError(f"--set expects name=value, got {assignment!r}")
    return typing.cast(T, _set(config, path.split("."), text, path))


def _set(config: Any, names: list[str], text: str, path: str) -> Any:
    kinds = typing.get_type_hints(type(config)) if dataclasses.is_dataclass(config) else {}
    known = [f.name for f in dataclasses.fields(config) if f.init] if kinds else []
    if names[0] not in known:
        allowed = ", ".join(known) if known else "nothing"
        raise OverrideError(f"--set {path}: {type(config).__name__} has no {names[0]!r}, only {allowed}")
    name, deeper = names[0], names[1:]
    value = _set(getattr(config, name), deeper, text, path) if deeper else _read(text, kinds[name], path)
    return dataclasses.replace(config, **{name: value})


def _read(text: str, kind: Any, path: str) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as plain:
        try:  # tuples, dicts and nested records are written as JSON
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError:
            raise OverrideError(f"--set {path}={text}: {plain}") from None
