"""Change a recipe of the pipeline or the trainer from the command line: `--set sync.batch=64`."""

import contextlib
import copy
import dataclasses
import math
import typing
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class OverrideError(ValueError):
    """The assignment names no field, or its value does not fit the field; the message says what would."""


def override(config: T, *assignments: str) -> T:
    """A copy of a (nested) dataclass with fields changed, their text read by the field's own type.

    Raises `OverrideError`. What the dataclasses check of themselves is checked once all are changed.
    """
    changed = config
    for assignment in assignments:
        path, sep, text = assignment.partition("=")
        if not sep:
            raise OverrideError(f"--set expects name=value, got {assignment!r}")
        changed = _set(changed, type(changed), path.split("."), path, text)
    return checked(changed, config)


def _set(old: Any, kind: Any, names: list[str], path: str, text: str) -> Any:
    """`old`, a value of type `kind`, replaced, or what `names` say inside it; entries of tuples go by their number."""
    if not names:
        if dataclasses.is_dataclass(old):  # as JSON, what it leaves out would be the class's own, not the recipe's
            raise OverrideError(f"--set {path}={text}: a group of settings; name one inside it")
        return _read(text, kind, path)
    name, deeper = names[0], names[1:]
    if isinstance(old, tuple) and name.isdigit() and int(name) < len(old):
        at, (first, *others) = int(name), typing.get_args(kind)
        inside = first if not at or Ellipsis in others else others[at - 1]
        return (*old[:at], _set(old[at], inside, deeper, path, text), *old[at + 1 :])
    kinds = typing.get_type_hints(type(old)) if dataclasses.is_dataclass(old) else {}
    known = [f.name for f in dataclasses.fields(old) if f.init] if kinds else []
    if name not in known:
        allowed = ", ".join(known) if known else "nothing"
        raise OverrideError(f"--set {path}: {type(old).__name__} has no {name!r}, only {allowed}")
    return with_value(old, name, _set(getattr(old, name), kinds[name], deeper, path, text))


def with_value(config: T, name: str, value: object) -> T:
    """A copy of a dataclass with one field changed, which its `__post_init__` has not seen; see `checked`."""
    changed = copy.copy(config)
    object.__setattr__(changed, name, value)
    return changed


def checked(changed: T, config: T) -> T:
    """`changed` made again by its constructors, from the inside, tuples too, wherever it is not `config` itself."""
    made: Any = changed
    if changed is config or type(changed) is not type(config):
        return changed
    if isinstance(changed, tuple) and isinstance(config, tuple) and len(changed) == len(config):
        made = tuple(checked(one, other) for one, other in zip(changed, config, strict=True))
    elif dataclasses.is_dataclass(changed):
        names = [f.name for f in dataclasses.fields(changed) if f.init]
        values = {name: checked(getattr(changed, name), getattr(config, name)) for name in names}
        made = dataclasses.replace(typing.cast(Any, changed), **values)
    return typing.cast(T, made)


def _read(text: str, kind: Any, path: str) -> Any:
    choices = typing.get_args(kind)  # of a `Literal`; else of a union, or what a tuple holds
    if text.lower() == "none" and type(None) in choices:
        return None
    try:
        value = msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as plain:
        with contextlib.suppress(msgspec.MsgspecError):  # tuples, dicts and nested records are written as JSON
            return msgspec.json.decode(text, type=kind)
        if text and text[0] not in "[{":
            with contextlib.suppress(msgspec.ValidationError):  # tuples as `16,32` too
                return msgspec.convert(text.split(","), kind, strict=False)
        said = str(plain).replace("null", "none")
        if typing.get_origin(kind) is typing.Literal:
            said = f"expected one of {', '.join(map(str, choices))}"
        if any(map(dataclasses.is_dataclass, choices)):
            said = "a group of settings; name one inside it"
        raise OverrideError(f"--set {path}={text}: {said}") from None
    if isinstance(value, float) and not math.isfinite(value):  # with NaN every comparison fails: a limit would be none
        raise OverrideError(f"--set {path}={text}: expected a finite number, or none where there may be none")
    return value
