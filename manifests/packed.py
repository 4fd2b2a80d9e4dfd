"""Long sequences inside of records, held as bytes: as Python objects those of 300,000 clips fill a machine."""

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Packed(Sequence[T]):
    """What reads, compares, hashes and is written as a tuple, which is made anew for whoever looks inside."""

    __slots__ = ()

    @abstractmethod
    def whole(self) -> tuple[T, ...]:
        """All of it."""

    def __iter__(self) -> Iterator[T]:
        return iter(self.whole())

    def __getitem__(self, at: Any) -> Any:
        return self.whole()[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed | tuple) and self.whole() == tuple(other)

    def __hash__(self) -> int:
        return hash(self.whole())

    def __repr__(self) -> str:
        return repr(self.whole())


class Floats(Packed[float]):
    """Numbers: 4 bytes each where that holds all of them exactly, else 8. In a tuple each takes 32."""

    __slots__ = ("_held",)

    def __init__(self, values: Iterable[float]) -> None:
        exact = tuple(values)
        short = array("f", exact)
        self._held = short if tuple(short) == exact else array("d", exact)

    def whole(self) -> tuple[float, ...]:
        return tuple(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Records(Packed[T]):
    """Flat records of one kind, as their values alone: a word takes 35 bytes. In a tuple each takes 340."""

    __slots__ = ("_held", "_kind", "_n")

    def __init__(self, values: Iterable[T], kind: type[T]) -> None:
        names = _names(kind)
        rows = [[getattr(one, name) for name in names] for one in values]
        self._held, self._kind, self._n = msgspec.msgpack.encode(rows), kind, len(rows)

    def whole(self) -> tuple[T, ...]:
        names, rows = _names(self._kind), msgspec.msgpack.decode(self._held)
        return tuple(self._kind(**dict(zip(names, row, strict=True))) for row in rows)

    def __len__(self) -> int:
        return self._n


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]
