"""The whole pipeline over real footage: served over HTTP, fetched, watched, cut, scored and heard; a table by label.

SyncNet and Whisper have random weights here, so their numbers are not looked at; voice activity is a trained one.
`python -m tests.stages.test_real_clips` writes the table to `tests/golden/real_clips.md`.
"""

import json
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from manifests.codec import from_plain
from manifests.records import Clips, Seen, Speeches, Syncs, Track, Video
from manifests.store import Store
from pipeline.here import run_here
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import TalkingFaces, own
from pipeline.stage import Stage, keys
from stages.politeness import Manners
from tests.benchmarks.material import SHARED, random_syncnet
from tests.server import Web
from tests.stages import tiny_whisper

CLIPS = SHARED / "clips"
PACK = SHARED / "models" / "insightface_root" / "models" / "mini_pack"
GOLDEN = Path(__file__).parents[1] / "golden" / "real_clips.md"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CLIPS.is_dir() or not PACK.is_dir(), reason="real footage and weights are not here"),
]

FACELESS = {"neg_voiceover_no_face", "neg_music_no_face", "voice_only"}
SCORED = 4
"""Videos that go through SyncNet of the published size as well: it is slow on a CPU, and has no say here."""

HEAD = """# Real footage through the pipeline

103 files served over HTTP on the loopback, through fetch, watch, clip, speech and identity; four of them through sync.
Faces: SCRFD-500M and MobileFaceNet of insightface. Voice activity: Silero. SyncNet and Whisper have random weights of
the right layout, since trained ones cannot be had here: **their readings mean nothing** and are not in the table.
"Motion" is the median frame-to-frame change of the longest track (0 to 255), "voice" the share of clip seconds with
speech: both from the least to the most of the label.

"""


@dataclass(frozen=True)
class Passed:
    """One file: its name and label, and the outcome of every stage that was reached."""

    file: str
    label: str
    outcomes: dict[str, Outcome]

    def fact(self, stage: str, kind: type) -> Any:
        """What a stage found, or None."""
        outcome = self.outcomes.get(stage)
        return from_plain(outcome.body, kind) if outcome is not None and outcome.status == "ok" else None

    @property
    def tracks(self) -> tuple[Track, ...]:
        seen: Seen | None = self.fact("watch", Seen)
        return () if seen is None else seen.tracks

    @property
    def longest(self) -> Track:
        return max(self.tracks, key=lambda t: t.end_frame - t.start_frame)

    @property
    def voice(self) -> float | None:
        """Share of the clips' seconds with speech."""
        said: Speeches | None = self.fact("speech", Speeches)
        return None if said is None else statistics.fmean(one.speech_share for one in said.items)

    @property
    def rejection(self) -> str:
        """Why it went no further, with the stage; "" if it passed."""
        found = (f"{name}: {o.body.get('reason', o.status)}" for name, o in self.outcomes.items() if o.status != "ok")
        return next(found, "")


def labelled() -> list[tuple[str, str]]:
    """(file, label) of everything in the folder, as the index has it; voices alone have no picture."""
    known = {one["file"]: one["label"] for one in json.loads((CLIPS / "INDEX.json").read_text(encoding="utf-8"))}
    files = (path.relative_to(CLIPS).as_posix() for path in CLIPS.rglob("*") if len(path.relative_to(CLIPS).parts) > 1)
    return [(file, known.get(file) or "voice_only") for file in sorted(files)]


def recipe(folder: Path) -> TalkingFaces:
    full = own()
    return replace(
        full,
        fetch=replace(full.fetch, manners=Manners(interval_s=0.0), deadline_s=120.0),
        watch=replace(full.watch, faces=replace(full.watch.faces, pack=str(PACK)), deadline_s=600.0),
        clip=replace(full.clip, deadline_s=600.0),
        sync=replace(full.sync, model=str(random_syncnet(folder)), deadline_s=600.0),
        speech=replace(full.speech, model=str(tiny_whisper.make(folder / "whisper")), align=False, deadline_s=600.0),
        identity=replace(full.identity, pack=str(PACK), deadline_s=600.0),
    )


def pass_through(folder: Path) -> list[Passed]:
    """Serve every file, carry all of them through the stages in two processes, and read the ledger."""
    chosen = recipe(folder)
    every = [stage for stage in chosen.stages() if stage.name != "sync"]
    store = str(folder / "store")
    with Web() as web:
        web.folder(CLIPS)
        videos = {file: Video.of(f"{web.url}/{file}", language="und") for file, _ in labelled()}
        scored = [video for file, video in videos.items() if file.startswith("talk/")][:SCORED]
        heavy_first = sorted(videos, key=lambda file: -(CLIPS / file).stat().st_size)
        parts = [[videos[file] for file in heavy_first[i::2]] for i in range(2)]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(_carry, [store] * 2, [every] * 2, parts))
        run_here(chosen.stages()[:4], scored, Store(store), "real")
    names, ledger = keys(chosen.stages(), Video), Ledger(Store(store))
    passed = []
    for file, label in labelled():
        read = {name: ledger.read(key, videos[file].id) for name, key in names.items()}
        passed.append(Passed(file, label, {name: found for name, found in read.items() if found is not None}))
    return passed


