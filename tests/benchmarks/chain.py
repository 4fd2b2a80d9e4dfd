"""The whole chain: ours in a plain loop and on Ray, and the classic script of public tools with files between."""

import csv
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manifests.records import RATE_HZ, Verdict, Video
from manifests.store import Store
from pipeline.facts import measured
from pipeline.finish import judged
from pipeline.here import run_here
from pipeline.recipes import TalkingFaces, build
from pipeline.stage import Resources, keys
from stages.judge import Measured
from stages.media import probe
from tests.benchmarks import classic
from tests.benchmarks.agreement import our_clips, our_tracks, overlaps, readings, script_faces, texts, unseen
from tests.benchmarks.counts import Counts, call_seconds, counted, images, settled, stages_in
from tests.benchmarks.material import (
    ROOT,
    corpus_videos,
    face_pack,
    other_clips,
    random_syncnet,
    talking_clips,
    whisper,
)
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import S3FD_EVERY, empty
from tests.benchmarks.turns import Spread, Turns, in_turns, spread

MINUTES = 5.0
"""Of footage: half from the sample maker's corpus, half real where it is at hand, and half of that of what a set should
mostly not hold (dubbed, silent, music, several faces ...)."""

THREADS = 2
SAMPLE_SYNC = "sample/sync"
"""A SyncNet that has learned, of other sizes: for readings, not for time."""


@dataclass(frozen=True)
class Weights:
    """The same for both ways."""

    pack: str
    sync: Path
    whisper: Path


@dataclass(frozen=True)
class Footage:
    """What is taken through: videos made, a half; real ones of people who talk, and other real ones, a quarter each."""

    made: list[Path]
    talking: list[Path]
    other: list[Path]

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [*self.made, *self.talking, *self.other]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind, for the record."""
        return {"made": len(self.made), "real, talking": len(self.talking), "real, other": len(self.other)}


@dataclass(frozen=True)
class Here:
    """What a run in this process made."""

    store: Store
    counts: Counts


def measure(folder: Path, repeats: int, minutes: float = MINUTES) -> Findings:
    """Seconds for the same files, with the same weights."""
    pack, faces = face_pack()
    model, spoken = whisper(folder)
    use = Weights(pack, random_syncnet(folder), model)
    shown = footage(minutes)
    paths = shown.paths
    scripts: list[classic.Classic] = []
    turns = in_turns(
        {
            "ours": lambda: _here(use, paths, empty(folder / "here")),
            "ours, every window": lambda: _here(use, paths, empty(folder / "every"), every_window=True),
            "ours on Ray": lambda: _on_ray(use, paths, empty(folder / "ray")),
            "classic": lambda: scripts.append(
                classic.run(paths, use.sync, pack, model, empty(folder / "classic"), THREADS)
            ),
        },
        repeats,
    )
    here: Here = turns.made["ours"]
    script = scripts[-1]
    videos = [Video.of(str(path)) for path in paths]
    known, theirs = measured(_recipe(use).stages(), videos, here.store), script_faces(script.tracks)
    return Findings(
        ratios=_ratios(turns, scripts),
        numbers={
            "videos": shown.counts,
            **_times(turns, use, here, scripts, paths),
            **_work(known, here, script, paths),
            **unseen(known, theirs),
            **overlaps(our_tracks(known, here.store), theirs),
            **_sensible(use, videos, here.store, script, {str(path) for path in shown.made}),
        },
        notes=(
            f"faces: {faces}; SyncNet: random weights of the published sizes for the time; Whisper: {spoken}",
            "classic: ffmpeg to 25 fps and 16 kHz, scenedetect's command line, syncnet-python's own pipeline, and "
            "whisperx's command line once for all tracks. There are no weights for its detector S3FD: an insightface "
            f"detector looks at every frame, and a blind S3FD is timed on one in {S3FD_EVERY}, the second of two; "
            "'as published' takes the time of the one out and that of the other in",
            "ours scores lips in every fourth window, 40 at least, as recipe own does; 'every window' in each, as the "
            "script does",
            "ours looks at a picture with the whole input of the detector, as the script does; by default two share it",
            "readings: by the sample SyncNet, over the classic way's crops with every window and over our clips as "
            "timed; texts: with the language of the first window, as whisperx takes it",
            "pictures: counted in this process, in ffmpeg's reports and in calls of imread; a search for cuts decodes "
            "its file once",
            "ours also ships 512 px clips, identifies languages, embeds faces and takes fingerprints; classic does not",
        ),
    )


def _ratios(turns: Turns, scripts: Sequence[classic.Classic]) -> dict[str, Spread]:
    found = {}
    for way, spent in (
        ("classic as published", [script.published for script in scripts]),
        ("classic with insightface", [script.spent for script in scripts]),
    ):
        for name in ("ours", "ours, every window"):
            pairs = list(zip(spent, turns.spent[name], strict=True))
            found[f"{way} / {name}, cpu"] = spread([theirs.cpu_s / ours.cpu_s for theirs, ours in pairs])
            found[f"{way} / {name}, wall"] = spread([theirs.wall_s / ours.wall_s for theirs, ours in pairs])
        pairs = list(zip(spent, turns.spent["ours on Ray"], strict=True))
        found[f"{way} / ours on Ray, wall, start of Ray and report included"] = spread(
            [theirs.wall_s / on_ray.wall_s for theirs, on_ray in pairs]
        )
    return found


def _sensible(
    use: Weights, videos: Sequence[Video], store: Store, script: classic.Classic, made: set[str]
) -> dict[str, Any]:
    """What both ways read with a SyncNet that has learned, and what whisperx's choice of language makes of texts."""
    recipe = sensible(use)
    run_here(recipe.stages(), videos, store, "sensible")
    # This recogniser hears 4 s of the 30 that both ways give it: too few words are this benchmark's own doing.
    policy = build("sample", overrides=("policy.min_letters_per_voice_s=none",)).policy
    known, verdicts = judged(replace(recipe, policy=policy), videos, store)
    mine = our_clips(known, store)
    theirs = script_faces(classic.read_again(script, SAMPLE_SYNC), script.folder)
    return _kept(known, verdicts, made) | readings(mine, theirs) | texts(mine, theirs)


