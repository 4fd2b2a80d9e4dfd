"""Which videos a run is about: the built-in sample corpus, a list of one's own, or what the wild manifests find."""

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec import structs

from manifests import table
from manifests.languages import Language, languages, load
from manifests.records import MISSING, RATE_HZ, Verdict, Video
from manifests.sample.serve import CORPUS
from manifests.store import Store
from manifests.tags import language_tag
from manifests.urls import is_web
from pipeline.barred import Barred
from pipeline.ledger import forgotten
from stages.discover import Discovery, discover, own_files, wanted_s
from stages.fetch import Fetch
from stages.judge import Measured
from stages.language import subtag
from stages.outcomes import NetworkError
from stages.politeness import HostClosedError, SharedPace

log = logging.getLogger(__name__)

SAMPLE_HOST = "http://sample.invalid"
"""Where the corpus seems to lie: addresses that no port changes, so that ids and shards are the same in every run."""

_FIRST_YIELD = 0.15
"""Kept share of source hours before anything is known: published pipelines keep 14 to 21 %."""

_LOWEST_YIELD = 0.03
_WAVE_HOURS = 25.0
"""The most source hours per language that one wave looks for, or half of those that it has seen, if that is more: a
wrong guess of the yield then costs little, and waves are not many, before each of which the whole store is judged."""


def sample_videos(langs: str | None) -> tuple[Video, ...]:
    """The corpus that comes with the project, of the languages picked. Raises `ValueError`."""
    videos = tuple(_served(video) for video in table.read(str(CORPUS / "videos.csv")))
    available = tuple(dict.fromkeys(video.language for video in videos if video.language))
    wanted = languages(str(len(available)) if langs is None else langs, available)
    return tuple(video for video in videos if video.language in wanted)


def _served(video: Video) -> Video:
    """The same video, at the address under which the run's own server has it."""
    url = f"{SAMPLE_HOST}/{Path(video.url).relative_to(CORPUS)}"
    return replace(video, url=url, id=Video.of(url, start_s=video.start_s, end_s=video.end_s).id)


def own_videos(manifest: str, language: str | None) -> tuple[Video, ...]:
    """Videos of a list, folder, URL or file, files on a disk with their stamps. Raises `ManifestError`, `ValueError`.

    Nobody asks a web site or a bucket whether what lies at an address is still the same: that is one request each.
    """
    videos = table.read(manifest, language=None if language is None else language_tag(language))
    stamps = {url: _stamp(url) for url in {video.url for video in videos}}
    return tuple(replace(video, stamp=stamps[video.url]) for video in videos)


def _stamp(url: str) -> str:
    """Bytes and nanoseconds of the last change of a file on a disk of this machine, "" for what lies elsewhere."""
    if "://" in url:  # not so a `file://`, of which the list has made a path
        return ""
    try:
        about = Path(url).stat()
    except (OSError, ValueError):  # not there, or no name that a file may have
        return MISSING
    return f"{about.st_size}-{about.st_mtime_ns}"


def missing_files(videos: Sequence[Video], due: Collection[str], manifest: str) -> Iterator[str]:
    """A line on the files that are not there, of videos that are due to be fetched. Raises `ValueError` if none is."""
    lost = [video for video in videos if video.stamp == MISSING and video.id in due]
    if not lost:
        return
    # Those fetched before are no matter, but where all are away, it is the disk.
    none_is_there = all(video.stamp == MISSING for video in videos)
    n_files = len({video.url for video in videos if video.stamp})
    n_lost = n_files if none_is_there else len({video.url for video in lost})
    said = (
        f"{n_lost} of {n_files} files are not there, first: {lost[0].url}; "
        f"relative paths start at the folder of {manifest}"
    )
    if manifest.lower().endswith(".txt"):
        said += "; a .txt holds one path or address a line, columns belong in a .csv"
    if none_is_there:
        raise ValueError(said)
    yield said


def out_of_sight(known: Iterable[Video], rows: Iterable[Video], due: Collection[str]) -> set[str]:
    """Ids of those of a store that are due to be fetched, are not among the `rows` of this run and whose files are not
    there: on a disk that is away, or of another machine, which may be fetching them now."""
    asked = {video.id for video in rows}
    others = (video for video in known if video.id in due and video.id not in asked)
    return {video.id for video in others if _stamp(video.url) == MISSING}


def as_seen(videos: Iterable[Video], lost: Collection[str], unseen: Collection[str]) -> tuple[Video, ...]:
    """The videos of a store for the workers of a run: files that are `lost` (ids) are missing, though they were there
    once, and those `unseen` are none of its business."""
    wanted = (video for video in videos if video.id not in unseen)
    return tuple(replace(video, stamp=MISSING) if video.id in lost else video for video in wanted)


