"""The card of a set of shards, as the Hugging Face Hub reads it, and the digests of its files, as `sha256sum` does.

Both are of the set that lies there and follow its index: `write_index` takes them away, so that a crash leaves a set
without a card, never one with the card of another set.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests.codec import from_json
from manifests.records import RATE_HZ
from manifests.store import Store
from manifests.tags import ENGLISH_NAMES
from stages.language import by_language, stated
from stages.policies import POLICIES, Policy
from stages.shard_index import CARD, INDEX, SUMS, ShardIndex, drop_card, parse_index, placed
from stages.split import SPLITS

_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}
"""The Hub's names for numbers of samples, by the first number that is too large."""

_NETWORKS = {"lip sync": "sync_source", "identity": "identity_source", "language and text": "transcript_source"}

_LICENCES_SHOWN, _LETTERS_SHOWN = 20, 120


@dataclass(frozen=True, kw_only=True)
class Maker:
    """How a set was made, as far as its samples do not say it."""

    policy: Policy
    detector: str  # of faces: name and digest of the weights
    notes: tuple[str, ...] = ()  # what a reader must know before believing the numbers


@dataclass(frozen=True, slots=True)
class _Quality:
    face_px: float | None


@dataclass(frozen=True, slots=True)
class _Sample:
    """What a card tells of a clip, as its json has it."""

    split: str
    language: str
    speaker_id: str
    video_id: str
    n_frames: int
    licence: str
    uploader: str
    uploader_url: str
    sync_conf: float | None
    sync_source: str
    identity_source: str
    transcript_source: str
    quality: _Quality

    @property
    def channel(self) -> str:
        return self.uploader_url or self.uploader


@dataclass(frozen=True)
class _Part:
    """Some of the clips, counted."""

    name: str
    samples: Sequence[_Sample]

    @property
    def hours(self) -> float:
        return sum(one.n_frames for one in self.samples) / RATE_HZ / 3600

    @property
    def clips(self) -> int:
        return len(self.samples)

    def number(self, of: str) -> int:
        """How many different ones there are of something, not counting where it is not known."""
        return len({getattr(one, of) for one in self.samples} - {""})


def write_card(store: Store, index: ShardIndex, described: Mapping[str, bytes], maker: Maker | None) -> None:
    """Write the card and the sums of the set that lies there, whose index this is; nothing where they stand already, or
    another command has written its own index since.

    `described`: json members by the content of their samples. Where one is missing, or nobody says how the set was
    made, or another policy than the index's, there are sums alone; where the index has no digests, neither.
    """
    data = store.get_some([INDEX]).get(INDEX)
    if not data or not index.is_summed or parse_index(data, store.at(INDEX)) != index:
        return
    jsons = [described[row.content] for row in index.rows if row.content in described]
    files = {INDEX: data}
    if maker is not None and maker.policy.name == index.policy and len(jsons) == len(index.rows):
        files[CARD] = _card(index, [from_json(one, _Sample) for one in jsons], maker).encode()
    sums = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(_digests(index, files).items())).encode()
    wanted = {path: made for path, made in {**files, SUMS: sums}.items() if path != INDEX}
    if store.get_some([CARD, SUMS]) == wanted:
        return
    drop_card(store)
    for path, made in wanted.items():
        store.put(path, made)
    if store.get_some([INDEX]).get(INDEX) != data:  # of two commands that end at once, this is the card of the first
        drop_card(store)


def wrong_sums(store: Store, index: ShardIndex, folder: str = "shards") -> Iterator[tuple[str, str]]:
    """Files of which the sums say something else than the index and what lies there, and what; none without sums."""
    sums, *others = (placed(path, folder) for path in (SUMS, INDEX, CARD))
    found = store.get_some([sums, *others])
    if sums not in found:
        return
    said = {(line[66:], line[:64]) for line in found.pop(sums).decode(errors="replace").splitlines()}
    true = _digests(index, found)
    true = {name: sha256 or dict(said).get(name, "") for name, sha256 in true.items()}
    for name in sorted({name for name, _ in said ^ set(true.items())}):
        if name not in true:
            yield name, "SHA256SUMS names it, but it is no file of this set"
        else:
            yield name, f"SHA256SUMS {'has another digest of it' if name in dict(said) else 'lacks it'}"


