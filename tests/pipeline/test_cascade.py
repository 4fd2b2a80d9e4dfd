"""A cascade spends nothing on clips that the policy drops anyway, and keeps the same ones."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from manifests.records import Video
from manifests.store import Store
from pipeline.facts import measured
from pipeline.finish import finish, judged, snapshot
from pipeline.here import run_here
from pipeline.job import Job, add_videos, write_job
from pipeline.recipes import build
from stages.score_table import crop_windows
from stages.shard_index import read_index
from tests.benchmarks.counts import counted
from tests.benchmarks.material import CORPUS
from tests.command import pipeline

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CORPUS.is_dir(), reason="the sample corpus is not here"),
]

# in each the policy drops one clip: seen blurred; a still picture; out of sync
VIDEOS = tuple(Video.of(str(CORPUS / f"{name}.mp4"), language=name[:2]) for name in ("th-2", "fr-2", "es-3"))


def taken(folder: Path, *overrides: str):
    """The job, its store with all results, how many pictures were encoded, and the verdicts by key."""
    job, store = Job(recipe="sample", overrides=overrides), Store(str(folder))
    recipe, videos = job.build(), add_videos(store, VIDEOS)
    with counted() as counts:
        assert run_here(recipe.stages(), videos, store, "a") == len(VIDEOS)
    write_job(store, job)
    finish(recipe, job, snapshot(recipe, videos, store), store)
    return store, counts.encoded.total(), {verdict.key: verdict for verdict in judged(recipe, videos, store)[1]}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return taken(tmp_path_factory.mktemp("all")), taken(tmp_path_factory.mktemp("cascade"), "cascade=true")


def test_the_same_clips_are_kept_and_the_others_dropped_for_the_same_first_rule(both):
    (_, _, plain), (_, _, cascade) = both
    assert plain.keys() == cascade.keys()
    for key, verdict in plain.items():
        assert (cascade[key].kept, cascade[key].split) == (verdict.kept, verdict.split)
        assert [one.rule for one in cascade[key].receipts[:1]] == [one.rule for one in verdict.receipts[:1]]
    assert sum(not verdict.kept for verdict in plain.values()) == 3


def test_nothing_is_encoded_for_what_its_track_rules_out_and_nothing_heard_where_sync_does(both):
    (_, encoded, _), (store, fewer, verdicts) = both
    clips = pd.read_parquet(f"{store.url}/clips.parquet").set_index("key")
    uncut, unheard = clips[clips.mp4.isna()], clips[clips.speech_share.isna() & clips.mp4.notna()]
    assert sorted(uncut.first_broken_rule) == ["blurred", "still_face"]
    assert list(unheard.first_broken_rule) == ["low_sync"] and unheard.sync_confidence.notna().all()
    assert encoded - fewer == uncut.n_frames.sum() > 400
    assert set(clips.index) == set(verdicts) and clips[clips.kept].mp4.notna().all()


def test_what_was_not_cut_is_compared_with_the_truth_by_where_its_face_is(both):
    (plain, *_), (store, *_) = both
    windows = [crop_windows(one, measured(build("sample", overrides=sets).stages(), VIDEOS, one))
               for one, sets in ((plain, ()), (store, ("cascade=true",)))]  # fmt: skip
    assert windows[0].keys() == windows[1].keys()
    for key, window in windows[0].items():
        middle, other = (np.add(box[:2], box[2:]) / 2 for box in (window, windows[1][key]))
        assert np.abs(middle - other).max() < 25


def test_a_policy_that_would_have_more_is_told_what_is_missing_and_loses_nothing(both, tmp_path):
    store = tmp_path / "out"
    shutil.copytree(both[1][0].url, store)
    before = [row.key for row in read_index(Store(str(store))).rows]
    said = pipeline("judge", "--store", store, "--set", "policy.min_sharpness=1")
    assert said.code == 0 and "+0 -0" in said.out
    assert "1 more were spared by the run's policy: a run with this one measures all clips anew" in said.out
    clips = pd.read_parquet(store / "clips.parquet")
    assert sorted(clips.first_broken_rule.dropna()) == ["low_sync", "not_cut", "still_face"]
    assert pipeline("report", "--store", store).code == 0
    assert [row.key for row in read_index(Store(str(store))).rows] == before


def test_the_report_says_that_it_is_of_a_cascade(both):
    plain, cascade = (Path(store.url, "report.html").read_text(encoding="utf-8") for store, *_ in both)
    assert "A cascade by the policy sample: what its track rules out was not cut" in cascade
    assert "A cascade" not in plain
