"""What `Watch` sees in real footage, by label."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from manifests.records import AudioStream, Ref, Seen, Source
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection
from stages.faces import Faces
from stages.media import probe
from stages.policies import POLICIES
from stages.voice import Voice
from stages.watch import Watch
from tests.tracks import tracks_of

SHARED = Path(__file__).parents[3] / "shared"
CLIPS = SHARED / "clips"
PACK = SHARED / "models/insightface_root/models/mini_pack"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CLIPS.is_dir() or not PACK.is_dir(), reason="real footage and weights are not here"),
]

FACELESS = {"neg_voiceover_no_face", "neg_music_no_face"}
SAME_PICTURE = {"derived_desync", "derived_dubbed", "derived_music_bed", "derived_music_only", "derived_clipped_audio"}
"""Made from other clips by changing their sound."""


@dataclass(frozen=True)
class Watched:
    """One clip: its name and label, what came of it, and the arrays' file."""

    file: str
    label: str
    outcome: Seen | Rejection
    arrays: Path | None

    @property
    def tracks(self) -> int:
        return len(self.outcome.tracks) if isinstance(self.outcome, Seen) else 0


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> list[Watched]:
    store = Store(str(tmp_path_factory.mktemp("store")))
    work = Watch(faces=Faces(pack=str(PACK)), voice=Voice(min_s=0.0)).open()  # their pictures count, not their sound
    results = []
    for entry in json.loads((CLIPS / "INDEX.json").read_text()):
        path = CLIPS / entry["file"]
        if path.suffix == ".flac" or entry["label"] in SAME_PICTURE:
            continue
        link = Path(store.url) / "clips" / entry["file"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
        seen = probe(path)
        source = Source(
            file=Ref(f"clips/{entry['file']}", path.stat().st_size, ""),
            duration_s=seen.duration_s,
            video=seen.video,
            audio=seen.audio or AudioStream(rate_hz=0, channels=0, codec=""),
        )
        with Bench(store, "watch", path.stem.replace(".", "_")) as bench:
            outcome = work(Facts([source]), bench)
        arrays = Path(store.at(outcome.arrays.path)) if isinstance(outcome, Seen) else None
        results.append(Watched(entry["file"], entry["label"], outcome, arrays))
    return results


def live_share(watched: list[Watched], labels: set[str]) -> float:
    chosen = [w for w in watched if w.label in labels]
    return sum(w.tracks > 0 for w in chosen) / len(chosen)


def longest(w: Watched):
    assert isinstance(w.outcome, Seen)
    return max(w.outcome.tracks, key=lambda t: t.end_frame - t.start_frame)


def test_table_by_label(watched, capsys):
    rows = defaultdict(list)
    for w in watched:
        rows[w.label].append(w)
    with capsys.disabled():
        print(f"\n{'label':26s}{'clips':>6s}{'tracked':>9s}{'tracks':>8s}{'motion':>14s}  rejected")  # noqa: T201
        for label, group in sorted(rows.items()):
            motions = [longest(w).motion for w in group if w.tracks]
            reasons = sorted({w.outcome.reason for w in group if isinstance(w.outcome, Rejection)})
            span = f"{min(motions):.1f} .. {max(motions):.1f}" if motions else ""
            tracked, tracks = sum(w.tracks > 0 for w in group), sum(w.tracks for w in group)
            line = f"{label:26s}{len(group):6d}{tracked:9d}{tracks:8d}{span:>14s}  {' '.join(reasons)}"
            print(line)  # noqa: T201
    assert len(watched) > 60


def test_talking_people_get_a_track(watched):
    assert live_share(watched, {"talking", "talking?"}) >= 0.95


def test_talking_people_are_doubtful_for_no_policy(watched):
    scores = [longest(w).score for w in watched if w.label in {"talking", "talking?"} and w.tracks]
    assert len(scores) >= 25
    assert min(scores) >= max(policy.min_detector_score or 0.0 for policy in POLICIES.values())


def test_a_single_take_of_a_talking_person_is_one_long_track(watched):
    clips = [w for w in watched if w.label == "talking" and isinstance(w.outcome, Seen) and not w.outcome.cuts]
    whole = [longest(w).end_frame - longest(w).start_frame >= 0.95 * w.outcome.n_frames for w in clips]
    assert np.mean(whole) >= 0.95


def test_pictures_without_faces_give_no_track(watched):
    outcomes = [w.outcome for w in watched if w.label in FACELESS]
    assert [o.reason for o in outcomes if isinstance(o, Rejection)] == ["no_face"] * len(outcomes) != []


def test_several_faces_give_several_tracks(watched):
    assert all(w.tracks >= 2 for w in watched if w.label == "multi_face")


def test_still_photos_move_far_less_than_live_faces(watched):
    stills = [longest(w).motion for w in watched if w.label.startswith("derived_still_photo")]
    live = [longest(w).motion for w in watched if w.label == "talking" and w.tracks]
    assert len(stills) == 4
    assert max(stills) < 0.6 * min(live)


def test_half_a_freeze_shows_in_the_motion_over_time(watched):
    (w,) = [w for w in watched if "freeze_half" in w.file]
    motion = tracks_of(w.arrays, longest(w).number)["motion"]
    early, late = np.array_split(motion, 2)
    assert np.nanmedian(late[10:]) < 0.2 < np.nanmedian(early)


def test_scenes_of_cut_footage_are_found(watched):
    cuts = {Path(w.file).stem: w.outcome.cuts for w in watched if isinstance(w.outcome, Seen)}
    assert cuts["goldeneye_vfr_drop3"] == (94, 219)
    assert set(cuts["en_hamilton_short"]) >= {17, 68, 176}
    assert set(cuts["insightface_810_face_music"]) >= {223, 236, 248, 263, 273}
    assert cuts["und_datajuicer_video4"] == ()


def test_boxes_lie_on_faces_steadily_and_arrays_agree_with_the_record(watched):
    for w in watched:
        if not isinstance(w.outcome, Seen):
            continue
        for track in w.outcome.tracks:
            a = tracks_of(w.arrays, track.number)
            n = track.end_frame - track.start_frame
            assert a["frame"].tolist() == list(range(track.start_frame, track.end_frame))
            shapes = {name: values.shape for name, values in a.items()}
            assert shapes == {
                "frame": (n,), "box": (n, 5), "lmk": (n, 5, 2), "pose": (n, 3),
                "sharpness": (n,), "exposure": (n,), "motion": (n,),
            }  # fmt: skip
            assert not any(track.start_frame < cut < track.end_frame for cut in w.outcome.cuts)
    (calm,) = [w for w in watched if w.file == "talk/de_mimictalk_german20s.mp4"]
    box = tracks_of(calm.arrays, 0)["box"]
    jitter = np.abs(np.diff(box[:, :4], n=2, axis=0)).mean() / longest(calm).face_px
    assert jitter < 0.002
