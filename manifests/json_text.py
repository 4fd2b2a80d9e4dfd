"""JSON as lists of videos hold it: huge numbers are harmless, and a key that comes twice loses nothing in silence."""

import json
from typing import Any

from manifests.urls import without_login

_LONGEST_NUMBER = 400  # digits; those of the largest float are 309


def parsed(text: str, line: int | None = None) -> Any:
    """What a text says; `line` is where in its file it stands alone. Raises `ValueError` with one line: the place, and
    what is wrong there."""
    try:
        return json.loads(text, parse_int=_whole, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        said = f"line {line or error.lineno}: not JSON: {error.msg} at column {error.colno}"
    except KeyError as error:
        key = without_login(f"{error.args[0]!r:.80}")
        said = (
            f"{f'line {line}: ' if line else ''}the key {key} stands twice in one object: only one of them would count"
        )
    raise ValueError(said)


def _whole(digits: str) -> int | str:
    """A number of JSON; one longer than any that means something stays text: Python would refuse the whole list."""
    return int(digits) if len(digits) < _LONGEST_NUMBER else digits


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise KeyError(name)
        row[name] = value
    return row
