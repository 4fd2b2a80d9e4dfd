"""Fetch: the bytes of a wanted video, from a web site, a disk or a bucket, into the store, and what they are."""

import math
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from manifests.records import MISSING, RATE_HZ, AudioStream, Source, Video, VideoStream
from manifests.urls import is_web
from pipeline.bench import Bench
from pipeline.stage import RUNTIME, Facts, Rejection, Stage, Work
from stages.ffmpeg import COPYABLE, EARLIER_S, CutError, cut
from stages.held import Held
from stages.politeness import Manners, SharedPace
from stages.site import LIVE, TRAFFIC, Access, Downloaded, Info, Site, spoken_hint, version

_FREE = re.compile(
    r"creative.?commons|\bcc[ -]?(by|0|zero)\b|public.?domain"
    # Vimeo states "by-sa", PeerTube "Attribution - Share Alike", Flickr "Attribution-ShareAlike", and nothing else.
    r"|^(by|attribution)([ -]+(sa|nc|nd|cc|share ?alike|non ?commercial|no ?deriv\w*))*$",
    re.IGNORECASE,
)
_NO_SUFFIX = {".unknown_video", ""}
_ABOUT_PART = frozenset({"out_of_range", "too_long"})  # what `_vet_part` says: another part may be within bounds
_FOLLOWED = {"generic", "html5"}  # yt-dlp states where redirections led them, often to signed addresses that expire
_OVERRUN_S = 1.0  # stored beyond a part's end: how long its last picture is shown, and its last sound, depend on it
_STAMP_SLACK_S = 0.0005  # of stamps in whole milliseconds: no frame is lost to their rounding
_LEAST_SHARE = 0.8  # of the length that a file declares; sound is often a little longer than the pictures


@dataclass(frozen=True, kw_only=True)
class Fetch(Stage[Source]):
    """The wanted part of a video in the store, at most `max_height_px` high (its shorter side) where a site offers it.

    Web pages go through yt-dlp; local paths and fsspec URLs are copied as they are. With `start_s` or `end_s` only
    that part is stored, and time 0 of the stored file is that of the picture shown at `start_s` (see
    `stages.ffmpeg.cut`), which `Source.start_s` states. The part is as many frames at 25 fps as fit
    before `end_s`, or the end of the file if that comes first, which `Source.beyond_s` states: who reads the file stops
    at `Source.stop_s`, since a second of what follows is stored as well. Parts of one source that come to a worker one
    after another share one download. What the manifest says of a video is not repeated: `stages.origin` joins the two.

    Rejections: `gone`, `private`, `members_only`, `geo`, `age`, `blocked`, `live`, `playlist`, `too_long`, `too_big`,
    `no_audio`, `no_video_stream`, `not_a_video`, `empty`, `truncated`, `undecodable`, `picture_too_large`,
    `out_of_range`, `licence`.
    Raises `NetworkError` for what may pass by itself, and `HostClosedError` (postponed) for a host that wants to be
    left alone.
    """

    name: ClassVar[str] = "fetch"
    needs: ClassVar[tuple[type, ...]] = (Video,)
    gives: ClassVar[type] = Source
    # 2: parts of transport streams began late, those of interlaced files were woven. 3: the sound of parts was up to a
    # picture late, the first sound track was taken and not the default one, `Source` held the manifest's words
    # 4: parts ran over their end by a few frames, of which pictures and sound were missing
    # 5: of YouTube the pictures that it enlarges by AI were taken before the real ones; Matroska and FLV whose sound
    # outlasts their pictures were `truncated`
    # 6: of several sounds in a transport stream that of the highest bit rate was heard, and not the first; pictures
    # beyond 8K were taken
    # not raised for the first picture and the variable rate of parts, nor for merged HLS: they differ by a frame at
    # most, and all would be downloaded anew
    version: ClassVar[int] = 6

    max_height_px: int = 1080
    max_duration_s: float = 4 * 3600.0  # of the wanted part
    max_size_bytes: int = 8 << 30  # of what has to be downloaded for it
    # of web sites, "cc": only what states Creative Commons or public domain; "per_language": by `Video.licence_rule`
    licence: Literal["cc", "any", "per_language"] = "any"
    access: Access = field(default=Access(), metadata=RUNTIME)
    manners: Manners = field(default=Manners(), metadata=RUNTIME)
    pace_url: str = field(default="", metadata=RUNTIME)  # where workers agree on turns; "": below the run's own store

    def __post_init__(self) -> None:
        if min(self.max_height_px, self.max_duration_s, self.max_size_bytes) <= 0:
            raise ValueError("fetch: max_height_px, max_duration_s and max_size_bytes must be positive")

    def check(self) -> None:
        """What a run does before it asks any site. Raises `ValueError`, and `OSError` for cookies out of reach."""
        self.access.check()
        if self.licence != "any" and (language := self.access.page_language()) != "en":
            why = "yt-dlp reads a video's licence off English pages only, so that none would pass"
            ways = "leave it out, or take any licence: --set fetch.licence=any"
            raise ValueError(f"extractor_args: youtube:lang={language}: {why}; {ways}")

    def open(self) -> Work[Source]:
        """Nothing heavy: yt-dlp is loaded, and cookies are copied, with the first video from the web."""
        return _Fetching(self)


