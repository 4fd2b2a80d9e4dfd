"""What a store's recipe names no more gives its room back; nothing else is touched, whenever a call is cut short."""

import dataclasses
import json
import re

import pytest

from manifests.codec import to_json
from manifests.records import Video
from manifests.store import Store
from pipeline.cli import main
from pipeline.finish import finish, is_finished, snapshot
from pipeline.job import Job, add_videos, read_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.stage import keys
from stages.sync import ScoreSync
from stages.verify import verify
from tests.stages.measured import clip, identity, measured, mp4_bytes, npz_bytes, put, remember, source, wav_bytes

BEFORE = Job(recipe="own", overrides=("policy.min_duration_s=none", "watch.faces.min_score=0.123"))
NOW = Job(recipe="own", overrides=("policy.min_duration_s=none",))
VIDEOS = ("ab0", "ab1", "cd2")
FILES = {"mp4": mp4_bytes(20), "wav": wav_bytes(20), "npz": npz_bytes(20)}


def put_in(store, job, video, *, n_stages=6):
    """Leave what a run with these settings would have of one video: outcomes, attempts and blobs."""
    names = keys(job.build().stages(), Video)

    def at(stage, name):
        return f"blobs/{names[stage]}/{video[:2]}/{video}/{name}"

    kept = tuple(put(store, at("clip", f"0000.{name}"), data) for name, data in FILES.items())
    one = clip(video, n_frames=20, files=kept)
    known = measured(video, clips=(one,), identities=(identity(one.key, person=VIDEOS.index(video)),))
    known = dataclasses.replace(
        known,
        source=source(put(store, at("fetch", "source.mp4"), b"source")),
        seen=dataclasses.replace(known.seen, arrays=put(store, at("watch", "arrays.npz"), b"arrays" * 100)),
    )
    add_videos(store, [known.video])
    passed = dict(list(names.items())[:n_stages])
    for key in passed.values():
        Ledger(store).begin(key, video, "r")
    remember(store, passed, known)


def made(url):
    """A store that was run with other settings, and then with those of now; another version fetched one of them."""
    store = Store(url)
    for video in VIDEOS:
        put_in(store, BEFORE, video)
        put_in(store, NOW, video)
    store.put("ledger/fetch-0123456789/rejected/ab/ab0.json", to_json(Outcome(status="rejected")))
    store.put("blobs/listen-0123456789/ab/ab0/sound.wav", bytes(1000))
    store.put("tombstones/zz9.json", to_json({"id": "zz9"}))
    write_job(store, NOW)
    finish(NOW.build(), NOW, snapshot(NOW.build(), read_videos(store), store), store)
    return store


@pytest.fixture
def store(tmp_path):
    return made(str(tmp_path / "out"))


def everything(store):
    top = ("blobs", "ledger", "shards", "tombstones", "wanted")
    return {path: store.get(path) for folder in top for path in store.list(folder)}


def superseded(store):
    current = set(keys(NOW.build().stages(), Video).values())
    return {path for kind in ("ledger", "blobs") for path in store.list(kind) if path.split("/")[1] not in current}


def prune(store, *options):
    return main(["prune", "--store", store.url, *options])


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_prune_removes_what_the_recipe_names_no_more_and_nothing_else(kind, tmp_path, request, capsys):
    store = made(str(tmp_path / "out") if kind == "disk" else f"{request.getfixturevalue('bucket')}/pruned")
    before, old = everything(store), superseded(store)
    assert len(old) == 3 * (5 * 2 + 4) + 2, "of all stages but fetch, whose key is the same"
    assert prune(store) == 0
    assert everything(store) == {path: data for path, data in before.items() if path not in old}
    n_bytes = sum(len(before[path]) for path in old if path.startswith("blobs"))
    assert f"removed {len(old)} objects, {n_bytes / 1e6:,.1f} MB, that are not of recipe own" in capsys.readouterr().out
    assert not any(
        name in path for name in ("0123456789",) for kind in ("ledger", "blobs") for path in store.folders(kind)
    )
    assert is_finished(store, NOW.build(), read_videos(store)) and verify(store).ok
    assert prune(store) == 0 and "nothing to remove" in capsys.readouterr().out


