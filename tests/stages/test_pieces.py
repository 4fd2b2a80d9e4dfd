"""A long take is judged piece by piece: what is wrong with one of them costs that one alone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from manifests.records import Clip, FaceMeasures, Piece
from manifests.store import Store
from stages.catalogue import CLIPS, write_catalogue
from stages.crop import filled_share
from stages.judge import candidates, judge
from stages.policies import PAPER, STRICT
from stages.quality import measures
from stages.shard_json import describe
from stages.spare import BY_TRACK, loosest
from tests import media
from tests.stages.measured import NO_FILE, clip, measured, track
from tests.stages.scenes import HEIGHT, WIDTH, Scene, still_box

NAMES = tuple(FaceMeasures.__annotations__)
BEFORE = {
    "detected_share": 0.9, "face_px": 164.7216968854383, "face_share": 0.2512729326883952, "score": 0.6841317713260651,
    "yaw_deg": 15.152158737182617, "pitch_deg": 14.934982299804688, "roll_deg": 10.776504516601562,
    "yaw_p95_deg": 40.398502349853516, "inside_share": 0.975, "sharpness": 131.02276611328125,
    "exposure": 109.82017517089844, "motion": 2.478020429611206,
}  # fmt: skip
"""What the track below read when there were measures of tracks alone."""

NEVER_LONG_ENOUGH = (("min_duration_s", 1e6),)
"""Pieces are named and measured, and none is cut: no video is needed."""


def take(folder, box, source=None) -> Scene:
    """One good face from frame 0 on, looked at in every eighth frame."""
    if source is None:
        source = folder / "none.mp4"
        source.write_bytes(b"no video")
    looked = np.arange(len(box)) % 8 == 0
    motion, sharpness, exposure = (np.where(looked, value, np.nan).astype(np.float32) for value in (3, 150, 120))
    scene = Scene(folder, source).add(box, 0, motion, sharpness)
    scene.arrays["0/exposure"] = exposure
    return scene


def pieces_of(scene: Scene, **options) -> tuple[Piece, ...]:
    return scene.cut(spare=NEVER_LONG_ENOUGH, **options).spared


def broken(pieces, policy=PAPER) -> list[list[str]]:
    """The rules that each piece breaks once it is cut."""
    cut = [
        Clip(
            **{f.name: getattr(piece, f.name) for f in dataclasses.fields(piece)},
            size_px=128, effective_face_px=piece.face_px, video=NO_FILE, audio=NO_FILE, arrays=NO_FILE,
        )
        for piece in pieces
    ]  # fmt: skip
    verdicts = judge([measured("0123456789abcdef", clips=tuple(cut))], policy)
    return [[receipt.rule for receipt in verdict.receipts] for verdict in verdicts]


def test_a_take_whose_last_third_lies_outside_loses_that_third(tmp_path):
    box = still_box(70, 180, 120, 2000)
    box[1334:, [0, 2]] -= 40
    pieces = pieces_of(take(tmp_path, box))
    assert [piece.n_frames for piece in pieces] == [666, 667, 667]
    assert [piece.inside_share for piece in pieces] == pytest.approx([1, 1, 1 / 667], abs=1e-9)
    assert broken(pieces) == [[], [], ["off_frame"]]


@pytest.mark.parametrize(
    ("name", "column", "value", "rules"),
    [
        ("box", 0, -1.0, ["off_frame"]),
        ("box", [2, 3], [70.0, 180.0], ["face_too_small"]),
        ("box", 4, 0.0, ["face_lost", "face_doubtful"]),
        ("box", 4, 0.5, ["face_doubtful"]),
        ("pose", 0, -70.0, ["yaw"]),
        ("pose", 1, 50.0, ["pitch"]),
        ("pose", 2, 50.0, ["roll"]),
        ("sharpness", None, 1.0, ["blurred"]),
        ("exposure", None, 5.0, ["dark"]),
        ("exposure", None, 250.0, ["bright"]),
        ("motion", None, 0.0, ["still_face", "frozen"]),
    ],
)
def test_what_is_wrong_in_one_piece_of_a_take_drops_that_one_alone(tmp_path, name, column, value, rules):
    scene = take(tmp_path, still_box(70, 180, 120, 2000))
    middle = scene.arrays[f"0/{name}"][666:1333]
    middle[(slice(None),) if column is None else (slice(None), column)] = value
    assert broken(pieces_of(scene)) == [[], rules, []]


def test_a_track_that_is_one_piece_reads_as_it_does_as_a_whole_and_as_it_always_did(tmp_path):
    n = 200
    rng = np.random.default_rng(5)
    corner = rng.normal((500, 200), 30, (n, 2))
    corner[::40] -= 480
    score = np.where(np.arange(n) < 180, rng.uniform(0.5, 0.9, n), 0)
    box = np.column_stack([corner, corner + rng.normal((150, 180), 10, (n, 2)), score]).astype(np.float32)
    scene = take(tmp_path, box)
    for name, high in (("sharpness", 200), ("exposure", 255), ("motion", 4)):
        looked = np.where(np.arange(n) % 8 == 0, rng.uniform(0, high, n), np.nan)
        scene.arrays[f"0/{name}"] = looked.astype(np.float32)
    scene.arrays["0/pose"] = rng.normal(0, 20, (n, 3)).astype(np.float32)
    (piece,) = pieces_of(scene, width=1280, height=720)
    whole = measures({name[2:]: values for name, values in scene.arrays.items()}, width_px=1280, height_px=720)
    assert {name: getattr(piece, name) for name in NAMES} == whole
    assert whole == pytest.approx(BEFORE, rel=1e-12)


def test_a_piece_with_too_small_a_face_gives_no_clip_and_the_next_one_follows_no_other(tmp_path):
    scene = take(tmp_path, still_box(70, 180, 120, 2000))
    scene.arrays["0/box"][666:1333, 2:4] = (40, 150)  # 30 px
    pieces = pieces_of(scene)
    assert [(piece.number, piece.start_s, piece.contiguous_with_prev) for piece in pieces] == [
        (0, 0.0, False),
        (1, 1333 / 25, False),
    ]


def test_a_cascade_cuts_the_good_pieces_of_a_take_and_names_the_bad_one(tmp_path):
    times, sound = media.times_at(media.RATES["25"], 10), media.Sound(samples=media.hum(10))
    source = media.numbered_video(tmp_path / "s.mp4", times, width_px=WIDTH, height_px=HEIGHT, sound=sound)
    scene = take(tmp_path, still_box(70, 180, 120, 240), source)
    scene.arrays["0/pose"][80:160, 0] = 70.0
    clips = scene.cut(max_s=3.2, spare=loosest(PAPER, BY_TRACK))
    assert [(one.number, one.yaw_p95_deg, len(scene.pictures(one))) for one in clips.items] == [(0, 0, 80), (2, 0, 80)]
    assert [(one.number, one.yaw_p95_deg) for one in clips.spared] == [(1, 70.0)]


def test_json_and_table_tell_what_the_clip_reads_and_not_its_track(tmp_path):
    read = {name: 0.5 + at for at, name in enumerate((*NAMES, "filled_share"))}
    one = dataclasses.replace(
        measured(clips=(clip("v0", **read),)), seen=measured(tracks=(track(face_px=1.0, yaw_p95_deg=89.0),)).seen
    )
    verdicts, (candidate,) = judge([one], PAPER), candidates([one])
    told = describe(candidate, verdicts[0], n_clips=1, follows=False)["quality"]
    store = Store(str(tmp_path))
    write_catalogue(store, [one], verdicts, PAPER)
    (row,) = pd.read_parquet(store.at(CLIPS)).to_dict("records")
    assert {name: told[name] for name in read} == {name: row[name] for name in read} == read


@pytest.mark.parametrize(("width", "filled", "rules"), [(300, 0.25, ["filled"]), (232, 12 / 372, [])])
def test_strict_drops_a_crop_of_which_much_lies_over_the_picture_s_edge(tmp_path, width, filled, rules):
    box = still_box(320, 180, width, 250)
    box[:, [1, 3]] = (80, 280)  # the window is 1.6 times as wide as the face, and the picture 360 px high
    pieces = pieces_of(take(tmp_path, box))
    assert [piece.filled_share for piece in pieces] == pytest.approx([filled])
    assert broken(pieces, STRICT) == [rules] and broken(pieces) == [[]]


def test_the_share_over_the_edge_is_the_mean_over_frames_of_the_area_outside():
    windows = np.array([[10, 10, 30, 30], [-10, 10, 10, 30], [-10, 40, 10, 60], [-40, 0, -20, 20]], float)
    shares = [filled_share(window[None], width_px=50, height_px=50) for window in windows]
    assert shares == pytest.approx([0, 0.5, 0.75, 1])
    assert filled_share(windows, width_px=50, height_px=50) == pytest.approx(np.mean(shares))
