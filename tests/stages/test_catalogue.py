"""The catalogue holds every clip and every video, and pandas reads it."""

import dataclasses

import pandas as pd
import pyarrow.compute as pc
import pytest

from manifests.records import Ref
from manifests.store import Store
from stages.catalogue import CLIPS, VIDEOS, keep_rows, read_catalogue, write_catalogue
from stages.judge import judge
from stages.policies import PAPER
from tests.stages.measured import clip, measured, source, sync, track


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path))
    two = (clip("v1", 0), clip("v1", 1, start_s=4.0))
    videos = [
        dataclasses.replace(
            measured("v1", clips=two, syncs=(sync("v1-0000", 7.5), sync("v1-0001", 2.0)), language="pl"),
            source=source(
                file=Ref("in/v1.mp4", 1, "5ab" * 21 + "c"),
                uploader="Anna",
                uploader_url="https://example.org/anna",
                licence="CC BY",
                title="Rozmowa",
                upload_date="20260131",
            ),
        ),
        dataclasses.replace(measured("v2"), clips=None, rejected=("watch", "no_face", {"faces_share": 0.0})),
        dataclasses.replace(measured("v3"), seen=None, clips=None, failed=("watch", "quarantined", "Killed")),
    ]
    write_catalogue(store, videos[::-1], judge(videos, PAPER), PAPER)
    return store


def test_pandas_reads_one_row_per_clip_kept_and_dropped(store):
    clips = pd.read_parquet(store.at(CLIPS)).set_index("key")
    assert list(clips.index) == ["v1-0000", "v1-0001"] and list(clips.kept) == [True, False]
    kept, dropped = clips.loc["v1-0000"], clips.loc["v1-0001"]
    assert (kept.sync_confidence, kept.split, kept.face_px, kept.duration_s) == (7.5, "train", 220.0, 4.0)
    assert (kept.uploader, kept.licence, kept.title, kept.language_expected) == ("Anna", "CC BY", "Rozmowa", "pl")
    assert kept.aligned and kept.transcript == "Guten Tag" and kept.identity_model == "made up"
    assert dropped.first_broken_rule == "low_sync" and pd.isna(dropped.split)
    assert dict(dropped.receipts[0]) == {"rule": "low_sync", "value": "2", "limit": "3", "margin": -1.0}
    assert (dropped.tightest_rule, round(dropped.tightest_margin, 3)) == ("low_sync", -0.333)


def test_every_video_has_a_row_that_says_how_far_it_came(store):
    videos = pd.read_parquet(store.at(VIDEOS)).set_index("video")
    assert list(videos.status) == ["measured", "rejected", "quarantined"]
    assert (videos.loc["v2"].stage, videos.loc["v2"].reason) == ("watch", "no_face")
    assert dict(videos.loc["v2"].measured[0]) == {"name": "faces_share", "value": "0"}
    assert (videos.loc["v1"].source_sha256, videos.loc["v1"].upload_date) == ("5ab" * 21 + "c", "20260131")
    assert (videos.loc["v1"].n_clips, videos.loc["v1"].n_kept, videos.loc["v1"].kept_s) == (2, 1, 4.0)


def test_a_video_that_waits_for_a_later_stage_is_not_called_measured(store):
    write_catalogue(store, half := [dataclasses.replace(measured("v4"), identities=None)], judge(half, PAPER), PAPER)
    assert list(pd.read_parquet(store.at(VIDEOS)).status) == ["waiting"]


def test_equal_inputs_give_equal_bytes(store, tmp_path):
    videos = [measured("v1"), measured("v2")]
    for number, order in enumerate((videos, videos[::-1])):
        write_catalogue(Store(str(tmp_path / str(number))), order, judge(order, PAPER), PAPER)
    for name in (CLIPS, VIDEOS):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_no_videos_give_tables_with_the_same_columns(store, tmp_path):
    empty = Store(str(tmp_path / "empty"))
    write_catalogue(empty, [], (), PAPER)
    for name in (CLIPS, VIDEOS):
        assert read_catalogue(empty, name).schema == read_catalogue(store, name).schema


def test_by_how_much_the_shipped_sound_was_moved_stands_beside_the_offset_that_was_measured(tmp_path):
    store, two = Store(str(tmp_path)), (clip("v1", 0), clip("v1", 1, start_s=4.0))
    found = [measured("v1", clips=two, syncs=(sync("v1-0000", 9.0, offset_frames=3), sync("v1-0001", 0.5)))]
    policy = dataclasses.replace(PAPER, max_offset_frames=6, shift_audio=True)
    for one, moved in ((policy, [-3, None]), (PAPER, [None, None])):
        write_catalogue(store, found, judge(found, one), one)
        table = read_catalogue(store)
        assert table["audio_shift_frames"].to_pylist() == moved and table["sync_offset_frames"].to_pylist()[0] == 3


def test_the_expected_language_is_told_in_today_s_code(tmp_path):
    store, found = Store(str(tmp_path)), [measured("v1", language="iw"), measured("v2", language="deu-AT")]
    write_catalogue(store, found, judge(found, PAPER), PAPER)
    for name in (CLIPS, VIDEOS):
        assert set(read_catalogue(store, name)["language_expected"].to_pylist()) <= {"he", "de-AT"}


def test_rows_can_be_taken_out(store):
    keep_rows(store, CLIPS, pc.field("key") != "v1-0000")
    assert read_catalogue(store)["key"].to_pylist() == ["v1-0001"]


def test_the_tightest_rule_does_not_count_what_cannot_be_better(tmp_path):
    store = Store(str(tmp_path))
    video = measured(tracks=(track(yaw_p95_deg=44.0),))
    write_catalogue(store, [video], judge([video], PAPER), PAPER)
    (row,) = read_catalogue(store).to_pylist()
    assert row["tightest_rule"] == "yaw" and row["tightest_margin"] == pytest.approx(1 / 45)