class _Fetching:
    def __init__(self, config: Fetch) -> None:
        self._config = config
        self._site: Site | None = None
        self._held = Held()

    def __call__(self, facts: Facts, bench: Bench) -> Source | Rejection:
        video = facts[Video]
        is_part = video.start_s is not None or video.end_s is not None
        source = f"{video.url} {video.licence} {video.licence_rule}"  # a row's own may be what lets it pass
        if self._held.holds(source) or (is_part and _is_remote(video.url)):
            found = self._held.get(source, lambda folder: self._fetched(video, folder, bench), about_part=_ABOUT_PART)
            if not isinstance(found, Rejection):
                found = _vet_part(self._config, video, found.info) or found
        else:
            found = self._fetched(video, bench.scratch, bench)
        return found if isinstance(found, Rejection) else self._stored(video, found, bench)

    def _fetched(self, video: Video, folder: Path, bench: Bench) -> Downloaded | Rejection:
        if not is_web(video.url):
            if video.licence_rule:  # only what a search found on the web has one: a page named a file of ours
                said = "no address on the web, though a page stated it"
                return Rejection("licence", {"stated": video.licence, "wanted": video.licence_rule, "said": said})
            return _copied(video, folder, self._config.max_size_bytes)
        return self._open_site(bench).download(
            video.url,
            folder,
            max_height_px=self._config.max_height_px,
            max_size_bytes=self._config.max_size_bytes,
            vet=_vet(self._config, video),
        )

    def _open_site(self, bench: Bench) -> Site:
        if self._site is None:
            pace_url = self._config.pace_url or bench.store.at("pace")
            traffic = SharedPace(f"{pace_url}/_traffic", TRAFFIC)
            self._site = Site(self._config.access, SharedPace(pace_url, self._config.manners), traffic)
        return self._site

    def _stored(self, video: Video, found: Downloaded, bench: Bench) -> Source | Rejection:
        from stages.media import MediaError

        try:
            path, start_s, stop_s, beyond_s = found.path, 0.0, None, 0.0
            probed = _probed(path, path.stat().st_mtime_ns)
            if not isinstance(probed, Rejection) and (video.start_s is not None or video.end_s is not None):
                beyond_s = round(max(0.0, (video.end_s or 0.0) - probed[0]), 3)
                path = bench.scratch / "part.mp4"
                start_s, stop_s, probed = _part(found.path, path, video, probed)
        except MediaError as error:
            return Rejection(error.reason, {"said": str(error)[:300]})
        except CutError as error:
            return Rejection("undecodable", {"said": str(error)})
        if isinstance(probed, Rejection):
            return probed
        duration_s, picture, sound = probed
        if stop_s is not None:
            duration_s = min(duration_s, stop_s)
        if duration_s > self._config.max_duration_s:
            return _too_long(duration_s, self._config)
        suffix = path.suffix.lower()
        page = found.info
        return Source(
            file=bench.keep(path, f"source{'' if suffix in _NO_SUFFIX else suffix}"),
            duration_s=duration_s,
            video=picture,
            audio=sound,
            start_s=start_s,
            stop_s=stop_s,
            beyond_s=beyond_s,
            page_url=video.url if page.get("extractor") in _FOLLOWED else str(page.get("webpage_url") or video.url),
            title=str(page.get("title") or ""),
            uploader=str(page.get("uploader") or page.get("channel") or ""),
            uploader_url=str(page.get("uploader_url") or page.get("channel_url") or ""),
            licence=str(page.get("license") or ""),
            language_hint=spoken_hint(page),
            upload_date=str(page.get("upload_date") or ""),
            extractor=str(page.get("extractor") or "file"),
            tool=version() if page else "",
        )