def test_prune_dry_says_by_key_how_much_would_go_and_removes_nothing(store, capsys):
    before = everything(store)
    assert prune(store, "--dry") == 0
    said = capsys.readouterr().out
    assert everything(store) == before and f"would remove {len(superseded(store))} objects" in said
    clips = keys(BEFORE.build().stages(), Video)["clip"]
    size = 3 * sum(map(len, FILES.values())) / 1e6
    assert re.search(rf"clip +3 +15 +{size:.1f} +{clips} *\n", said)
    assert re.search(r"fetch +1 +1 +0.0 +fetch-0123", said)
    assert set(re.findall(r"\S+-[0-9a-f]{10}(?= *\n)", said)) == {path.split("/")[1] for path in superseded(store)}


def test_settings_that_were_only_tried_take_nothing_of_what_was_measured_before(store, capsys):
    tried = dataclasses.replace(NOW, overrides=(*NOW.overrides, "clip.margin=1.7"))
    put_in(store, tried, VIDEOS[0], n_stages=3)
    write_job(store, tried)  # as `run --until clip` does, and a run that is at work or was broken off
    before = everything(store)
    assert prune(store) == prune(store, "--dry") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and said.startswith("error: prune: the results in ")
    assert "recipe own --set clip.margin=1.7: " in said
    assert everything(store) == before


def test_of_videos_that_are_due_all_stays(store, capsys):
    """A run with settings of now that left some out, whose disk was away, or that failed, is finished without them."""
    names = keys(NOW.build().stages(), Video)
    Ledger(store).forget(names["sync"], VIDEOS[0])
    Ledger(store).write(names["speech"], VIDEOS[2], Outcome(status="failed", body={"error": "a"}))
    Ledger(store).store.delete(f"ledger/{names['speech']}/ok/cd/{VIDEOS[2]}.json")
    finish(NOW.build(), NOW, snapshot(NOW.build(), read_videos(store), store), store)
    before, old = everything(store), superseded(store)
    assert prune(store) == 0
    assert set(before) - set(everything(store)) == {path for path in old if VIDEOS[1] in path}
    assert "all that was ever measured stays: 2\n" in capsys.readouterr().out


def test_of_videos_that_can_be_fetched_no_more_or_were_given_up_all_stays(store, capsys):
    """With a fetch that is set otherwise all is fetched again: what is private by now was the last copy there is."""
    again = dataclasses.replace(NOW, overrides=(*NOW.overrides, "fetch.max_height_px=480"))
    names, (back, private, given_up) = keys(again.build().stages(), Video), VIDEOS
    put_in(store, again, back)
    put_in(store, again, given_up, n_stages=1)
    no, never = {"reason": "private", "measured": {}}, {"error": "a"}
    Ledger(store).write(names["fetch"], private, Outcome(status="rejected", body=no))
    Ledger(store).write(names["watch"], given_up, Outcome(status="quarantined", body=never))
    write_job(store, again)
    finish(again.build(), again, snapshot(again.build(), read_videos(store), store), store)
    before, current = everything(store), set(names.values())
    old = {path for path in before if path.startswith(("ledger", "blobs")) and path.split("/")[1] not in current}
    assert prune(store) == 0
    assert before.keys() - everything(store).keys() == {path for path in old if f"/{back}" in path}
    assert "all that was ever measured stays: 2\n" in capsys.readouterr().out
    sources = f"blobs/{keys(NOW.build().stages(), Video)['fetch']}"
    assert [path.split("/")[3] for path in store.list(sources)] == [private, given_up]


def test_a_video_that_its_host_sends_away_keeps_nobody_else_s_room(store):
    video = Video.of("https://x.invalid/a.mp4")
    add_videos(store, [video])
    Ledger(store).put_off(keys(NOW.build().stages(), Video)["fetch"], video.id, "r", 1, "x.invalid: refused")
    finish(NOW.build(), NOW, snapshot(NOW.build(), read_videos(store), store), store)
    assert not is_finished(store, NOW.build(), read_videos(store))
    assert prune(store) == 0 and superseded(store) == set()


