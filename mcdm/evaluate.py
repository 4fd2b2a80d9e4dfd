"""A run against held-out clips: the paper's measures and the ones that show learning, as `eval.json` and `eval.html`.

Every held-out video is made again from its own first frame and sound, clip after clip, in lanes that run side by side.
Where sound and truth end, the sound starts over and only measures without a truth go on: all videos are equally long,
and all lanes take their next video, with nothing remembered, at the same time.
"""

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from manifests.records import SAMPLES_PER_FRAME
from mcdm import distributed, measures
from mcdm.encode import face_parts, head_state, resize
from mcdm.encoders import heard, make_audio
from mcdm.eval_page import write_page
from mcdm.faces import Bytes, Floats, View, align, mouth_opening, view_of
from mcdm.frechet import FrechetNetwork
from mcdm.generate import Talker
from mcdm.held_out import divide
from mcdm.identity import PACKAGED, FacePack
from mcdm.shards import Clip, SampleError, Shards, chains, decode
from mcdm.video import VideoWriter

if TYPE_CHECKING:
    from stages.nets.syncnet import SyncNet

log = logging.getLogger("mcdm")

IDENTITY_EVERY = 25
"""Frames between two looks at the identity."""


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


@dataclass
class Truth:
    """A held-out video: pictures at the recipe's size, sound, landmarks (view shares), openings, motion tokens."""

    key: str
    pictures: Bytes
    samples: Floats
    audio: Tensor  # (F, v, c)
    landmarks: Floats
    boxes: Floats
    opening: Floats
    tokens: Floats  # (F, n, d)


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


def read_truth(shards: Shards, chain: list[Clip], talker: Talker, audio: nn.Module, frames: int) -> Truth:
    """A chain of clips as one video, cut at `frames`; raises `SampleError`. `audio`: the recipe's encoder."""
    recipe = talker.recipe
    parts: dict[str, list[NDArray[Any]]] = {}
    done = 0
    for clip in chain:
        count = min(clip.n_frames, frames - done)
        if count <= 0:
            break
        landmarks, pose = face_parts(clip, shards)
        data, sound = shards.read(clip, "mp4"), shards.sound(clip)
        corners = shards.array(clip, "box.npy", (clip.n_frames, 5))[:, :4].reshape(-1, 2, 2)
        view = View(0, 0, 0)
        for start in range(0, count, 64):
            stop = min(start + 64, count)
            whole = decode(clip.key, data, start, stop)
            if not start:
                view = view_of(landmarks, whole.shape[1], recipe.codec.view)
                landmarks, corners = view.move(landmarks), view.move(corners)
            pictures, size = view.cut(whole), view.side
            faces, _ = align(pictures, landmarks[start:stop], recipe.motion.face_px)
            head = head_state(landmarks[start:stop], pose[start:stop], size)
            shown = torch.from_numpy(faces).to(talker.device)[None].float() / 127.5 - 1
            tokens = talker.motion.tokens(shown, torch.from_numpy(head).to(talker.device)[None])[0]
            new: dict[str, NDArray[Any]] = {
                "pictures": resize(pictures, recipe.codec.size_px),
                "landmarks": landmarks[start:stop] / size,
                "boxes": corners[start:stop].reshape(-1, 4) / size,
                "opening": mouth_opening(faces),
                "tokens": tokens.cpu().numpy(),
            }
            for name, values in new.items():
                parts.setdefault(name, []).append(values)
        parts.setdefault("samples", []).append(sound[: count * SAMPLES_PER_FRAME])
        done += count
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    with torch.no_grad():
        features = audio(torch.from_numpy(joined["samples"]).to(talker.device))
    return Truth(key=chain[0].key, audio=features, **joined)


def audio_window(truth: Truth, talker: Talker, start: int) -> Tensor:
    """Audio tokens (history + f, k, c) of the clip at `start`; the sound starts over where it ends."""
    reach, length = talker.recipe.audio.reach, len(truth.audio)
    at = torch.arange(start - talker.history - reach, start + talker.recipe.frames + reach).clamp(min=0)
    return heard(truth.audio[at.to(truth.audio.device) % length], reach)


def roll_out(talker: Talker, truths: list[Truth], options: EvaluateOptions) -> list[Made]:
    """Make all videos and measure them on the way: what the models hold does not grow with their number, and nothing
    grows with what has no truth."""
    pack = FacePack(options.face_pack) if options.face_pack else None
    starts = range(0, len(truths), options.lanes)
    return [made for i in starts for made in _lanes(talker, truths[i : i + options.lanes], i, pack, options)]


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
        "faces_lost": made.n_lost,
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
        ("made", np.concatenate(made.pictures), boxes),
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