def of_languages(videos: tuple[Video, ...], langs: str | None, manifest: str) -> tuple[Video, ...]:
    """Those of the languages picked, `zh` in any spelling, region and script; how many others than those picked are of
    the same languages is logged in one line. Raises `ValueError`."""
    if langs is None:
        return videos
    available = tuple(dict.fromkeys(video.language for video in videos if video.language))
    if not available:
        raise ValueError(f"--langs {langs}: {manifest} states no languages; leave --langs out")
    wanted = languages(langs, available, subtag)
    alike = {tag for tag in available if subtag(tag) in map(subtag, wanted)}.difference(wanted)
    if left := sum(video.language in alike for video in videos):
        log.warning("%s: rows of the same languages left out: %d, of %s", manifest, left, ", ".join(sorted(alike)))
    return tuple(video for video in videos if video.language in wanted)


@dataclass(frozen=True)
class Hours:
    """Source hours looked at and hours kept, by expected language, and the hours of each video that waits."""

    seen: Mapping[str, float]
    kept: Mapping[str, float]
    waiting: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, known: Iterable[Measured], verdicts: Iterable[Verdict], unknown_s: float) -> "Hours":
        """Add up what is in a store; a video whose length nobody stated counts for `unknown_s`.

        One that was postponed, or never begun, waits: that nothing of it is kept says nothing about the next.
        """
        seen: dict[str, float] = defaultdict(float)
        kept: dict[str, float] = defaultdict(float)
        waiting: dict[str, list[float]] = defaultdict(list)
        kept_keys = {verdict.key for verdict in verdicts if verdict.kept}
        for one in known:
            language = one.video.language or ""
            hours = (one.source.duration_s if one.source else wanted_s(one.video, unknown_s)) / 3600
            if one.postponed or not (one.source or one.rejected or one.failed):
                waiting[language].append(hours)
            else:
                seen[language] += hours
            frames = sum(clip.n_frames for clip in (one.clips.items if one.clips else ()) if clip.key in kept_keys)
            kept[language] += frames / RATE_HZ / 3600
        return cls(seen, kept, waiting)


