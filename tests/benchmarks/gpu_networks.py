"""The detector, the embedder and Whisper on a GPU and on a processor: what a piece of work takes, and what they say."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from manifests.records import SAMPLE_RATE_HZ, Clips, Speeches, Video
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.recipes import own
from pipeline.stage import Facts, Resources
from stages import weights
from stages.faces import Faces, Found
from stages.identity import open_recogniser
from stages.media import probe
from stages.sound import audio_array
from tests.benchmarks.clips import make_clips, speech_like
from tests.benchmarks.gpu_parts import Given, gpus
from tests.benchmarks.material import corpus_videos, face_pack, rendered_head, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import Spread, Turns, in_turns, spread

_FACE_PX = 112
_SOUND_S = 10.0


def detector(given: Given) -> Findings:
    """Milliseconds of a picture of 640 x 360, two to a sheet, and how far boxes are apart."""
    pack, said = face_pack()
    pictures = rendered_head(given.size.pictures)
    looks = {name: Faces(pack=pack).open(gpus(device)) for name, device in _both(given)}
    turns = in_turns({name: partial(one.detect, pictures) for name, one in looks.items()}, given.repeats, warm=True)
    ours, other = turns.made["device"], turns.made["processor"]
    return Findings(
        ratios={"processor / device, wall": turns.wall_ratio("processor", "device")},
        numbers={
            "networks": said,
            **_ms_of(turns, "ms per picture", len(pictures)),
            **boxes_apart(ours, other),
        },
    )


def boxes_apart(one: list[Found], other: list[Found]) -> dict[str, float]:
    """Of finds in the same pictures."""
    same = [(a, b) for a, b in zip(one, other, strict=True) if len(a.box) == len(b.box)]
    apart = [np.abs(a.box[:, :4] - b.box[:, :4]).max() for a, b in same if len(a.box)]
    return {
        "share of pictures with as many faces": len(same) / len(one),
        "pictures with faces": len(apart),
        "largest difference of a box, px": float(max(apart, default=np.nan)),
    }


def embedder(given: Given) -> Findings:
    """Milliseconds of an aligned face, one at a time as `identity` embeds them, and cosines."""
    pack, said = face_pack()
    faces = [
        np.asarray(cv2.resize(picture[:, 140:500], (_FACE_PX, _FACE_PX)), np.uint8)
        for picture in rendered_head(given.size.pictures)
    ]
    nets = {name: open_recogniser(weights.path(pack), gpus(device)) for name, device in _both(given)}

    def each(name: str) -> np.ndarray:
        return np.stack([nets[name].get_feat([face]).ravel() for face in faces])

    turns = in_turns({name: partial(each, name) for name in nets}, given.repeats, warm=True)
    one, other = (made / np.linalg.norm(made, axis=1, keepdims=True) for made in turns.made.values())
    return Findings(
        ratios={"processor / device, wall": turns.wall_ratio("processor", "device")},
        numbers={
            "networks": said,
            **_ms_of(turns, "ms per face", len(faces)),
            "lowest cosine of the same face": float((one * other).sum(1).min()),
        },
    )


def hearing(given: Given) -> Findings:
    """The stage `speech` over clips: milliseconds of a second of sound, and whether texts are the same."""
    model, said = whisper(given.folder)
    sounds, voices = _sounds(given.size.spoken_s)
    store = Store(str(given.folder / "store"))
    clips = make_clips(store, given.empty("made"), [len(sound) / SAMPLE_RATE_HZ for sound in sounds], sounds)
    ways = {
        "device": heard(model, clips, store, given.device, "auto"),
        "device, float32": heard(model, clips, store, given.device, "float32"),
        "processor": heard(model, clips, store, "cpu", "auto"),
    }
    turns = in_turns(ways, given.repeats, warm=True)
    seconds = sum(clip.end_s - clip.start_s for clip in clips.items)
    texts = {name: [one.text for one in made.items] for name, made in turns.made.items()}
    alike = {name: list(zip(found, texts["processor"], strict=True)) for name, found in texts.items()}
    return Findings(
        ratios={"processor / device, wall": turns.wall_ratio("processor", "device")},
        numbers={
            "Whisper, voices": f"{said}, {voices}",
            "footage_s": seconds,
            **_ms_of(turns, "ms per s of sound", seconds),
            **{
                f"{name} and processor: equal texts, share; likeness": [
                    float(np.mean([a == b for a, b in alike[name]])),
                    float(np.mean([difflib.SequenceMatcher(None, a, b).ratio() for a, b in alike[name]])),
                ]
                for name in ("device", "device, float32")
            },
        },
    )


def heard(model: Path, clips: Clips, store: Store, device: str, compute_type: str) -> Callable[[], Speeches]:
    """The stage `speech` of `own` with this model and no aligner, opened."""
    asked = Resources(gpus=gpus(device))
    stage = replace(own().speech, model=str(model), align=False, device=device, compute_type=compute_type)
    work = replace(stage, resources=asked).open()

    def call() -> Speeches:
        with Bench(store, "speech", "made") as bench:
            found = work(Facts([Video.of("made"), clips]), bench)
        assert isinstance(found, Speeches)
        return found

    return call


def _sounds(seconds: float) -> tuple[list[np.ndarray], str]:
    """Int16 at 16 kHz, pieces of 10 s at most: voices of the sample corpus, or noise where it is not there."""
    paths = corpus_videos(seconds)
    if not paths:
        return [speech_like(round(min(seconds, _SOUND_S) * SAMPLE_RATE_HZ), 0)], "noise"
    ends = [min(probe(path).duration_s, _SOUND_S, seconds) for path in paths]
    return [audio_array(path, start_s=0.0, end_s=end) for path, end in zip(paths, ends, strict=True)], "sample corpus"


def _ms_of(turns: Turns, what: str, n: float) -> dict[str, Spread]:
    """What each way takes for one of `n`, on the clock."""
    return {f"{name}: {what}": spread([1000 * one.wall_s / n for one in of]) for name, of in turns.spent.items()}


def _both(given: Given) -> list[tuple[str, str]]:
    return [("device", given.device), ("processor", "cpu")]