def compared(truths: list[Truth], made: list[Made]) -> tuple[list[Bytes], list[Bytes]]:
    """The true and the made pictures of every video, as far as both go."""
    shown = [np.concatenate(one.pictures) for one in made]
    return [truth.pictures[: len(one)] for truth, one in zip(truths, shown, strict=True)], shown


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
    device = distributed.start(options.device).device
    talker = Talker(
        options.run,
        device,
        steps=options.steps,
        use_archive=options.use_archive,
        carry_memory=options.carry_memory,
    )
    shards = Shards(options.shards)
    truths = held_out_truths(shards, talker, options)
    if options.shuffle_sound:
        truths = shuffled(truths)
    paths = {"fid": options.fid, "fvd": options.fvd}
    networks = {name: FrechetNetwork(path, device) for name, path in paths.items() if path is not None}
    sync = sync_network(options.sync, device) if options.sync else None
    made = roll_out(talker, truths, options)
    motion = talker.recipe.motion
    lip = motion.head_tokens + motion.lip_tokens
    groups = {
        "head": slice(0, motion.head_tokens),
        "lip": slice(motion.head_tokens, lip),
        "expression": slice(lip, None),
    }
    videos = [of_video(truth, one, groups) for truth, one in zip(truths, made, strict=True)]
    true, shown = compared(truths, made) if networks else ([], [])
    distances = {name: network.distance(true, shown, videos=name == "fvd") for name, network in networks.items()}
    if sync is not None:
        for video, truth, one in zip(videos, truths, made, strict=True):
            video |= synchrony(truth, one, sync, device)
    result = {
        "recipe": talker.recipe.name,
        "options": {name: str(value) for name, value in asdict(options).items()},
        "mean": mean_of(videos),
        "frechet": {name: distances[name][0] if name in distances else None for name in paths},
        "frechet_samples": {name: count for name, (_, count) in distances.items()},
        "not_measured": not_measured(options, videos),
        "videos": videos,
    }
    place = options.run / options.name
    place.with_name(f"{options.name}.json").write_text(json.dumps(result, indent=1))
    pages = [side_by_side(place, truth, one) for truth, one in list(zip(truths, made, strict=True))[:4]]
    write_page(place.with_name(f"{options.name}.html"), result, pages, options.run)
    log.info("%s.json: %s", place, json.dumps(result["mean"]))
    return result


def check_name(name: str) -> None:
    """Raise `ValueError` unless files of this name can lie in a run, beside those of the run itself."""
    if Path(name).name != name or name in ("", "..", "recipe", "held_out"):
        raise ValueError(f"--name {name!r}: expected the name of files to write into the run, such as eval")


def not_measured(options: EvaluateOptions, videos: list[dict[str, Any]]) -> dict[str, str]:
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
    return found


def held_out_truths(shards: Shards, talker: Talker, options: EvaluateOptions) -> list[Truth]:
    """The longest videos that the run held out, or those of the asked splits; bad ones are skipped by name. Raises
    `ValueError` for none."""
    held_out = shards.split(*options.splits) if options.splits else divide(shards, options.run).held_out
    if not held_out:
        raise ValueError(f"{options.shards}: no clips of splits {', '.join(options.splits)}")
    truths: list[Truth] = []
    audio = make_audio(talker.recipe.audio).to(talker.device)
    for chain in sorted(chains(held_out), key=lambda chain: -sum(clip.n_frames for clip in chain)):
        if len(truths) == options.n_videos:
            break
        try:
            truths.append(read_truth(shards, chain, talker, audio, options.frames))
        except SampleError as error:
            log.warning("skipped %s", error)
    if not truths:
        raise ValueError(f"{options.shards}: none of {len(held_out)} held-out clips can be used")
    return truths


def shuffled(truths: list[Truth]) -> list[Truth]:
    """The control: every video hears the sound of the next one; raises `ValueError` for a single video."""
    if len(truths) < 2:
        raise ValueError("--shuffle-sound needs two videos at least")
    others = [*truths[1:], truths[0]]
    return [replace(truth, audio=other.audio) for truth, other in zip(truths, others, strict=True)]


def side_by_side(place: Path, truth: Truth, made: Made) -> tuple[str, bytes]:
    """The true (left) and the made video (right) with the sound, three times as large: key and mp4 bytes."""
    pictures = np.concatenate(made.pictures)
    both = np.concatenate([truth.pictures[: len(pictures)], pictures], 2)
    scale = max(1, 192 // both.shape[1])
    path = place.with_name(f"{place.name}-{truth.key}.mp4")
    with VideoWriter(path, both.shape[1] * scale, width_px=both.shape[2] * scale) as writer:
        writer.hear(truth.samples)
        for start in range(0, len(both), 64):
            writer.show(both[start : start + 64].repeat(scale, 1).repeat(scale, 2))
    return truth.key, path.read_bytes()
