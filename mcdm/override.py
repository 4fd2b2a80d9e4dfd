"""Change a recipe from the command line: `--set unet.strict=true`."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_type_hints

from pipeline.override import checked, with_value

T = TypeVar("T")

_IN_USE = (
    *("codec.path", "audio.path", "image.path"),
    *("prior.temperature", "prior.gain", "prior.sampling_steps", "unet.guidance", "unet.sampling_steps"),
)
"""What a trained recipe may be told anew when video is made: where encoders lie, and how it is sampled."""


def override(recipe: T, assignments: list[str]) -> T:
    """Apply `unet.strict=true`-like assignments. Raises `ValueError` with one line for a wrong name or value.

    What the dataclasses check of themselves is checked once all are applied: their order does not matter.
    """
    changed = recipe
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r}: expected name=value")
        changed = _assign(changed, path.split("."), text, path)
    return checked(changed, recipe)


def in_use(recipe: T, assignments: Sequence[str]) -> T:
    """`override` for a recipe that was trained with; raises `ValueError` for settings that its weights are bound to."""
    changed = override(recipe, [*assignments])
    for name in (assignment.partition("=")[0] for assignment in assignments):
        if name not in _IN_USE:
            raise ValueError(f"--set {name}: decided when it was trained; expected one of {', '.join(_IN_USE)}")
    return changed


def _assign(node: Any, names: list[str], text: str, path: str) -> Any:
    """A copy of `node`, one value replaced, that its `__post_init__` has not seen."""
    name, *rest = names
    if isinstance(node, tuple) and name.isdigit() and int(name) < len(node):
        items = list(node)
        items[int(name)] = _value(items[int(name)], rest, text, path)
        return tuple(items)
    if not dataclasses.is_dataclass(node) or name not in {f.name for f in dataclasses.fields(node)}:
        raise ValueError(f"--set {path}: the recipe has no such setting")
    old = getattr(node, name)
    new = _value(old, rest, text, path)
    choices = get_args(get_type_hints(type(node))[name]) if not rest else ()
    if choices and isinstance(old, str) and new not in choices:
        raise ValueError(f"--set {path}={text}: expected one of {', '.join(choices)}")
    return with_value(node, name, new)


def _value(old: Any, names: list[str], text: str, path: str) -> Any:
    """The old value replaced, or what `names` say inside it."""
    if names:
        return _assign(old, names, text, path)
    if any(dataclasses.is_dataclass(one) for one in (old if isinstance(old, tuple) else (old,))):
        raise ValueError(f"--set {path}: a group of settings; name one inside it")
    return _parse(old, text, path)


def _parse(old: Any, text: str, path: str) -> Any:
    """Read `text` as a value of the old value's type."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(old, tuple):
            return tuple(_parse(old[0], part, path) for part in text.split(","))
        return type(old)(text)
    except (KeyError, ValueError):
        raise ValueError(f"--set {path}={text}: expected {type(old).__name__}") from None
