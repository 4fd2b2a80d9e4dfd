"""What is known of a video, stage by stage. Frozen records; each new fact is a new record, not a new optional field.

Times are float seconds from the start of the source's stored file (of a part: `Source.start_s` of what lies at the
URL). Frame numbers are ints at `RATE_HZ` and count from the start of the record they belong to. Per-frame arrays lie in
`.npz` blobs; a record holds their `Ref`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from manifests.packed import Floats, Records

RATE_HZ = 25
"""Video frames per second everywhere after decoding (SyncNet, MCDM and the peers all use 25)."""

SAMPLE_RATE_HZ = 16_000
"""Audio samples per second everywhere after decoding, mono int16."""

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // RATE_HZ

MISSING = "missing"
"""The stamp of a file that was not there when the manifest was read; in a store's list before the last one that it had
(`missing:...`)."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A blob in the store: its path below the store's root, its length and its digest."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Video:
    """One wanted video, as a manifest names it. The seed of every run."""

    id: str
    url: str  # http(s) URL, local path, or any fsspec URL
    language: str | None = None  # expected spoken language, BCP-47; None: not stated
    start_s: float | None = None  # the wanted part of the source; None: from its start
    end_s: float | None = None
    title: str = ""
    name: str = ""  # what its list calls it, for whoever joins the results to that list
    channel: str = ""
    licence: str = ""  # as the manifest states it; Source.licence is what the site states
    licence_rule: str = ""  # "cc" or "any": what its language may be fetched under (`Fetch.licence`); "": not stated
    duration_s: float | None = None  # a hint for longest-first scheduling, never trusted
    stamp: str = ""  # of a file on a disk, when the manifest was read: tells another under the same name

    @classmethod
    def of(cls, url: str, *, start_s: float | None = None, end_s: float | None = None, **known: object) -> "Video":
        """Make a record whose id is the first 16 hex digits of the SHA-256 of the canonical source reference."""
        end = "" if end_s is None else _time(end_s)
        span = "" if start_s is None and end_s is None else f"#t={_time(start_s or 0)},{end}"
        digest = hashlib.sha256((url + span).encode()).hexdigest()[:16]
        return cls(id=digest, url=url, start_s=start_s, end_s=end_s, **known)  # type: ignore[arg-type]


def _time(seconds: float) -> str:
    """Short where six digits say it, as all ids were made once, else in full: parts late in a long source differ."""
    short = f"{seconds:g}"
    return short if float(short) == seconds else repr(float(seconds))


@dataclass(frozen=True, kw_only=True)
class VideoStream:
    """The picture stream of a source as its container describes it (after rotation)."""

    width_px: int
    height_px: int
    rate_hz: float  # average frame rate; the stream may be variable
    codec: str