_Streams = tuple[float, VideoStream, AudioStream]


@lru_cache(maxsize=2)  # reads a file whole, and the parts of one come one after another: that, and the part cut last
def _probed(path: Path, stamp: int) -> _Streams | Rejection:
    """Duration, picture and sound of a file that has all three, as it was at `stamp`. Raises `MediaError`."""
    from stages.media import probe

    found = probe(path)
    if found.video is None:
        return Rejection("no_video_stream")
    is_cut_off = found.arrived_s < _LEAST_SHARE * found.declared_s - 1.0  # its sound may lie further on
    if found.audio is None or not (found.n_audio_packets or is_cut_off):
        return Rejection("no_audio", {"duration_s": found.duration_s})
    if is_cut_off:
        return Rejection("truncated", {"duration_s": found.arrived_s, "declared_s": found.declared_s})
    return found.duration_s, found.video, found.audio


def _part(path: Path, out: Path, video: Video, whole: _Streams) -> tuple[float, float | None, _Streams | Rejection]:
    """Cut the wanted part out of a file, and a second more; where it begins in there, where to stop in what was cut
    (None: at its end), and what that is. Raises `CutError`, `MediaError`."""
    from stages.clock import late_s
    from stages.container import (
        has_decoding_times_only,
        is_transport_stream,
        lead_s,
        opened,
        picture_stream,
        sound_stream,
        time_shown,
    )

    duration_s, picture, sound = whole
    start_s, end_s = video.start_s or 0.0, duration_s if video.end_s is None else min(video.end_s, duration_s)
    if end_s <= start_s:
        return start_s, None, Rejection("out_of_range", {"start_s": start_s, "duration_s": duration_s})
    with opened(path) as container:
        watched, heard = picture_stream(container), sound_stream(container)
        assert heard is not None, "a file without sound is not cut"
        streams = watched.index, heard.index
        timed, live = not has_decoding_times_only(container), is_transport_stream(container)
        rgb = watched.format is not None and watched.format.is_rgb
        zero_s, behind_s = float(lead_s(container, watched)), late_s(container, watched)
        start_s = float(time_shown(container, watched, start_s))
        early = container.format.name == "flv" and zero_s + start_s < EARLIER_S
    n_frames = math.floor((end_s - start_s + _STAMP_SLACK_S) * RATE_HZ)
    stop_s = n_frames / RATE_HZ if end_s < duration_s else None
    if stop_s == 0:
        return start_s, stop_s, Rejection("out_of_range", {"start_s": start_s, "end_s": end_s})
    copy = timed and not live and not (early and start_s) and {picture.codec, sound.codec} <= COPYABLE
    size = (picture.width_px, picture.height_px) if live else None
    # From the beginning, it has sound that lies before the first picture as well.
    begin_s, until_s = 0.0 if copy and early else zero_s + start_s, zero_s + end_s + _OVERRUN_S
    write = partial(cut, path, out, begin_s, until_s, streams=streams, late_s=behind_s, changing=size, rgb=rgb)
    write(copy=copy)
    if copy and _begins_after(out, zero_s + start_s - begin_s):
        write(copy=False)
    return start_s, stop_s, _probed(out, out.stat().st_mtime_ns)