class Wild:
    """Finds videos in waves until every language has its hours kept, or nothing more is found."""

    def __init__(self, langs: str | None, hours: float | None, store: Store, options: Discovery, fetch: Fetch) -> None:
        """`hours` wanted per language; None: what each language's manifest asks for. Raises `ValueError`.

        What is searched for is what `fetch` lets pass: under each language's rule, or under its own for all.
        """
        every = load()
        tags = languages(str(len(every)) if langs is None else langs, tuple(language.tag for language in every))
        self._rules = {language.tag: language.licence for language in every if language.tag in tags}
        rule = {} if fetch.licence == "per_language" else {"licence": fetch.licence}
        self.languages: Sequence[Language] = [structs.replace(one, **rule) for one in every if one.tag in tags]
        self._wanted = {language.tag: hours or language.hours for language in self.languages}
        self._options = options
        self._fetch = fetch
        self._store = store
        self._pace = SharedPace(fetch.pace_url or store.at("pace"), fetch.manners)
        self._known = set[str]()  # ids of what is in the store, was forgotten or was found in this run
        self._found = {language.tag: self._all_of(language) for language in self.languages}
        self.troubles: list[HostClosedError | NetworkError] = []
        """Of the last wave: hosts that want to be left alone, languages of which nothing could be listed."""
        self._barred, self._n_barred = Barred(), 0  # and how many were left out in the last wave for it
        self._broken_off: set[str] = set()  # of the last wave: languages that met trouble
        self._waiting: list[str] = []  # of the last wave: languages that have found enough, if it were fetched

    def ruled_otherwise(self, known: Iterable[Video]) -> tuple[Video, ...]:
        """Videos that were found while another licence rule was their language's, under the one of now; files of one's
        own that a rule was once put on, without."""
        known = tuple(known)
        ruled = [video for video in known if video.licence_rule and not is_web(video.url)]
        own = set().union(*(own_files(language) for language in self.languages)) if ruled else set[str]()
        freed = tuple(replace(video, licence_rule="") for video in ruled if video.id in own)
        if self._fetch.licence != "per_language":  # the rules decide nothing, and a later run is to see them change
            return freed
        found = (video for video in known if is_web(video.url))
        rules = ((video, self._rules.get(video.language or "", video.licence_rule)) for video in found)
        return (*freed, *(replace(video, licence_rule=rule) for video, rule in rules if rule != video.licence_rule))

    def outlook(self) -> str:
        """What the hours wanted will take, in a line: source hours at the first yield, what the listings of the
        language that is worst off can give, hours at the pace of one host, and the settings where that is too little.
        """
        unknown_s, per_source = self._options.unknown_duration_s, self._options.per_source
        wanted = {tag: hours / _FIRST_YIELD for tag, hours in self._wanted.items()}
        total_h = sum(wanted.values())
        said = f"source wanted, if {100 * _FIRST_YIELD:g} % is kept: {total_h:,.0f} h (languages: {len(wanted)})"
        listings = {
            language.tag: len((*language.queries, *language.channels, *language.playlists))
            for language in self.languages
            if not (language.files or language.id_lists)  # nobody knows beforehand how long these are
        }
        needed = {tag: wanted[tag] * 3600 / unknown_s / n for tag, n in listings.items() if n}  # videos of each listing
        tag = max(needed, key=needed.__getitem__, default="")
        if tag:
            most_h = listings[tag] * per_source * unknown_s / 3600
            said += f", for {tag} {wanted[tag]:,.0f} h where its listings give some {most_h:,.0f} h at most"
        asked_h = total_h / unknown_s * self._fetch.manners.interval_s
        said += f"; at the pace of one host that takes {asked_h:,.1f} h" if asked_h else ""
        if tag and needed[tag] > per_source:
            enough = math.ceil(round(needed[tag], 3))
            said += f": --set discover.per_source={enough}, and for the pace fetch.manners.interval_s"
        return said

    def next_wave(self, hours: Hours, known: Iterable[Video]) -> tuple[Video, ...]:
        """More videos for every language that is short of its hours; none when all are satisfied or run dry.

        A language that met trouble is asked again in the next wave. What waits counts as found: a language of which a
        closed host keeps a few videos searches on for the rest, one of which it keeps a whole wave does not, and the
        others do. Raises the first trouble if nothing was found, now or before.
        """
        self._known |= {video.id for video in known} | forgotten(self._store)
        wave: list[Video] = []
        self.troubles, self._broken_off, self._waiting = [], set(), []
        self._barred, self._n_barred = Barred.of(self._store), 0
        for language in self.languages:
            tag = language.tag
            short = self._wanted[tag] - hours.kept.get(tag, 0.0)
            if short <= 0:
                continue
            seen = hours.seen.get(tag, 0.0)
            share = max(_LOWEST_YIELD, hours.kept.get(tag, 0.0) / seen) if seen > 1.0 else _FIRST_YIELD
            wanted = min(short / share, max(_WAVE_HOURS, seen / 2)) - sum(hours.waiting.get(tag, ()))
            if wanted <= 0:
                self._waiting.append(tag)
                continue
            found = list(self._take(language, wanted))
            wave.extend(found)
            self._known.update(video.id for video in found)  # of two languages that find the same, the first has it
        if self._n_barred:
            log.warning("videos found of channels and addresses that were forgotten, left out: %d", self._n_barred)
        if self.troubles and not wave and not self._known:
            raise self.troubles[0]
        return tuple(wave)

    def short(self, hours: Hours) -> Iterator[str]:
        """A line for each language that has not its hours, where no more videos are found, with the way to more; one
        for all those that wait."""
        if self._waiting:
            n = sum(len(hours.waiting[tag]) for tag in self._waiting)
            said = f"{n} videos that were found wait, and no more are looked for before they are measured"
            yield f"{', '.join(self._waiting)}: {said}: run the same command again later"
        for language in self.languages:
            tag, wanted = language.tag, self._wanted[language.tag]
            if (kept := hours.kept.get(tag, 0.0)) >= wanted or tag in self._waiting:
                continue
            said = f"{tag}: {kept:.2f} of {wanted:g} h kept and nothing more is found"
            if tag in self._broken_off:
                yield f"{said} now: run the same command again later"
            else:
                waiting = len(hours.waiting.get(tag, ()))
                later = f"run the same command again later, as {waiting} videos wait, or " if waiting else ""
                more = f"read listings further with --set discover.per_source={2 * self._options.per_source}"
                yield f"{said}: {later}add queries or channels to {language.source}, or {more}"

    def _take(self, language: Language, hours: float) -> Iterator[Video]:
        taken = 0.0
        while taken < hours:
            try:
                video = next(self._found[language.tag], None)
            except (HostClosedError, NetworkError) as why:
                self.troubles.append(why)
                self._broken_off.add(language.tag)
                self._found[language.tag] = self._all_of(language)  # for the next wave: it may have passed
                return
            if video is None:
                return
            if video.id in self._known:
                continue
            if self._barred.holds(video):
                self._n_barred += 1
            else:
                taken += wanted_s(video, self._options.unknown_duration_s) / 3600
                yield replace(video, licence_rule=self._rules[language.tag]) if is_web(video.url) else video

    def _all_of(self, language: Language) -> Iterator[Video]:
        return discover(language, float("inf"), self._options, self._fetch.access, self._pace, self._known)