@dataclass(frozen=True, kw_only=True)
class AudioStream:
    """The sound stream of a source that is heard: the default one, else the first."""

    rate_hz: int
    channels: int
    codec: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Fetched: bytes in the store, probed, and what the site said (`stages.origin` joins the manifest's word to it).
    Given by `fetch`.
    """

    file: Ref
    duration_s: float
    video: VideoStream
    audio: AudioStream
    start_s: float = 0.0  # where in what lies at the URL the stored file begins, from its first picture
    stop_s: float | None = None  # where in the stored file the wanted part ends, if the file goes on; at 25 fps
    beyond_s: float = 0.0  # of the wanted part, what would lie beyond the end of what lies at the URL
    page_url: str = ""
    title: str = ""
    uploader: str = ""
    uploader_url: str = ""
    licence: str = ""
    language_hint: str = ""  # what the site says is spoken, if anything
    upload_date: str = ""
    extractor: str = ""  # e.g. "youtube", "generic", "file"
    tool: str = ""  # e.g. "yt-dlp 2026.8.19"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMeasures:
    """What is measured of one face over consecutive frames: all of its track, or those of one piece of it.

    Pose angles are degrees; sharpness and exposure are the measures that `stages.quality` defines.
    """

    detected_share: float  # frames outside of gaps that were bridged / all frames
    face_px: float  # median of sqrt(box area), source pixels
    face_share: float  # median of box height / frame height
    score: float  # median detector score
    yaw_deg: float  # medians of the absolute angles
    pitch_deg: float
    roll_deg: float
    yaw_p95_deg: float
    sharpness: float  # median
    exposure: float  # median luma of the face, 0..255
    inside_share: float  # share of frames with the whole box inside the picture
    motion: float  # median change of the lower face over four frames (`stages.quality`): near 0 for a still picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Track(FaceMeasures):
    """One face followed inside one scene, frame by frame at 25 fps, with gaps bridged, measured over all of it.

    The arrays of the track are members of `Seen.arrays`, named `{number}/frame`, `{number}/box`, ... by `stages.watch`.
    """

    number: int
    scene: int
    start_frame: int  # first frame of the track, on the 25 fps grid of the source
    end_frame: int  # one past the last


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Watched once: scenes and face tracks. Given by `watch`."""

    n_frames: int  # on the 25 fps grid
    cuts: tuple[int, ...]  # first frame of every scene but the first
    tracks: tuple[Track, ...]
    arrays: Ref
    faces_share: float  # share of looked-at frames with at least one face
    decoded_s: float  # seconds of source decoded to learn this


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(FaceMeasures):
    """A piece of a track, at most 30 s: what a clip is cut from, and judged by. Measured over its own frames alone."""

    key: str  # "{video id}-{clip number:04d}": no dots, WebDataset splits at the first one
    number: int
    track: int
    start_s: float
    end_s: float
    n_frames: int
    contiguous_with_prev: bool  # same track, and the previous piece ends where this one begins
    others_in_view: tuple[int, ...]  # the other tracks whose middle lies inside the crop in some frame
    still_s: float  # first to last look of the longest spell without motion, seconds: a freeze is 0.2 to 0.76 longer
    filled_share: float  # mean share of the crop's area outside the source's picture, where its edge is repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(Piece):
    """A candidate clip: one face, at most 30 s, square, 25 fps, with 16 kHz mono audio of exactly matching length."""

    size_px: int
    effective_face_px: float  # of the face's size (as `face_px`) what has detail, source pixels: less if enlarged
    video: Ref  # mp4
    audio: Ref  # wav, int16, n_frames * 640 samples
    arrays: Ref  # npz: box (F,5) crop pixels + score, lmk (F,5,2) crop pixels, pose (F,3) degrees, crop (F,4) source px


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Cut and encoded once. Given by `clip`. The numbers of clips and of pieces that were spared are one series."""

    items: tuple[Clip, ...]
    spared: tuple[Piece, ...] = ()  # not cut, as they already break a limit that was set; as long as planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """How well lips and voice of one clip agree. Offset is positive when the audio is late, in frames at 25 fps."""

    key: str
    offset_frames: int
    confidence: float  # median minus minimum of the mean distances over offsets (SyncNet)
    distance: float  # the minimum
    distances: Sequence[float]  # mean distance at every offset from -reach to +reach; held as `Floats`
    curve_offset_frames: tuple[int, ...]  # the same, over time: one value per window of `curve_window_s`
    curve_confidence: Sequence[float]  # held as `Floats`
    curve_hop_s: float
    drift_frames_per_min: float  # slope of the curve
    drift_least_frames_per_min: float  # end of its 90 % interval nearer to zero; 0 where that holds 0

    def __post_init__(self) -> None:
        for name in ("distances", "curve_confidence"):
            object.__setattr__(self, name, Floats(getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class Syncs:
    """Given by `sync`: one record per clip."""

    items: tuple[Sync, ...]
    model: str  # name and digest of the weights: readings of different weights do not compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One spoken word, in languages without spaces a character; times are seconds inside the clip, None if unknown."""

    text: str
    start_s: float | None
    end_s: float | None
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageWindow:
    """Language identification of one window of speech."""

    start_s: float
    end_s: float
    language: str  # BCP-47 primary subtag
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What is said in one clip."""

    key: str
    speech_share: float  # voiced seconds / clip seconds, by voice activity detection
    speech_s: float
    snr_db: float | None  # of the voice to what lies under it (`stages.noise`); None where there is no voice
    other_voice_share: float | None  # of the time with a voice, in the worst 5 s (`stages.voices`)
    language: str  # most probable over all windows, under the expected name of it; "" where there is no speech
    language_probability: float  # of it and of all that count as the same, as the verdict has it
    verdict: str  # spoken against expected language: "agree", "other", "mixed", "unsure", or "" with nothing expected
    windows: Sequence[LanguageWindow]  # held as `Records`, as are the words
    text: str
    words: Sequence[Word]
    avg_logprob: float  # -10 where a text has no end
    aligned: bool  # whether a forced aligner gave all word times; if not, the recogniser did

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", Records(self.windows, LanguageWindow))
        object.__setattr__(self, "words", Records(self.words, Word))


@dataclass(frozen=True, kw_only=True)
class Speeches:
    """Given by `speech`: one record per clip, but for those that were spared it."""

    items: tuple[Speech, ...]
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is seen in one clip, and fingerprints that find copies of it."""

    key: str
    face: Sequence[float]  # mean unit ArcFace-type embedding, held as `Floats`; () where no face could be embedded
    spread: float  # lowest cosine of a frame's embedding to the one most like all others, the medoid: 0 of two people
    picture_hash: str  # hex: perceptual hashes of frames spread over the clip
    sound_hash: str  # hex: audio fingerprint of the clip
    text_share: float | None = None  # of its pictures, within boxes of text; None where none was looked for

    def __post_init__(self) -> None:
        object.__setattr__(self, "face", Floats(self.face))


@dataclass(frozen=True, kw_only=True)
class Identities:
    """Given by `identity`: one record per clip."""

    items: tuple[Identity, ...]
    model: str


@dataclass(frozen=True)
class Receipt:
    """Why a clip was dropped: the rule, what was measured, the limit, and the (negative) margin to it."""

    rule: str
    value: float | str
    limit: float | str
    margin: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Judged: kept or dropped, by which policy, with one receipt per rule known to be broken, in the rules' order."""

    key: str
    video: str
    kept: bool
    policy: str
    receipts: tuple[Receipt, ...] = ()
    person: str = ""  # identity cluster
    group: str = ""  # clips that must share a split: same person, near-duplicates, same channel
    split: str = ""  # "train", "val", "test"; "" if dropped
    shift_frames: int = 0  # by how much the sound of a kept clip is moved earlier for its policy; later if negative
