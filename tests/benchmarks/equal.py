"""Whether ours and the classic script find the same in the same footage, with networks that have learned. No times."""

from dataclasses import replace
from pathlib import Path

from manifests.records import Video
from manifests.store import Store
from pipeline.facts import measured
from pipeline.here import run_here
from tests.benchmarks import classic
from tests.benchmarks.agreement import overlaps, readings, same_sound, texts
from tests.benchmarks.chain import MINUTES, SAMPLE_SYNC, THREADS, Weights, footage, sensible
from tests.benchmarks.counts import ffmpeg_on_path
from tests.benchmarks.material import face_pack, whisper
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty, whisperx

AS_TIMED = "the windows of own"


def measure(folder: Path, repeats: int, minutes: float = MINUTES) -> Findings:
    """Boxes, readings and texts of the footage of `chain`; one turn."""
    pack, faces = face_pack()
    model, spoken = whisper(folder)
    shown = footage(minutes)
    videos, store = [Video.of(str(path)) for path in shown.paths], Store(str(folder / "here"))
    script = classic.run(shown.paths, None, pack, model, empty(folder / "classic"), THREADS)
    again = classic.read_again(script, SAMPLE_SYNC)
    recipe = sensible(Weights(pack, Path(SAMPLE_SYNC), model))

    def hear(wavs: list[Path], out: Path) -> None:
        with ffmpeg_on_path(folder / "bin"):
            whisperx(wavs, model, out, THREADS)

    ways = {AS_TIMED: recipe, "every window": replace(recipe, sync=replace(recipe.sync, every=1))}
    numbers: dict[str, object] = {"videos": shown.counts}
    for name, way in ways.items():
        stages = way.stages()[:-1]
        run_here(stages, videos, store, name)
        known = measured(stages, videos, store)
        if name == AS_TIMED:
            numbers |= overlaps(known, script.tracks, store) | texts(known, script.tracks, store, script.folder)
            numbers |= same_sound(known, store, empty(folder / "sound"), hear)
        numbers |= {f"{name}: {what}": value for what, value in readings(known, again, store).items()}
    return Findings(
        numbers=numbers,
        notes=(
            f"faces: {faces}, on both sides; SyncNet: the sample's; Whisper: {spoken}",
            "readings: over the classic way's crops with every window, over our clips with the windows of `own` and "
            "with every one; texts: with the language of the first window, as whisperx takes it, over the sound of a "
            "track and of our clip of it, and over that of our clips by both",
            "compared: tracks of the classic way (longer than 2 s) and the clip of ours that shows the same face over "
            "at least 80 % of the same frames",
        ),
    )