def test_what_a_run_of_newer_versions_measured_before_it_was_broken_off_is_not_for_older_ones_to_take(
    store, monkeypatch, capsys
):
    with monkeypatch.context() as newer:
        newer.setattr(ScoreSync, "version", 1_000)
        put_in(store, NOW, VIDEOS[0])
        write_job(store, dataclasses.replace(NOW, stages=keys(NOW.build().stages(), Video)))
    before = everything(store)
    assert prune(store) == prune(store, "--dry") == 2 and everything(store) == before
    assert capsys.readouterr().err.count("was run last with other versions or weights, recipe own: run it first") == 2
    write_job(store, dataclasses.replace(NOW, stages=keys(NOW.build().stages(), Video)))
    assert prune(store) == 0 and superseded(store) == set()


def pointing_nowhere(store):
    """Blobs that an outcome speaks of and that are not there."""
    outcomes = [json.loads(store.get(path)) for path in store.list("ledger") if "/ok/" in path]
    return {path for path in re.findall(r"blobs/[^\"]+", json.dumps(outcomes)) if not store.exists(path)}


def test_a_call_that_is_cut_short_leaves_no_outcome_without_its_blob_or_its_input_and_is_finished_by_the_next(
    tmp_path, monkeypatch
):
    cut, delete, n = True, Store.delete, 0
    order = list(keys(BEFORE.build().stages(), Video).values())[1:]
    monkeypatch.setattr("pipeline.prune.READERS", 1)
    while cut:
        store, left, cut = made(str(tmp_path / str(n))), n, False

        def dies(store, path):
            nonlocal left, cut
            if left == 0:
                cut = True
                raise KeyboardInterrupt
            left -= 1
            delete(store, path)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "delete", dies)
            assert prune(store) == (130 if cut else 0)
        assert pointing_nowhere(store) == set()
        for video in VIDEOS:
            passed = [video in Ledger(store).videos(key, "ok") for key in order]
            assert passed == sorted(passed, reverse=True), "a later stage has no outcome where an earlier one has none"
        assert prune(store) == 0 and superseded(store) == set()
        n += 9
    assert n > 27


TRIED = dataclasses.replace(NOW, overrides=(*NOW.overrides, "clip.margin=1.7"))


@pytest.mark.parametrize(
    "other", [TRIED, dataclasses.replace(NOW, stages={"sync": "sync-0000000000"})], ids=["settings", "versions"]
)
def test_a_run_with_other_settings_or_versions_that_begins_meanwhile_stops_it(other, store, monkeypatch, capsys):
    delete, seen = Store.delete, []

    def another_begins(store, path):
        delete(store, path)
        seen.append(path)
        write_job(store, other)

    monkeypatch.setattr("pipeline.prune.READERS", 1)
    monkeypatch.setattr(Store, "delete", another_begins)
    assert prune(store) == 2 and len(seen) == 1
    assert "another run has begun" in capsys.readouterr().err


def test_a_run_with_the_same_settings_that_begins_meanwhile_does_not(store, monkeypatch):
    delete = Store.delete

    def the_same_begins(store, path):
        delete(store, path)
        write_job(store, dataclasses.replace(NOW, command="python -m pipeline run"))

    monkeypatch.setattr(Store, "delete", the_same_begins)
    assert prune(store) == 0 and superseded(store) == set()


def test_it_takes_no_blobs_from_a_run_with_other_settings_that_is_still_at_work(store, monkeypatch, capsys):
    """Its settings are no longer those in force: a second run, with the settings of before, found nothing to do."""
    put_in(store, TRIED, VIDEOS[0])
    write_job(store, NOW)
    delete, measured = Store.delete, []

    def the_run_goes_on(store, path):
        delete(store, path)
        if path == "ledger/fetch-0123456789" and not measured:  # the last of all outcomes
            measured.append(VIDEOS[1])
            put_in(store, TRIED, VIDEOS[1])

    monkeypatch.setattr(Store, "delete", the_run_goes_on)
    assert prune(store) == 2 and measured
    assert "a run with other settings is at work in " in capsys.readouterr().err
    assert pointing_nowhere(store) == set()
    assert Ledger(store).videos(keys(TRIED.build().stages(), Video)["identity"], "ok") == {VIDEOS[1]}


def test_half_written_files_of_a_key_go_with_it(store):
    key = keys(BEFORE.build().stages(), Video)["clip"]
    (store.local / f"blobs/{key}/ab/ab0/.partial-elsewhere-1-0").write_bytes(b"half")
    assert prune(store) == 0
    assert not (store.local / f"blobs/{key}").exists() and not (store.local / f"ledger/{key}").exists()
