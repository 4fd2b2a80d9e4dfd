"""What is true about a rendered corpus: written beside its videos as `truth.json`, read by the scorer."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from manifests.codec import from_json, to_json

FLAWS = {
    "shifted_audio": "the sound comes early or late by more than a frame",
    "small_shift": "the sound is late by one frame: to be kept",
    "other_voice": "another speaker saying something else is heard",
    "still_face": "a voice over a frozen picture",
    "silent_talker": "the mouth moves and nothing is heard",
    "listener": "a second person who is seen while somebody else talks",
    "wrong_tag": "the manifest states another language than is spoken",
    "code_switch": "sentences in two languages by turns",
    "tiny_face": "a face too small to be of use",
    "blur": "far out of focus",
    "cut_in_speech": "the camera angle changes within a sentence: both sides to be kept, no clip across",
    "no_audio": "a file without a sound stream",
    "no_face": "a voice over scenery",
    "truncated": "a file that ends before its end",
    "duplicate": "a re-encoded copy of another video of the corpus: one of the two to be kept",
}
"""Planted flaws by name. All but those that say so are to be dropped."""


@dataclass(frozen=True, kw_only=True)
class SpokenWord:
    """A word and when it is heard, seconds of the video."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One person in view within one scene. Times are seconds of the video, boxes pixels of its frames."""

    start_s: float
    end_s: float
    person: int  # seed of the person; -1: nobody (scenery)
    box: tuple[float, float, float, float]  # median of left, top, right, bottom; all 0 for nobody
    yaw_deg: float  # median of the absolute yaw
    talks: bool  # the lips move with speech
    language: str  # that is heard, BCP-47 primary subtag; "" for silence
    text: str  # that is heard, whether or not this person says it
    words: tuple[SpokenWord, ...]
    audio_offset_frames: int  # at 25 fps, positive when the sound is late; meaningless unless `talks` and heard
    flaw: str = ""  # one of FLAWS or ""
    should_keep: bool | None = True  # None: either will do


@dataclass(frozen=True, kw_only=True)
class VideoTruth:
    """One file of the corpus."""

    path: str  # below the corpus folder, as the manifest's url
    tagged_language: str
    duration_s: float
    rate_hz: float
    width_px: int
    height_px: int
    cuts_s: tuple[float, ...]  # the first moment of every scene but the first
    segments: tuple[Segment, ...]
    flaw: str = ""  # of the file as a whole
    copy_of: str = ""  # path of the video that this one is a copy of


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A whole corpus."""

    seed: int
    hard: bool
    videos: tuple[VideoTruth, ...]


def read_truth(path: Path) -> Truth:
    """Raises `FileNotFoundError`, and `ValueError` for a file that is something else."""
    try:
        return from_json(path.read_bytes(), Truth)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: not a truth.json: {error}") from None


def write_truth(path: Path, truth: Truth) -> None:
    """Write `truth.json`."""
    path.write_bytes(to_json(truth))