def _digests(index: ShardIndex, files: Mapping[str, bytes]) -> dict[str, str]:
    """By file name, of the shards as the index has them, of other files by their bytes."""
    digests = {row.shard: row.shard_sha256 for row in index.rows}
    return digests | {path.rpartition("/")[2]: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def _card(index: ShardIndex, samples: Sequence[_Sample], maker: Maker) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=False,  # Markdown, not HTML: what strangers wrote goes through `words`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    every = _Part("all", samples)
    digits = 1 if every.hours >= 100 else 3
    environment.filters |= {"words": _words, "n": "{:,}".format, "hours": lambda part: f"{part.hours:,.{digits}f}"}
    splits = [_Part(name, own) for name in SPLITS if (own := [one for one in samples if one.split == name])]
    languages = by_language(samples, lambda one: one.language)
    return environment.from_string(Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")).render(
        every=every,
        splits=splits,
        shards={part.name: sum(name.startswith(f"{part.name}-") for name in index.shards) for part in splits},
        megabytes=sum(row.sample.length for row in index.rows) / 1e6,
        languages=[(ENGLISH_NAMES.get(code, ""), _Part(code, own)) for code, own in languages.items()],
        codes=sorted(filter(stated, languages)),
        size=next((name for bound, name in _SIZES.items() if len(samples) < bound), "100M<n<1B"),
        spreads=_spreads(samples),
        licences=_licences(samples),
        unknown=len({one.video_id for one in samples if not one.channel}),
        limits=_limits(maker.policy),
        maker=maker,
        networks={kind: sorted({getattr(one, of) for one in samples} - {""}) for kind, of in _NETWORKS.items()},
    )


def _spreads(samples: Sequence[_Sample]) -> dict[str, tuple[int, list[float]]]:
    """Of what is worth knowing: of how many clips it is known, and its 5th, 50th and 95th percentile."""
    values: dict[str, list[float | None]] = {
        "sync confidence": [one.sync_conf for one in samples],
        "face, pixels of the source": [one.quality.face_px for one in samples],
        "duration, seconds": [one.n_frames / RATE_HZ for one in samples],
    }
    known = {name: [value for value in all_ if value is not None] for name, all_ in values.items()}
    return {name: (len(some), np.percentile(some, [5, 50, 95]).tolist()) for name, some in known.items() if some}


def _licences(samples: Sequence[_Sample]) -> list[_Part]:
    """Clips by licence as stated, that with most clips first; the rare ones of a long list together."""
    found: dict[str, list[_Sample]] = {}
    for one in samples:
        found.setdefault(" ".join(one.licence.split())[:_LETTERS_SHOWN] or "unknown", []).append(one)
    parts = [_Part(name, own) for name, own in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))]
    shown, others = parts[:_LICENCES_SHOWN], parts[_LICENCES_SHOWN:]
    together = _Part(f"{len(others)} others", [sample for part in others for sample in part.samples])
    return [*shown, together] if others else shown


def _limits(policy: Policy) -> list[tuple[str, str, str]]:
    """Every limit: its name, its value, and that of the policy by which it was named before it was changed."""
    known = POLICIES.get(policy.name.partition("+")[0], policy)
    names = [field.name for field in dataclasses.fields(policy) if field.name not in ("name", "by_language")]
    found = [(name, getattr(policy, name), getattr(known, name)) for name in names]
    exceptions = dict.fromkeys((one.limit, one.language) for one in (*policy.by_language, *known.by_language))
    for limit, language in exceptions:
        found.append((f"{limit}.{language}", policy.limit(limit, language), known.limit(limit, language)))
    return [(name, _limit(value), _limit(before)) for name, value, before in found]


def _limit(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " or ".join(value) if isinstance(value, tuple) else f"{value:.12g}"


def _words(text: Any) -> str:
    """As it stands, in a line or a cell of a table: what strangers wrote is no Markdown."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in plain)
