"""The cheap looks before the one look, on real footage: who talks is never sent away, silence and scenery are."""

import json
from pathlib import Path

import pytest

from manifests.records import AudioStream, Ref, Source
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection
from stages.faces import Detector, Faces
from stages.glance import Glance
from stages.media import probe
from stages.voice import Voice
from stages.watch import Watch
from tests.benchmarks.counts import counted

SHARED = Path(__file__).parents[3] / "shared"
CLIPS = SHARED / "clips"
PACK = SHARED / "models/insightface_root/models/mini_pack"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CLIPS.is_dir() or not PACK.is_dir(), reason="real footage and weights are not here"),
]

VOICELESS = {"neg_silent_audio": "silent", "neg_music_no_face": "no_speech", "derived_music_only": "no_speech"}


def labelled(*labels: str) -> list[Path]:
    known = json.loads((CLIPS / "INDEX.json").read_text(encoding="utf-8"))
    return [CLIPS / one["file"] for one in known if one["label"] in labels]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Faces(pack=str(PACK)).open()


def test_everybody_who_talks_is_heard():
    listener, clips = Voice().open(), labelled("talking", "talking?", "multi_face", "derived_music_bed")
    assert len(clips) > 30
    assert {path.name: said for path in clips if (said := listener.missing(path, probe(path).duration_s))} == {}


def test_nobody_who_talks_is_overlooked_however_short_the_clip(detector):
    glance = Glance(min_s=0.0, max_gap_s=60.0)  # every clip is judged by its key frames, be it the first alone
    missed = {
        path.name
        for path in labelled("talking", "talking?", "multi_face")
        if glance.faceless(path, probe(path).duration_s, detector, short_side_px=320, sure=0.5)
    }
    assert missed == set()


def watched(folder: Path, path: Path) -> tuple[Rejection, int]:
    """What the stage says of a clip, and how many pictures it decoded."""
    (folder / path.name).symlink_to(path)
    about, store = probe(path), Store(str(folder))
    source = Source(
        file=Ref(path.name, path.stat().st_size, ""),
        duration_s=about.duration_s,
        video=about.video,
        audio=about.audio or AudioStream(rate_hz=0, channels=0, codec=""),
    )
    with counted() as counts, Bench(store, "watch", "aa") as bench:
        outcome = Watch(faces=Faces(pack=str(PACK))).open()(Facts([source]), bench)
    assert isinstance(outcome, Rejection)
    return outcome, sum(counts.decoded.values())


@pytest.mark.parametrize("label", sorted(VOICELESS))
def test_sound_without_a_voice_is_rejected_before_a_picture_is_decoded(tmp_path, label):
    for path in labelled(label):
        outcome, n_decoded = watched(tmp_path, path)
        assert (outcome.reason, n_decoded) == (VOICELESS[label], 0)


def test_two_minutes_of_a_screen_under_a_voice_are_rejected_by_a_fifth_of_the_pictures(tmp_path):
    (path,) = labelled("neg_voiceover_no_face")
    outcome, n_decoded = watched(tmp_path, path)
    assert outcome.reason == "no_face"
    assert "largest_gap_s" in outcome.measured
    assert n_decoded < 0.2 * probe(path).n_packets
