"""A run against held-out clips: the paper's measures and the ones that show learning, as `eval.json` and `eval.html`.

Every held-out video is made again from its own first frame and sound, clip after clip, in lanes that run side by side.
Where sound and truth end, the sound starts over and only measures without a truth go on: all videos are equally long,
and all lanes take their next video, with nothing remembered, at the same time.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from manifests.records import SAMPLES_PER_FRAME
from manifests.scratch import write_whole
from mcdm import distributed, measures
from mcdm.config import MotionConfig
from mcdm.encoders import make_audio
from mcdm.eval_page import write_page
from mcdm.faces import Bytes, Floats, align, mouth_opening
from mcdm.frechet import FVD_FRAMES, FrechetNetwork, distance
from mcdm.generate import Talker
from mcdm.held_out import divide
from mcdm.identity import PACKAGED, FacePack
from mcdm.precision import Precision, takes_bf16
from mcdm.shards import SampleError, Shards, chains
from mcdm.truth import Truth, audio_window, read_truth
from mcdm.video import VideoWriter

if TYPE_CHECKING:
    from stages.nets.syncnet import SyncNet

log = logging.getLogger("mcdm")

IDENTITY_EVERY = 25
"""Frames between two looks at the identity."""

_ON_PAGE = 4
"""Videos that the page shows."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate; see the command line."""

    run: Path
    shards: str
    splits: tuple[str, ...] = ()  # none: what the run held out
    n_videos: int = 8
    frames: int = 1800
    lanes: int = 16  # videos made side by side
    seed: int = 0
    steps: int = 0
    face_pack: str = PACKAGED  # "": identity is not measured
    sync: str = ""
    fid: Path | None = None
    fvd: Path | None = None
    use_archive: bool = True
    carry_memory: bool = True
    shuffle_sound: bool = False
    name: str = "eval"  # of the files that are written
    device: str = "auto"
    precision: Precision = "auto"
    settings: tuple[str, ...] = ()  # of the recipe, see `mcdm.override.in_use`


@dataclass
class Made:
    """What is read off a video as it is made."""

    ssim: list[Floats] = field(default_factory=list)
    ssim_repeated: list[Floats] = field(default_factory=list)  # where sound and truth start over, the truth does too
    opening: list[Floats] = field(default_factory=list)
    tokens: list[Floats] = field(default_factory=list)
    landmarks: list[Floats] = field(default_factory=list)
    pictures: list[Bytes] = field(default_factory=list)  # as far as the truth goes, for the page and for sync
    identity: list[tuple[int, float]] = field(default_factory=list)
    n_lost: int = 0  # looks at which no face was found

    def shown(self) -> Bytes:
        """All pictures in a row (n, side, side, 3)."""
        self.pictures = [np.concatenate(self.pictures)] if len(self.pictures) > 1 else self.pictures
        return self.pictures[0]


def roll_out(talker: Talker, truths: Iterable[Truth], options: EvaluateOptions) -> Iterator[tuple[Truth, Made]]:
    """Make all videos and measure them on the way. What is held at a time is the videos of all lanes, whatever number
    follows, and nothing grows with what has no truth: of 1,800 frames of 512 px 1.4 GB are true, and 1.4 GB made."""
    pack = FacePack(options.face_pack) if options.face_pack else None
    coming, first = iter(truths), 0
    while lanes := list(islice(coming, options.lanes)):
        made = _lanes(talker, lanes, first, pack, options)
        first += len(lanes)
        while lanes:  # what is handed over is not held on to
            yield lanes.pop(0), made.pop(0)


