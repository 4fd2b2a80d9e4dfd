"""Records to plain JSON and back: a missing or ill-typed field is an error that names its place.

A field that the record does not know is passed over, so that a newer version's stores can be read.
"""

import threading
from typing import Any, TypeVar

import msgspec

from manifests.packed import Packed
from manifests.text import storable

T = TypeVar("T")

_lock = threading.Lock()
_learned: set[object] = set()


def to_json(record: object) -> bytes:
    """Encode a record as compact JSON with fields in declaration order: equal records give equal bytes. Text that
    UTF-8 cannot hold is written as `storable` has it."""
    try:
        return msgspec.json.encode(record, enc_hook=_unpacked)
    except UnicodeEncodeError:
        return msgspec.json.encode(storable(to_plain(record)))


def from_json(data: bytes, kind: type[T], at: str = "") -> T:
    """Decode one record; raises `msgspec.ValidationError` with the path of the offending field, and
    `msgspec.DecodeError` for what is no JSON: both begin with `at`, where the record lies.
    """
    _learn(kind)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        if not at:
            raise
        raise type(error)(f"{at}: {error}") from error


def to_plain(record: object) -> dict[str, Any]:
    """The record as nested dicts and lists of builtins."""
    plain: dict[str, Any] = msgspec.to_builtins(record, enc_hook=_unpacked)
    return plain


def from_plain(plain: object, kind: type[T]) -> T:
    """The record that `to_plain` took apart; raises `msgspec.ValidationError` as `from_json` does."""
    _learn(kind)
    return msgspec.convert(plain, kind)


def _unpacked(value: object) -> tuple[Any, ...]:
    if isinstance(value, Packed):
        return value.whole()
    raise NotImplementedError(f"no plain JSON: {type(value)}")


def _learn(kind: object) -> None:
    """Have msgspec look at a type, once and alone: version 0.22 crashes the process where threads meet there."""
    if kind not in _learned:
        with _lock:
            msgspec.json.Decoder(kind)
            _learned.add(kind)