def _begins_after(part: Path, time_s: float) -> bool:
    """Whether the key frame that a copied part begins with is shown later than its first picture is to be. ffmpeg goes
    to one that is decoded before and shown after it where MP4 reorders pictures without an edit list."""
    from stages.container import opened, packets_of, picture_stream

    with opened(part) as container:
        first = next(packets_of(container, picture_stream(container)), None)
        if first is None or first.pts is None:
            return False
        return float(first.pts * first.time_base) > time_s + _STAMP_SLACK_S


def is_free(licence: str) -> bool:
    """Whether a stated licence is a Creative Commons one or the public domain, in the words sites use for it."""
    return bool(_FREE.search(licence))


def _vet(config: Fetch, video: Video) -> Callable[[Info], Rejection | None]:
    def vet(info: Info) -> Rejection | None:
        if info.get("live_status") in LIVE or info.get("is_live"):
            return Rejection("live", {"said": str(info.get("live_status") or "is_live")})
        licence = str(info.get("license") or video.licence)
        rule = (video.licence_rule or "cc") if config.licence == "per_language" else config.licence
        if rule == "cc" and not is_free(licence):
            return Rejection("licence", {"stated": licence, "wanted": rule})
        if (rejection := _vet_part(config, video, info)) is not None:
            return rejection
        chosen = info.get("requested_formats") or [info]
        size = sum(f.get("filesize") or f.get("filesize_approx") or 0 for f in chosen)
        return _too_big(size, config.max_size_bytes) if size > config.max_size_bytes else None

    return vet


def _vet_part(config: Fetch, video: Video, info: Info) -> Rejection | None:
    start_s = video.start_s or 0.0
    duration_s = float(info.get("duration") or 0.0)
    wanted_s = min(video.end_s or duration_s, duration_s) - start_s
    if duration_s and wanted_s <= 0:
        return Rejection("out_of_range", {"start_s": start_s, "duration_s": duration_s})
    return _too_long(wanted_s, config) if wanted_s > config.max_duration_s else None


def _is_remote(url: str) -> bool:
    return "://" in url and not url.startswith("file://")


def _copied(video: Video, folder: Path, max_size_bytes: int) -> Downloaded | Rejection:
    """A readable file of a local path or an fsspec URL: the file itself on this machine's disk, else a copy.

    Raises `OSError` where a file that the machine of the command sees is not there: no fact about the video.
    """
    url = video.url
    # A path may have "::" in it, where fsspec would read a chain of URLs.
    fs, path = fsspec.core.url_to_fs(url) if "://" in url else (LocalFileSystem(), url)
    try:
        about = fs.info(path)
    except FileNotFoundError:
        if video.stamp not in ("", MISSING):
            way_out = "files must lie on a disk that all nodes share, or in a bucket"
            raise OSError(f"{url} is not seen by {socket.gethostname()}: {way_out}") from None
        return Rejection("gone", {"said": "no such file"})
    if about["type"] == "directory":
        return Rejection("not_a_video", {"said": "a folder"})
    if about["size"] and about["size"] > max_size_bytes:
        return _too_big(about["size"], max_size_bytes)
    if isinstance(fs, LocalFileSystem):
        return Downloaded(Path(about["name"]), {})
    target = folder / f"source{Path(path).suffix}"
    with fs.open(path, "rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    return Downloaded(target, {})


def _too_long(duration_s: float, config: Fetch) -> Rejection:
    return Rejection("too_long", {"duration_s": duration_s, "limit": config.max_duration_s})


def _too_big(size_bytes: float, limit_bytes: int) -> Rejection:
    return Rejection("too_big", {"bytes": float(size_bytes), "limit": float(limit_bytes)})
