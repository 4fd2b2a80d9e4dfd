"""SyncNet over clips: ours from the clips' files to readings, and syncnet-python's way with pictures between."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile

from manifests.records import Clip, Clips, Syncs
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.recipes import own
from pipeline.stage import Facts, Resources, Work
from stages.media import frames
from stages.nets.syncnet import load
from stages.sync import ScoreSync, face_crops, offset_distances, read_wav, reading
from tests.benchmarks.clips import make_clips
from tests.benchmarks.material import random_syncnet
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty, evaluate, ffmpeg, syncnet
from tests.benchmarks.turns import in_turns, spread

LENGTHS_S = (8.0, 4.0, 2.4)


def measure(folder: Path, repeats: int) -> Findings:
    """Seconds per second of clip, with equal weights."""
    state = random_syncnet(folder)
    store = Store(str(folder / "store"))
    clips = make_clips(store, empty(folder / "made"), LENGTHS_S)
    every_window, theirs = ScoreSync(model=str(state)).open(), syncnet(state)
    fewer = replace(own().sync, model=str(state), resources=Resources())
    fewer_windows = fewer.open()

    def ours(work: Work[Syncs]) -> Syncs:
        with Bench(store, "sync", "made") as bench:
            found = work(Facts([clips]), bench)
        assert isinstance(found, Syncs)
        return found

    turns = in_turns(
        {
            "ours": lambda: ours(every_window),
            "ours, windows as `own` looks": lambda: ours(fewer_windows),
            "syncnet-python": lambda: [_theirs(theirs, store, c, folder / "theirs") for c in clips.items],
        },
        repeats,
        warm=True,
    )
    read: Syncs = turns.made["ours"]
    other: list[tuple[int, float, float]] = turns.made["syncnet-python"]
    seconds = sum(clip.end_s - clip.start_s for clip in clips.items)
    exact = _difference(state, theirs, store, clips, folder / "exact")
    return Findings(
        ratios={
            "syncnet-python / ours, wall": turns.wall_ratio("syncnet-python", "ours"),
            "syncnet-python / ours, cpu": turns.cpu_ratio("syncnet-python", "ours"),
            "syncnet-python / ours, windows as `own` looks, cpu": turns.cpu_ratio(
                "syncnet-python", "ours, windows as `own` looks"
            ),
        },
        numbers={
            "ours, times real time per core": spread([seconds / one.cpu_s for one in turns.spent["ours"]]),
            "ours, cpu_ms per frame": spread([1000 * one.cpu_s / seconds / 25 for one in turns.spent["ours"]]),
            "footage_s": seconds,
            "frames from one look to the next, by clip": [fewer.step_frames(clip.n_frames) for clip in clips.items],
            "torch threads": torch.get_num_threads(),
            "largest |distance difference|, same pictures": exact,
            "|offset difference|, frames, each from its own files": [
                abs(mine.offset_frames + one[0]) for mine, one in zip(read.items, other, strict=True)
            ],
            "|confidence difference|, each from its own files": [
                round(abs(mine.confidence - one[1]), 4) for mine, one in zip(read.items, other, strict=True)
            ],
        },
        notes=(
            "random weights of the published layout: good for time and equality, their readings mean nothing",
            "theirs: ffmpeg to JPEG and WAV, crops as JPEG, evaluate; ours: decode, crop and score in memory",
        ),
    )


def _theirs(instance: object, store: Store, clip: Clip, folder: Path) -> tuple[int, float, float]:
    """Pictures to JPEG by ffmpeg, cut as syncnet-python cuts, written as JPEG again, scored."""
    whole, cut = empty(folder / "whole"), empty(folder / "cut")
    ffmpeg("-i", store.at(clip.video.path), "-q:v", "2", "-f", "image2", whole / "%06d.jpg")
    ffmpeg("-i", store.at(clip.audio.path), "-ac", "1", "-ar", "16000", cut / "audio.wav")
    pictures = (_picture(path)[None] for path in sorted(whole.glob("*.jpg")))
    with np.load(store.at(clip.arrays.path)) as arrays:
        boxes = arrays["box"][:, :4].astype(np.float64)
    for number, (crop,) in enumerate(face_crops(pictures, boxes)):
        cv2.imwrite(str(cut / f"{number:06d}.jpg"), crop)
    return evaluate(instance, cut)


def _picture(path: Path) -> NDArray[np.uint8]:
    found = cv2.imread(str(path))
    assert found is not None, path
    return np.asarray(found, np.uint8)


def _difference(state: Path, instance: object, store: Store, clips: Clips, folder: Path) -> float:
    """The larger of the differences of distance and confidence when both are given the very same pictures."""
    clip = clips.items[0]
    _theirs(instance, store, clip, folder)
    pictures = np.stack([_picture(path) for path in sorted((folder / "cut").glob("*.jpg"))])
    _, samples = wavfile.read(folder / "cut" / "audio.wav")
    assert np.array_equal(samples, read_wav(store.get_file(clip.audio.path, folder)))
    assert len(pictures) == sum(len(one.images) for one in frames(store.get_file(clip.video.path, folder)))
    _, confidence, distance = evaluate(instance, folder / "cut")
    cpu = torch.device("cpu")
    matrix = offset_distances(load(state), [pictures], samples, reach=15, batch=32, device=cpu)
    mine = reading(clip.key, matrix, window_s=3.0, hop_s=1.0)
    return max(abs(mine.confidence - confidence), abs(mine.distance - distance))