def _carry(store: str, stages: Sequence[Stage[Any]], videos: Sequence[Video]) -> int:
    return run_here(stages, videos, Store(store), "real")


def table(passed: Sequence[Passed]) -> str:
    """Markdown, one row per label."""
    rows = [
        "| label | files | tracked | tracks | clips | motion | voice | rejected |",
        "|---|--:|--:|--:|--:|---|---|---|",
    ]
    by_label = defaultdict(list)
    for one in passed:
        by_label[one.label].append(one)
    for label, group in sorted(by_label.items()):
        clips = sum(len(found.items) for found in (one.fact("clip", Clips) for one in group) if found is not None)
        why = Counter(one.rejection for one in group if one.rejection)
        cells = [
            label,
            len(group),
            sum(bool(one.tracks) for one in group),
            sum(len(one.tracks) for one in group),
            clips,
            _span([one.longest.motion for one in group if one.tracks], 1),
            _span([one.voice for one in group if one.voice is not None], 2),
            ", ".join(f"{reason} ({count})" for reason, count in sorted(why.items())),
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows) + "\n"


def _span(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}" if values else ""


@pytest.fixture(scope="module")
def passed(tmp_path_factory) -> list[Passed]:
    return pass_through(tmp_path_factory.mktemp("real"))


def of(passed: Sequence[Passed], *labels: str) -> list[Passed]:
    return [one for one in passed if one.label in labels]


def test_every_file_ends_in_a_typed_outcome(passed):
    assert len(passed) > 90
    ends = {one.file: {o.status for o in one.outcomes.values()} for one in passed}
    assert {file: statuses for file, statuses in ends.items() if not statuses or statuses - {"ok", "rejected"}} == {}
    for one in passed:
        last = list(one.outcomes.values())[-1]
        assert last.status == "rejected" or "identity" in one.outcomes, one


def test_talking_people_get_a_track_and_a_clip(passed):
    watched = [one for one in of(passed, "talking", "talking?") if "watch" in one.outcomes]
    assert len(watched) >= 25
    assert sum(bool(one.tracks) for one in watched) >= 0.95 * len(watched)
    assert sum(one.fact("clip", Clips) is not None for one in of(passed, "talking")) >= 20


def test_faceless_files_get_none(passed):
    assert {one.rejection for one in of(passed, *FACELESS)} <= {"watch: no_face", "fetch: no_video_stream"}


def test_two_faces_give_two_tracks(passed):
    assert [one.file for one in of(passed, "multi_face") if len(one.tracks) < 2] == []


def test_stills_are_measured_as_still(passed):
    stills = [one.longest.motion for one in passed if one.label.startswith("derived_still_photo")]
    live = [one.longest.motion for one in of(passed, "talking") if one.tracks]
    assert len(stills) == 4 and max(stills) < 0.6 * min(live)


def test_silence_is_measured_as_silence(passed):
    assert [one.voice for one in of(passed, "neg_silent_audio")] == [0.0, 0.0]
    no_sound = of(passed, "neg_no_audio_stream", "derived_no_audio")
    assert {one.rejection for one in no_sound} == {"fetch: no_audio"} and len(no_sound) == 2
    spoken = [one.voice for one in of(passed, "talking") if one.voice is not None]
    assert statistics.median(spoken) > 0.7


def test_the_published_layout_scores_what_is_sent_to_it(passed):
    scored: list[Syncs] = [found for one in passed if (found := one.fact("sync", Syncs)) is not None]
    assert len(scored) == SCORED
    assert all(len(item.distances) == 31 for found in scored for item in found.items)


def test_the_committed_table_is_that_of_this_footage(passed, capsys):
    with capsys.disabled():
        sys.stdout.write("\n" + table(passed))
    if not GOLDEN.exists():
        pytest.skip("no table is committed yet: python -m tests.stages.test_real_clips writes it")
    counts = [row.split(" | ")[:3] for row in table(passed).splitlines()]
    committed = GOLDEN.read_text(encoding="utf-8").removeprefix(HEAD).splitlines()
    assert counts == [row.split(" | ")[:3] for row in committed]


def _write_golden() -> None:
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(HEAD + table(pass_through(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    _write_golden()
