"""`shards/index.parquet`: which clip lies where in which tar. Written last, it makes a set of shards one set."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any

import pyarrow as pa

from manifests import parquet
from manifests.store import Store
from stages.tars import Member, Sample

INDEX = "shards/index.parquet"
CARD, SUMS = "shards/README.md", "shards/SHA256SUMS"
"""What `stages.card` writes beside it, of the very set that the index names."""

_MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("sha256", pa.string())])
_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "shard": pa.string(),  # file name below shards/
    "shard_sha256": pa.string(),  # of all of that file
    "split": pa.string(),
    "video": pa.string(),
    "person": pa.string(),
    "language": pa.string(),
    "n_frames": pa.int32(),
    "contiguous_with_prev": pa.bool_(),
    "offset": pa.int64(),  # of the sample's first header in the tar, bytes
    "length": pa.int64(),  # to the end of its last member's padding
    "content": pa.string(),  # digest of all that went into the sample; names the shard
    "members": pa.list_(_MEMBER),  # offset and length of each member's own bytes
}
_SCHEMA = pa.schema(_COLUMNS)
_POLICY = b"policy"
"""Of the file's metadata."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip as the index knows it."""

    key: str
    shard: str
    split: str
    video: str
    person: str
    language: str
    n_frames: int
    contiguous_with_prev: bool
    content: str
    sample: Sample
    shard_sha256: str = ""  # "": of an index that was written before there was one

    def moved(self, shard: str, sha256: str, sample: Sample) -> "Row":
        """The same clip in another shard."""
        return dataclasses.replace(self, shard=shard, shard_sha256=sha256, sample=sample)


@dataclass(frozen=True)
class ShardIndex:
    """All clips of the shards, in the order in which the shards list them."""

    rows: tuple[Row, ...]
    policy: str = ""  # which kept them; "": of an index that was written before it said so

    @cached_property
    def by_shard(self) -> dict[str, tuple[Row, ...]]:
        """The rows of each shard, by its file name, in order."""
        return {name: tuple(rows) for name, rows in groupby(self.rows, key=attrgetter("shard"))}

    @property
    def shards(self) -> tuple[str, ...]:
        """File names, in order."""
        return tuple(self.by_shard)

    @property
    def is_summed(self) -> bool:
        """Whether it has the digest of every shard."""
        return all(row.shard_sha256 for row in self.rows)


def shard_name(split: str, bucket: int, contents: Iterable[str]) -> str:
    """`train-000003-1a2b3c4d.tar`: the digest names what is inside, so a name never stands for two contents."""
    digest = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:8]
    return f"{split}-{bucket:06d}-{digest}.tar"


def placed(path: str, folder: str) -> str:
    """Where a file of the set (`INDEX`, `SUMS`) lies if the set lies in another folder than `shards`."""
    return folder + path.removeprefix("shards")


def read_index(store: Store, path: str = INDEX) -> ShardIndex | None:
    """The index, or None where no set of shards was ever finished, or a power cut left it empty. Raises `ValueError` if
    it is not such a file.
    """
    data = store.get_some([path]).get(path)
    return parse_index(data, store.at(path)) if data else None


def parse_index(data: bytes, at: str) -> ShardIndex:
    """The index that these bytes are, which lie `at`. Raises `ValueError` as `read_index`."""
    try:
        table = parquet.read(data)
        policy = (table.schema.metadata or {}).get(_POLICY, b"").decode()
        return ShardIndex(tuple(_row(record) for record in table.to_pylist()), policy)
    except (ValueError, KeyError, TypeError) as error:  # a name that was damaged is a column that is missing
        raise ValueError(f"{at} is not a shard index ({error}); `shard` writes it anew once it is deleted") from error


def write_index(store: Store, index: ShardIndex) -> None:
    """Write it whole: from now on these are the shards. The card of those before goes first: none is better than one of
    another set."""
    drop_card(store)
    schema = _SCHEMA.with_metadata({_POLICY: index.policy.encode()})
    table = pa.Table.from_pylist([_record(row) for row in index.rows], schema=schema)
    store.put(INDEX, parquet.write(table))


def drop_card(store: Store) -> None:
    """Remove card and sums, the sums first, which name the card."""
    for path in (SUMS, CARD):
        store.delete(path)


def tars(store: Store) -> tuple[str, ...]:
    """File names of all tars that lie there, named by an index or not, in order."""
    return tuple(path.removeprefix("shards/") for path in store.list("shards") if path.endswith(".tar"))


def drop_stale(store: Store, index: ShardIndex, planned: Callable[[], Collection[str]] = frozenset) -> tuple[str, ...]:
    """Remove the tars that the index does not name, but for those `planned`, which is called only where there are any,
    and what a killed run left half written; returns the tars' names."""
    stale = set(tars(store)) - set(index.shards)
    dropped = tuple(sorted(stale.difference(planned()))) if stale else ()
    for name in dropped:
        store.delete(f"shards/{name}")
    store.sweep("shards")
    return dropped


def _record(row: Row) -> dict[str, Any]:
    sample = row.sample
    return {
        **{name: getattr(row, name) for name in _SCHEMA.names if hasattr(row, name)},
        "offset": sample.offset,
        "length": sample.length,
        "members": [vars(member) for member in sample.members],
    }


def _row(record: dict[str, Any]) -> Row:
    members = tuple(Member(**member) for member in record.pop("members"))
    sample = Sample(record["key"], record.pop("offset"), record.pop("length"), members)
    known = {name: value for name, value in record.items() if name in _COLUMNS}  # another version's may have more
    return Row(**known, sample=sample)