def _lanes(
    talker: Talker, truths: list[Truth], first: int, pack: FacePack | None, options: EvaluateOptions
) -> list[Made]:
    """One video in each lane, of which the first has the number `first` among all."""
    made = [Made() for _ in truths]
    state = talker.begin(
        np.stack([truth.pictures[0] for truth in truths]),
        [options.seed * 1000 + first + i for i in range(len(truths))],
        np.stack([truth.landmarks[0] for truth in truths]),
    )
    anchors = [pack.of(truth.pictures[0]) if pack else None for truth in truths]
    for start in range(0, options.frames, talker.recipe.frames):
        window = torch.stack([audio_window(truth, talker, start) for truth in truths])
        latents, state = talker.clip(state, window)
        f = talker.recipe.frames
        tokens = state.tokens[:, -f:]
        heads = torch.unflatten(talker.motion.head_of(tokens)[..., :10], 2, (5, 2)).cpu().numpy() + 0.5
        for i, pictures in enumerate(talker.pictures(latents)):
            note(made[i], truths[i], start, pictures, heads[i], tokens[i].cpu().numpy(), talker.recipe.motion.face_px)
            at = -start % IDENTITY_EVERY
            if pack and at < f:
                seen, anchor = pack.of(pictures[at]), anchors[i]
                made[i].n_lost += seen is None
                if seen is not None and anchor is not None:
                    made[i].identity.append((start + at, float(seen.embedding @ anchor.embedding)))
    return made


def note(made: Made, truth: Truth, start: int, pictures: Bytes, heads: Floats, tokens: Floats, face_px: int) -> None:
    """Measure one clip of one video. The landmarks are where the motion tokens put them."""
    side = pictures.shape[1]
    faces, _ = align(pictures, (heads * side).astype(np.float32), face_px)
    made.opening.append(mouth_opening(faces))
    again = truth.pictures[np.arange(start, start + len(pictures)) % len(truth.pictures)]
    made.ssim_repeated.append(measures.ssim(again, pictures))
    true = truth.pictures[start : start + len(pictures)]
    if len(true):
        made.ssim.append(made.ssim_repeated[-1][: len(true)])
        made.tokens.append(tokens[: len(true)])
        made.landmarks.append(heads[: len(true)])
        made.pictures.append(pictures[: len(true)])


def of_video(truth: Truth, made: Made, groups: dict[str, slice]) -> dict[str, Any]:
    """All numbers of one video."""
    n = len(truth.pictures)
    opening = np.concatenate(made.opening)[:n]
    loud = measures.loudness(truth.samples, SAMPLES_PER_FRAME)
    tokens, ssim = np.concatenate(made.tokens), np.concatenate(made.ssim)
    first, last = made.pictures[0][0].astype(float), made.pictures[-1][-1].astype(float)
    return {
        "key": truth.key,
        "frames_with_truth": n,
        "frames_made": sum(len(part) for part in made.opening),
        "ssim": float(ssim.mean()),
        "ssim_at": measures.at_horizons(ssim),
        "ssim_over_time": [
            [at, float(ssim[at : at + IDENTITY_EVERY].mean())] for at in range(0, len(ssim), IDENTITY_EVERY)
        ],
        "ssim_of_repeated_truth_at": measures.at_horizons(np.concatenate(made.ssim_repeated)),
        "mouth_and_true_mouth": measures.correlation(opening, truth.opening),
        "mouth_and_true_mouth_shuffled": measures.shuffled_correlation(opening, truth.opening),
        "mouth_and_loudness": measures.correlation(opening, loud),
        "mouth_and_loudness_shuffled": measures.shuffled_correlation(opening, loud),
        "true_mouth_and_loudness": measures.correlation(truth.opening, loud),
        "motion_cosine": {
            name: float(measures.cosine(tokens[:, part], truth.tokens[:, part]).mean()) for name, part in groups.items()
        },
        "contrast_kept": float(last.std() / max(first.std(), 1e-6)),
        "identity": [list(pair) for pair in made.identity],
        "identity_at": measures.at_horizons(_series(made.identity)),
        "faces_lost": made.n_lost if made.identity or made.n_lost else None,  # None: nobody looked
    }


def _series(pairs: list[tuple[int, float]]) -> Floats:
    if not pairs:
        return np.zeros(0, np.float32)
    values: Floats = np.full(pairs[-1][0] + IDENTITY_EVERY, np.nan, np.float32)
    for at, value in pairs:
        values[at] = value
    return values


def sync_network(model: str, device: torch.device) -> "SyncNet":
    """The pipeline's SyncNet; raises `ValueError` where its weights are missing."""
    from stages import weights
    from stages.nets.syncnet import load
    from stages.sync import state_file

    try:
        return load(state_file(weights.path(model))).to(device)
    except weights.WeightsMissingError as error:
        raise ValueError(f"--sync {model}: {error}") from error