def _kept(known: Sequence[Measured], verdicts: Sequence[Verdict], made: set[str]) -> dict[str, Any]:
    """What was cut, and so encoded, for what the policy keeps: made videos alone, in which sync is read rightly."""
    kept = {verdict.key for verdict in verdicts if verdict.kept}
    clips = [clip for one in known if one.clips and one.video.url in made for clip in one.clips.items]
    frames = {clip.key: clip.n_frames for clip in clips}
    of_kept = sum(n for key, n in frames.items() if key in kept)
    why = Counter(receipt.rule for one in verdicts if one.key in frames for receipt in one.receipts[:1])
    return {
        "ours: made videos: pictures encoded per picture that the policy sample keeps": (
            sum(frames.values()) / of_kept if of_kept else None
        ),
        "ours: made videos: why clips were dropped": dict(why),
    }


def footage(minutes: float) -> Footage:
    """So many minutes. Raises `FileNotFoundError` where there are none."""
    found = Footage(corpus_videos(30 * minutes), talking_clips(15 * minutes), other_clips(15 * minutes))
    if not found.paths:
        raise FileNotFoundError("neither the sample corpus nor ../shared/clips is here: nothing to take through")
    return found


def sensible(use: Weights) -> TalkingFaces:
    """Ours as it is timed, but with a SyncNet that has learned, and the language of the first window, as whisperx."""
    plain = _recipe(use)
    return replace(
        plain,
        sync=replace(plain.sync, model=SAMPLE_SYNC),
        speech=replace(plain.speech, windows=1, window_s=plain.speech.part_s),
    )


def _times(
    turns: Turns, use: Weights, here: Here, scripts: Sequence[classic.Classic], paths: Sequence[Path]
) -> dict[str, Any]:
    """Seconds of the ways, and of the last turn's stages and steps."""
    stages, script = _recipe(use).stages(), scripts[-1]
    on_ray: Store = turns.made["ours on Ray"]
    names = stages_in(on_ray)
    seconds = sum(probe(path).duration_s for path in paths)
    steps_s = {name: round(value, 2) for name, value in script.steps_s.items()}
    again_s = steps_s["25 fps and 16 kHz"] + steps_s["scenedetect"]
    return {
        "footage_s": seconds,
        "ours: wall s": turns.wall_s("ours"),
        "ours: cpu s": turns.cpu_s("ours"),
        "ours, every window: wall s": turns.wall_s("ours, every window"),
        "ours, every window: cpu s": turns.cpu_s("ours, every window"),
        "ours: cpu s per second of footage": turns.cpu_s("ours").median / seconds,
        "ours on Ray: wall s": turns.wall_s("ours on Ray"),
        **{
            f"classic {name}: {what} s": spread([getattr(one, f"{what}_s") for one in spent])
            for name, spent in (
                ("as published", [one.published for one in scripts]),
                ("with insightface", [one.spent for one in scripts]),
                ("detector S3FD", [one.s3fd for one in scripts]),
                ("detector insightface", [one.insightface for one in scripts]),
            )
            for what in ("wall", "cpu")
        },
        "classic: S3FD, cpu of a picture after another / of the first of two": script.s3fd_in_a_row,
        "classic with insightface, without what syncnet-python does again: wall s": script.spent.wall_s - again_s,
        "ours: seconds by stage, loading included": call_seconds(here.store, keys(stages, Video)),
        "ours on Ray: seconds in calls of stages": sum(call_seconds(on_ray, names).values()),
        "ours on Ray: calls": sum(len(settled(on_ray, name)) for name in names.values()),
        "classic: seconds by step": steps_s,
    }


