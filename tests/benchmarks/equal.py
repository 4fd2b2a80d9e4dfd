"""Whether ours and the classic script find the same in the same footage, with networks that have learned. No times."""

from dataclasses import replace
from pathlib import Path

from manifests.records import Video
from manifests.store import Store
from pipeline.facts import measured
from pipeline.here import run_here
from pipeline.recipes import TalkingFaces
from stages.judge import Measured
from stages.watch import Watch
from tests.benchmarks import classic
from tests.benchmarks.agreement import (
    our_clips,
    our_tracks,
    overlaps,
    readings,
    same_sound,
    script_faces,
    texts,
    unseen,
)
from tests.benchmarks.chain import MINUTES, SAMPLE_SYNC, THREADS, Weights, footage, sensible
from tests.benchmarks.counts import ffmpeg_on_path
from tests.benchmarks.material import face_pack, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty, whisperx

TO_SYNC, TO_SPEECH = 4, 5
"""How many stages of a recipe."""

X264_CRF = 23
"""Its default, for the script against itself: what a change that nobody would call one makes of its outputs."""


def measure(folder: Path, repeats: int, minutes: float = MINUTES) -> Findings:
    """Boxes, readings and texts of the footage of `chain`; one turn."""
    pack, faces = face_pack()
    model, spoken = whisper(folder)
    shown = footage(minutes)
    videos, store = [Video.of(str(path)) for path in shown.paths], Store(str(folder / "here"))
    script = classic.run(shown.paths, None, pack, model, empty(folder / "classic"), THREADS)
    theirs = script_faces(classic.read_again(script, SAMPLE_SYNC), script.folder)
    recipe = sensible(Weights(pack, Path(SAMPLE_SYNC), model))

    def run(way: TalkingFaces, name: str, n_stages: int) -> list[Measured]:
        stages = way.stages()[:n_stages]
        run_here(stages, videos, store, name)
        return measured(stages, videos, store)

    def hear(wavs: list[Path], out: Path) -> None:
        with ffmpeg_on_path(folder / "bin"):
            whisperx(wavs, model, out, THREADS)

    known = run(recipe, "as timed", TO_SPEECH)
    every = run(replace(recipe, sync=replace(recipe.sync, every=1)), "every window", TO_SYNC)
    usual = Watch()
    faces_usual = replace(recipe.watch.faces, per_sheet=usual.faces.per_sheet)
    watch = replace(recipe.watch, look_px=usual.look_px, faces=faces_usual)
    looks = run(replace(recipe, watch=watch), "usual looks", TO_SYNC)
    mine = our_clips(known, store)
    again = classic.run(shown.paths, None, pack, None, empty(folder / "again"), THREADS, crf=X264_CRF)
    itself = script_faces(classic.read_again(again, SAMPLE_SYNC))
    return Findings(
        numbers={
            "videos": shown.counts,
            **unseen(known, theirs),
            **overlaps(our_tracks(known, store), theirs),
            **readings(mine, theirs),
            **texts(mine, theirs),
            **same_sound(known, store, empty(folder / "sound"), hear),
            "every window": readings(our_clips(every, store), theirs),
            "two pictures share the detector's input": overlaps(our_tracks(looks, store), theirs)
            | readings(our_clips(looks, store), theirs),
            f"the script at crf {X264_CRF} and itself": overlaps(itself, theirs) | readings(itself, theirs),
        },
        notes=(
            f"faces: {faces}, on both sides; SyncNet: the sample's; Whisper: {spoken}",
            "ours as chain times it: the windows of `own`, a picture with the whole input of the detector; then with "
            "every window; then with two pictures in the detector's input, the default",
            "readings of the classic way: over its crops, every window; texts: with the language of the first window, "
            "as whisperx takes it, over the sound of a track and of our clip of it, and over that of our clips by both",
            "compared: tracks of the classic way (longer than 2 s) and the clip of ours that shows the same face over "
            "at least 80 % of the same frames",
        ),
        once=True,
    )