def synchrony(truth: Truth, made: Made, network: "SyncNet", device: torch.device) -> dict[str, Any]:
    """`sync`: Sync-C and Sync-D of the made and of the true video by the pipeline's own stage. Nothing for a video too
    short to be looked at."""
    from stages.sync import face_crops, offset_distances, reading

    samples = (truth.samples * 32768).astype(np.int16)
    offset = truth.boxes.reshape(-1, 2, 2) - truth.landmarks.mean(1, keepdims=True)
    centre = np.concatenate(made.landmarks).mean(1, keepdims=True)
    boxes = (centre + np.median(offset, axis=0)).reshape(-1, 4)
    found = {}
    for name, pictures, box in (
        ("made", made.shown(), boxes),
        ("true", truth.pictures, truth.boxes),
    ):
        scaled = box.astype(np.float64) * pictures.shape[1]
        crops = face_crops([pictures[i : i + 64, ..., ::-1] for i in range(0, len(pictures), 64)], scaled)
        matrix = offset_distances(network, crops, samples, reach=15, batch=32, device=device)
        if not len(matrix):
            return {}
        score = reading(truth.key, matrix, window_s=3.0, hop_s=1.0)
        found[name] = {"sync_c": score.confidence, "sync_d": score.distance, "offset_frames": score.offset_frames}
    return {"sync": found}


