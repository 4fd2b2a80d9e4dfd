"""A change of the policy costs the index, the card and the tables, and of the tars those alone that must change."""

import dataclasses
import json

import pytest

from manifests import parquet
from manifests.records import Video
from manifests.store import Store
from pipeline.cli import main
from pipeline.finish import finish, snapshot
from pipeline.forget import forget_all
from pipeline.job import Job, add_videos, read_videos, write_job
from pipeline.stage import keys
from stages import shard_json
from stages.catalogue import CLIPS, read_catalogue
from stages.shard_index import CARD, INDEX, read_index
from stages.tars import read_tar
from stages.verify import verify
from tests.stages.measured import measured, put, remember, source, stored_clip, sync

N_VIDEOS, N_CLIPS = 12, 2
JOB = Job(recipe="own", overrides=("policy.min_duration_s=none", "shard_bytes=20000"))


@pytest.fixture
def store(tmp_path):
    """24 clips, as a run would have left them; one of them is in sync with a confidence of 4, the others of 7."""
    store, recipe = Store(str(tmp_path)), JOB.build()
    write_job(store, JOB)
    for n in range(N_VIDEOS):
        video = f"v{n:02d}"
        clips = tuple(stored_clip(store, video, c, seed=N_CLIPS * n + c, start_s=9.0 * c) for c in range(N_CLIPS))
        syncs = tuple(sync(one.key, 4.0 if one.key == "v05-0001" else 7.0) for one in clips)
        known = measured(video, clips=clips, syncs=syncs, person=n)
        known = dataclasses.replace(known, source=source(put(store, f"blobs/x/{video}", b"source")))
        add_videos(store, [known.video])
        remember(store, keys(recipe.stages(), Video), known)
    finish(recipe, JOB, snapshot(recipe, read_videos(store), store), store)
    return store


def tars(store):
    return {path.name: path.stat().st_mtime_ns for path in (store.local / "shards").glob("*.tar")}


def test_a_changed_limit_that_changes_no_clip_reads_and_writes_no_tar(store, monkeypatch, capsys):
    before, touched = tars(store), []
    for name in ("writing", "get_file"):
        call = getattr(Store, name)
        monkeypatch.setattr(
            Store, name, lambda store, path, *given, call=call: touched.append(path) or call(store, path, *given)
        )
    assert main(["judge", "--set", "policy.max_yaw_deg=44", "--store", store.url]) == 0
    assert "kept 24 clips before, 24 now: +0 -0" in capsys.readouterr().out
    assert tars(store) == before and len(before) > 8 and not [path for path in touched if path.endswith(".tar")]


def test_a_changed_limit_that_drops_one_clip_writes_one_tar_anew(store, capsys):
    before = tars(store)
    (home,) = {row.shard for row in read_index(store).rows if row.key == "v05-0001"}
    assert main(["judge", "--set", "policy.min_confidence=5", "--store", store.url]) == 0
    assert "kept 24 clips before, 23 now: +0 -1" in capsys.readouterr().out
    after = tars(store)
    assert set(before) - set(after) == {home} and len(set(after) - set(before)) == 1
    assert {name: after[name] for name in set(after) & set(before)} == {
        name: at for name, at in before.items() if name != home
    }
    assert verify(store).ok


def test_index_card_and_table_say_the_policy_and_no_sample_does(store):
    main(["judge", "--set", "policy.max_yaw_deg=44", "--store", store.url])
    (name,) = set(read_catalogue(store, CLIPS)["policy"].to_pylist())
    assert name.startswith("paper+") and "max_yaw_deg=44" in name
    assert read_index(store).policy == name and f"**{name}**" in store.get(CARD).decode().replace("\\", "")
    for shard in read_index(store).shards:
        for _, members in read_tar(store.local / "shards" / shard):
            said = json.loads(members["json"])
            assert said["schema"] == 5 and "policy" not in said


def test_a_video_that_is_forgotten_leaves_the_policy_in_index_and_card(store):
    policy = read_index(store).policy
    assert policy and main(["forget", "video:v03", "--store", store.url]) == 0
    assert read_index(store).policy == policy and "**paper" in store.get(CARD).decode() and verify(store).ok


def test_clips_of_another_policy_than_the_job_has_get_no_card_of_the_job_s(store):
    """A `judge` that broke off has left its policy in the job, and the shards of the one before."""
    before, job = read_index(store), JOB.changed(None, ["policy.max_yaw_deg=44"])
    forget_all(store, job.build(), read_videos(store), ["video:v03"])  # without the `finish` after it
    assert read_index(store).policy == before.policy and not store.exists(CARD) and verify(store).ok


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_samples_of_before_that_say_the_policy_are_whole_as_they_are(store, monkeypatch, schema):
    describe = shard_json.describe

    def as_it_was(one, verdict, **given):
        return describe(one, verdict, **given) | {"schema": schema, "policy": verdict.policy}

    store.delete("shards")
    monkeypatch.setattr("stages.shard.describe", as_it_was)
    finish(JOB.build(), JOB, snapshot(JOB.build(), read_videos(store), store), store)
    assert verify(store).ok
    old = tars(store)
    monkeypatch.undo()
    finish(JOB.build(), JOB, snapshot(JOB.build(), read_videos(store), store), store)
    assert verify(store).ok and not set(old) & set(tars(store)), "the next writing makes them of this schema"


def test_an_index_of_before_it_said_the_policy_is_read_and_written_anew_without_the_tars(store):
    said, before = store.get(INDEX), tars(store)
    store.put(INDEX, parquet.write(parquet.read(said).replace_schema_metadata(None)))
    assert read_index(store).policy == ""
    finish(JOB.build(), JOB, snapshot(JOB.build(), read_videos(store), store), store)
    assert store.get(INDEX) == said and tars(store) == before and store.exists(CARD)
