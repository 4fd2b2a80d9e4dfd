"""The whole pipeline over real footage: served over HTTP, taken by the command through every stage on Ray; a table.

SyncNet and Whisper have random weights here, so their numbers are not looked at; voice activity is a trained one.
`python -m tests.stages.test_real_clips` writes the table to `tests/golden/real_clips.md`.
"""

import csv
import json
import re
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from manifests.codec import from_plain
from manifests.records import Clips, Seen, Speeches, Syncs, Track, Video
from manifests.store import Store
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import build
from pipeline.stage import keys
from tests.benchmarks.material import SHARED, random_syncnet
from tests.command import pipeline
from tests.server import Web
from tests.stages import tiny_whisper

CLIPS = SHARED / "clips"
PACK = SHARED / "models" / "insightface_root" / "models" / "mini_pack"
GOLDEN = Path(__file__).parents[1] / "golden" / "real_clips.md"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not CLIPS.is_dir() or not PACK.is_dir(), reason="real footage and weights are not here"),
]

FACELESS = {"neg_voiceover_no_face", "neg_music_no_face", "voice_only"}

HEAD = """# Real footage through the pipeline

{n} files served over HTTP on the loopback, taken through every stage by `python -m pipeline run --manifest`, on Ray.
Faces: SCRFD-500M and MobileFaceNet of insightface. Voice activity: Silero. SyncNet and Whisper have random weights of
the right layout, since trained ones cannot be had here: **their readings mean nothing** and are not in the table.
"Motion" is the median change of the lower face over four frames, of the longest track, "voice" the share of clip
seconds with speech: both from the least to the most of the label.

"""
_NUMBER, _MOTION, _VOICE = (re.compile(rf"\b\d+\.\d{digits}\b") for digits in ("+", "", "\\d"))


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


def settings(folder: Path) -> list[str]:
    """What differs from the recipe for one's own material: weights that are at hand, and no pause between requests."""
    sets = {
        "fetch.manners.interval_s": 0,
        "watch.faces.pack": PACK,
        "identity.pack": PACK,
        "sync.model": random_syncnet(folder),
        "speech.model": tiny_whisper.make(folder / "whisper"),
        "speech.align": "false",
    }
    return [f"{name}={value}" for name, value in sets.items()]


def pass_through(folder: Path) -> list[Passed]:
    """Serve every file, give the list of them to the command as a person would, and read the ledger."""
    chosen, manifest, store = settings(folder), folder / "real.csv", folder / "store"
    with Web() as web:
        web.folder(CLIPS)
        videos = {file: Video.of(f"{web.url}/{file}") for file, _ in labelled()}
        with manifest.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([("url",), *((one.url,) for one in videos.values())])
        sets = [word for assignment in chosen for word in ("--set", assignment)]
        said = pipeline("run", "--manifest", manifest, "--store", store, *sets, timeout_s=3000)
    assert said.code == 0, said.out + said.err
    names, ledger = keys(build("own", overrides=chosen).stages(), Video), Ledger(Store(str(store)))
    passed = []
    for file, label in labelled():
        read = {name: ledger.read(key, videos[file].id) for name, key in names.items()}
        passed.append(Passed(file, label, {name: found for name, found in read.items() if found is not None}))
    return passed


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


def golden(passed: Sequence[Passed]) -> str:
    """The whole of the committed file."""
    return HEAD.format(n=len(passed)) + table(passed)


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
    reasons = {"watch: no_face", "watch: no_speech", "fetch: no_video_stream"}
    assert {one.rejection for one in of(passed, *FACELESS)} <= reasons


def test_two_faces_give_two_tracks(passed):
    assert [one.file for one in of(passed, "multi_face") if len(one.tracks) < 2] == []
    (steady,) = [one for one in passed if "_2faces" in one.file]  # two people side by side for 302 frames
    assert [t.end_frame - t.start_frame > 0.95 * 302 for t in steady.tracks] == [True, True]
    assert len(steady.fact("clip", Clips).items) == 2


def test_stills_are_measured_as_still(passed):
    stills = [one.longest.motion for one in passed if one.label.startswith("derived_still_photo")]
    live = [one.longest.motion for one in of(passed, "talking") if one.tracks]
    assert len(stills) == 4 and max(stills) < 0.6 * min(live)


def test_silence_and_music_are_rejected_before_they_are_watched(passed):
    assert [one.rejection for one in of(passed, "neg_silent_audio")] == ["watch: silent"] * 2
    assert [one.rejection for one in of(passed, "derived_music_only")] == ["watch: no_speech"]
    no_sound = of(passed, "neg_no_audio_stream", "derived_no_audio")
    assert {one.rejection for one in no_sound} == {"fetch: no_audio"} and len(no_sound) == 2
    spoken = [one.voice for one in of(passed, "talking") if one.voice is not None]
    assert statistics.median(spoken) > 0.7


def test_the_published_layout_scores_what_is_sent_to_it(passed):
    scored: list[Syncs] = [found for one in passed if (found := one.fact("sync", Syncs)) is not None]
    assert len(scored) == sum(one.fact("clip", Clips) is not None for one in passed) > 60
    assert all(len(item.distances) == 31 for found in scored for item in found.items)


def test_the_committed_table_is_that_of_this_footage(passed, capsys):
    with capsys.disabled():
        sys.stdout.write("\n" + table(passed))
    if not GOLDEN.exists():
        pytest.skip("no table is committed yet: python -m tests.stages.test_real_clips writes it")
    made, committed = golden(passed), GOLDEN.read_text(encoding="utf-8")
    assert _NUMBER.sub("x.x", made) == _NUMBER.sub("x.x", committed)
    for number, tolerance in ((_MOTION, 0.2), (_VOICE, 0.02)):  # processors differ in the last digit
        here, there = ([float(one) for one in number.findall(text)] for text in (made, committed))
        assert here == pytest.approx(there, abs=tolerance)


def _write_golden() -> None:
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(golden(pass_through(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    _write_golden()