def mean_of(videos: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over videos of every number that they have, nested groups too."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for video in videos for name in video):
        values = [video[name] for video in videos if video.get(name) is not None]
        if values and isinstance(values[0], dict):
            found[name] = mean_of(values)
        elif values and isinstance(values[0], (int, float)):
            found[name] = float(np.mean(values))
    return found


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure, write `eval.json` and `eval.html` into the run, return the numbers. Raises `ValueError`."""
    check_name(options.name)
    device = distributed.start_alone("evaluate", options.device, options.precision).device
    talker = Talker(
        options.run,
        device,
        steps=options.steps,
        settings=options.settings,
        use_archive=options.use_archive,
        carry_memory=options.carry_memory,
        bf16=takes_bf16(options.precision, device),
    )
    shards = Shards(options.shards)
    truths = held_out_truths(shards, talker, options)
    if options.shuffle_sound:
        truths = shuffled(truths)
    place, groups = options.run / options.name, token_groups(talker.recipe.motion)
    paths = {"fid": options.fid, "fvd": options.fvd}
    networks = {name: FrechetNetwork(path, device) for name, path in paths.items() if path is not None}
    for name, network in networks.items():  # refused now, and not after hours of video
        network.of_video(np.zeros((FVD_FRAMES, *2 * [talker.recipe.codec.size_px], 3), np.uint8), videos=name == "fvd")
    sync = sync_network(options.sync, device) if options.sync else None
    features: dict[str, tuple[list[NDArray[Any]], list[NDArray[Any]]]] = {name: ([], []) for name in networks}
    videos: list[dict[str, Any]] = []
    pages: list[tuple[str, bytes]] = []
    for truth, made in roll_out(talker, truths, options):
        videos.append(of_video(truth, made, groups) | (synchrony(truth, made, sync, device) if sync else {}))
        for name, network in networks.items():
            features[name][0].extend(network.of_video(truth.pictures, videos=name == "fvd"))
            features[name][1].extend(network.of_video(made.shown(), videos=name == "fvd"))
        if len(pages) < _ON_PAGE:
            pages.append(side_by_side(place, truth, made))
        log.info("%s: %d frames made, SSIM %.3f", truth.key, videos[-1]["frames_made"], videos[-1]["ssim"])
        del truth, made  # before the next are read
    distances = {name: distance(*both) for name, both in features.items()}
    result = {
        "recipe": talker.recipe.name,
        "options": {name: str(value) for name, value in asdict(options).items()},
        "computed_in": "bf16" if talker.bf16 else "fp32",
        "mean": mean_of(videos),
        "frechet": {name: distances[name][0] if name in distances else None for name in paths},
        "frechet_samples": {name: count for name, (_, count) in distances.items()},
        "not_measured": not_measured(options, videos, distances),
        "videos": videos,
    }
    write_whole(place.with_name(f"{options.name}.json"), json.dumps(result, indent=1))
    write_page(place.with_name(f"{options.name}.html"), result, pages, options.run)
    log.info("%s.json: %s", place, json.dumps(result["mean"]))
    return result


def token_groups(motion: MotionConfig) -> dict[str, slice]:
    """Which motion tokens are the head's, the lips' and the expression's."""
    lip = motion.head_tokens + motion.lip_tokens
    return {
        "head": slice(0, motion.head_tokens),
        "lip": slice(motion.head_tokens, lip),
        "expression": slice(lip, None),
    }


def check_name(name: str) -> None:
    """Raise `ValueError` unless files of this name can lie in a run, beside those of the run itself."""
    if Path(name).name != name or name in ("", "..", "recipe", "held_out"):
        raise ValueError(f"--name {name!r}: expected the name of files to write into the run, such as eval")


def not_measured(
    options: EvaluateOptions, videos: list[dict[str, Any]], distances: dict[str, tuple[float | None, int]]
) -> dict[str, str]:
    """What was left out, and what it would take."""
    wanted = {
        "identity": (options.face_pack, "--face-pack"),
        "sync": (options.sync, "--sync"),
        "fid": (options.fid, "--fid"),
        "fvd": (options.fvd, "--fvd"),
    }
    found = {name: f"no network given ({flag})" for name, (value, flag) in wanted.items() if not value}
    found["e_fid"] = "would take a network that reads a 3-D morphable face model's expression off a picture"
    if options.sync and not any("sync" in video for video in videos):
        found["sync"] = "all videos are too short"
    few = {name: count for name, (value, count) in distances.items() if value is None}
    found |= {name: f"takes two samples at least, here {count}" for name, count in few.items()}
    return found


def held_out_truths(shards: Shards, talker: Talker, options: EvaluateOptions) -> Iterator[Truth]:
    """The longest videos that the run held out, or those of the asked splits, read as they are asked for; bad ones are
    skipped by name. Raises `ValueError` for none."""
    held_out = shards.split(*options.splits) if options.splits else divide(shards, options.run).held_out
    if not held_out:
        raise ValueError(f"{options.shards}: no clips of splits {', '.join(options.splits)}")
    read, audio = 0, make_audio(talker.recipe.audio).to(talker.device)
    found = chains(shards.clips, {clip.key for clip in held_out})
    for chain in sorted(found, key=lambda chain: -sum(clip.n_frames for clip in chain)):
        if read == options.n_videos:
            return
        try:
            yield read_truth(shards, chain, talker, audio, options.frames)
            read += 1
        except SampleError as error:
            log.warning("skipped %s", error)
    if not read:
        raise ValueError(f"{options.shards}: none of {len(held_out)} held-out clips can be used")


def shuffled(truths: Iterator[Truth]) -> Iterator[Truth]:
    """The control: every video hears the sound of the next one, the last of the first; raises `ValueError` for a single
    video."""
    truth = next(truths)
    first, alone = truth.audio, True
    for following in truths:
        yield replace(truth, audio=following.audio)
        truth, alone = following, False
    if alone:
        raise ValueError("--shuffle-sound needs two videos at least")
    yield replace(truth, audio=first)


def side_by_side(place: Path, truth: Truth, made: Made) -> tuple[str, bytes]:
    """The true (left) and the made video (right) with the sound, three times as large: key and mp4 bytes."""
    pictures = made.shown()
    side = pictures.shape[1]
    scale = max(1, 192 // side)
    path = place.with_name(f"{place.name}-{truth.key}.mp4")
    with VideoWriter(path, side * scale, width_px=2 * side * scale) as writer:
        writer.hear(truth.samples)
        for start in range(0, len(pictures), 64):
            both = np.concatenate([truth.pictures[start : start + 64], pictures[start : start + 64]], 2)
            writer.show(both.repeat(scale, 1).repeat(scale, 2))
    return truth.key, path.read_bytes()