def _work(known: Sequence[Measured], here: Here, script: classic.Classic, paths: Sequence[Path]) -> dict[str, Any]:
    """Pictures decoded and encoded and bytes written, by both ways, in their last turn."""
    counts = here.counts
    frames = {str(path): probe(path).n_packets for path in paths}
    source = {str(path): path.stat().st_size for path in paths}
    clips = [clip for one in known if one.clips for clip in one.clips.items]
    copies = {one.source.file.path: one.video.url for one in known if one.source}
    full = dict.fromkeys(frames, 0)
    of_clips = 0
    for path, n in counts.decoded.items():
        url = path if path in full else next((url for copy, url in copies.items() if path.endswith(copy)), None)
        if url is None:
            of_clips += n
        else:
            full[url] += n
    cut = {one.video.url for one in known if one.clips}
    clip_frames = sum(clip.n_frames for clip in clips)
    scratch = {one.video.url: _of_video(counts.scratch, one.video) / source[one.video.url] for one in known}
    left = max(_of_video(counts.left, one.video) / source[one.video.url] for one in known)
    return {
        "ours: full-size decodes per picture of the sources": sum(full.values()) / sum(frames.values()),
        "ours: the same, videos that gave clips": _share(full, frames, cut),
        "ours: the same, videos that gave none": _share(full, frames, set(frames) - cut),
        "classic: full-size decodes per picture of the sources": script.full_size_decodes / sum(frames.values()),
        "ours: clip seconds cut": clip_frames / RATE_HZ,
        "ours: decodes of a clip per picture of it": of_clips / max(clip_frames, 1),
        "ours: encodes per picture of a clip": counts.encoded.total() / max(clip_frames, 1),
        "classic: encodes by ffmpeg per picture of the sources": script.counts.encoded.total() / sum(frames.values()),
        "ours: largest scratch of a stage and video / source": max(scratch.values()),
        "ours: the same, sources of 1 MB and more": max(
            (share for url, share in scratch.items() if source[url] >= 1e6), default=None
        ),
        "ours: the same, less the clip that is being written, which is moved to where it stays": left,
        "ours: bytes of clips / source": sum(c.video.size_bytes + c.audio.size_bytes for c in clips)
        / sum(source.values()),
        "classic: bytes of a video's files / source, the most": max(
            script.left_bytes[path] / source[path] for path in source
        ),
        "classic: bytes of all files / source": script.left_bytes.total() / sum(source.values()),
        "ours: images written": counts.images + images(script.folder.parent / "here"),
        "classic: images written": images(script.folder),
    }


def _of_video(bytes_of: Mapping[str, int], video: Video) -> int:
    return max(n for folder, n in bytes_of.items() if folder.endswith(video.id))


def _share(of: dict[str, int], all_of: dict[str, int], videos: set[str]) -> float | None:
    """None where there is no such video."""
    return sum(of[one] for one in videos) / sum(all_of[one] for one in videos) if videos else None


def _recipe(use: Weights, *, every_window: bool = False) -> TalkingFaces:
    windows = ("sync.every=1", "sync.least_windows=0") if every_window else ()
    full, cores = build("own", overrides=(*_settings(use), *windows)), Resources(cpus=float(THREADS))
    return replace(full, sync=replace(full.sync, resources=cores), speech=replace(full.speech, resources=cores))


def _settings(use: Weights) -> list[str]:
    """What differs from `own`, as `--set` takes it."""
    sets = {
        "watch.faces.pack": use.pack,
        "watch.look_px": 360,  # a picture of 16:9 fills the detector's input, as in the script;
        "watch.faces.per_sheet": 1,  # by default two share it
        "identity.pack": use.pack,
        "sync.model": use.sync,
        "speech.model": use.whisper,
        "speech.align": "false",
        "speech.vad": "pyannote",
    }
    return [f"{name}={value}" for name, value in sets.items()]


def _here(use: Weights, paths: Sequence[Path], folder: Path, *, every_window: bool = False) -> Here:
    store, stages = Store(str(folder)), _recipe(use, every_window=every_window).stages()
    with counted() as counts:
        run_here(stages, [Video.of(str(path)) for path in paths], store, "a")
    return Here(store, counts)


def _on_ray(use: Weights, paths: Sequence[Path], folder: Path) -> Store:
    """The command as a person gives it, to its end: shards, catalogue and report as well. The store that it filled."""
    manifest = folder / "few.csv"
    with manifest.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("url",), *((str(path),) for path in paths)])
    command = [sys.executable, "-m", "pipeline", "run", "--manifest", str(manifest), "--store", str(folder / "out")]
    command += [part for setting in _settings(use) for part in ("--set", setting)]
    # Ray gives its workers way to whatever else the machine does (15 by default); the other ways do not
    equal = os.environ | {"RAY_worker_niceness": "0"}
    done = subprocess.run(command, cwd=ROOT, env=equal, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    return Store(str(folder / "out"))
