"""What `forget` keeps out besides the very videos that it took: rows of a corrected time, and all of a channel.

An id covers address and part: a row that says 10.1 s where 10 s were forgotten is another video. So each call leaves
what it took by address and time, and the channels that it was told. Addresses as they were written, by which alone
older calls know them, and by `loose`. Digests alone: who was forgotten is nowhere named.
"""

import hashlib
import math
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from manifests.codec import from_json, to_json
from manifests.records import Video
from manifests.store import Store
from manifests.text import folded
from manifests.urls import loose

_BARRED = "barred"  # an object for what each call took out


@dataclass(frozen=True)
class _Call:
    parts: Sequence[tuple[str, float, float | None]]  # digest of the address, start and end in seconds, None: its end
    channels: Sequence[str]  # digests of names and addresses


@dataclass(frozen=True)
class Barred:
    """What all calls on a store have left."""

    parts: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    channels: AbstractSet[str] = frozenset()

    @classmethod
    def of(cls, store: Store) -> "Barred":
        """A listing, and one small object for each call."""
        calls = [from_json(call, _Call) for call in store.get_some(store.list(_BARRED)).values() if call]
        parts = defaultdict(list)
        for url, start_s, end_s in (part for call in calls for part in call.parts):
            parts[url].append((start_s, math.inf if end_s is None else end_s))
        return cls(parts, {channel for call in calls for channel in call.channels})

    def holds(self, video: Video) -> bool:
        """Whether some of what a row asks for was taken out, or it names a channel that was."""
        if video.channel and self.channels and not self.channels.isdisjoint(map(_digest, _names(video.channel))):
            return True
        digests = _addresses([video.url]) if self.parts else ()
        start_s, end_s = _span(video)
        taken = (part for digest in digests for part in self.parts.get(digest, ()))
        return any(start_s < end and start < (math.inf if end_s is None else end_s) for start, end in taken)


def bar(
    store: Store, videos: Iterable[Video], channels: Iterable[str], pages: Mapping[str, Collection[str]] | None = None
) -> None:
    """Keep out what of the web or a disk these videos were, also by their `pages` (addresses by id), and whatever is of
    channels of these names."""
    urls = ((video, [video.url, *(pages or {}).get(video.id, ())]) for video in videos)
    # No end comes after all others: of one address None and numbers have no order.
    parts = sorted(
        {(digest, *_span(video)) for video, of in urls for digest in _addresses(of)},
        key=lambda part: (part[0], part[1], math.inf if part[2] is None else part[2]),
    )
    call = to_json(_Call(parts, sorted({_digest(folded(name)) for name in channels if folded(name)})))
    if parts or channels:
        store.put(f"{_BARRED}/{hashlib.sha256(call).hexdigest()[:16]}.json", call)


def _span(video: Video) -> tuple[float, float | None]:
    return video.start_s or 0.0, video.end_s


def _addresses(urls: Iterable[str]) -> set[str]:
    return {_digest(text) for url in urls for text in (url, loose(url))}


def _names(channel: str) -> set[str]:
    """As it is folded now, and as older calls, which knew one sign for `ü` from two, may have folded the same name."""
    name = folded(channel)
    return {name, channel.strip().casefold(), unicodedata.normalize("NFD", name)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
