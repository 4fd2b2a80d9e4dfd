"""What is to be forgotten is gone from every place, its near-duplicates with it, and does not come back."""

import dataclasses
import itertools
import subprocess
from argparse import Namespace

import pytest
from rich.console import Console

from manifests.codec import to_json, to_plain
from manifests.records import Video
from manifests.store import Store
from pipeline import finish as finishing
from pipeline import forget as forgetting
from pipeline import run as running
from pipeline.facts import measured as facts
from pipeline.finish import finish, snapshot
from pipeline.forget import forget_all
from pipeline.job import Job, add_videos, read_videos
from pipeline.ledger import Ledger, Outcome
from pipeline.plan import plan
from pipeline.recipes import TalkingFaces
from pipeline.scoring import SCORE
from pipeline.stage import keys
from stages import shard as sharding
from stages.catalogue import CLIPS, VIDEOS, read_catalogue
from stages.policies import PAPER
from stages.shard_index import CARD, SUMS, read_index, tars, write_index
from stages.verify import verify
from tests.stages.measured import identity, measured, put, random_hash, remember, source, stored_clip

RECIPE = TalkingFaces(policy=dataclasses.replace(PAPER, min_duration_s=None), shard_bytes=1_000_000)


@pytest.fixture
def store(tmp_path):
    """Six videos; v4's only clip is a copy of v3's, v1 and v2 are of one channel, v0 and v5 show one person."""
    store = Store(str(tmp_path))
    names = keys(RECIPE.stages(), Video)
    for n in range(6):
        clip = stored_clip(store, f"v{n}", seed=n)
        key = clip.key
        copied = {
            name: random_hash(f"{name}{3 if n == 4 else n}", digits)
            for name, digits in (("picture_hash", 128), ("sound_hash", 256))
        }
        one = measured(
            f"v{n}",
            clips=(clip,),
            channel="Anna" if n in (1, 2) else "",
            identities=(dataclasses.replace(identity(key, person=0 if n == 5 else n), **copied),),
        )
        file = put(store, f"blobs/{names['fetch']}/v{n}/v{n}/source.mp4", b"source")
        address = "https://tube.example/@Anna" if n in (1, 2) else ""
        one = dataclasses.replace(one, source=source(file, uploader_url=address))
        add_videos(store, [one.video])
        remember(store, names, one)
    finish(RECIPE, Job(recipe="own"), snapshot(RECIPE, read_videos(store), store), store)
    return store


def everything(store):
    return [path for folder in ("blobs", "ledger", "shards", "tombstones") for path in store.list(folder)]


def forget(store, *what, dry=False, recipe=RECIPE):
    return forget_all(store, recipe, read_videos(store), what, dry=dry)


def test_a_video_is_gone_from_every_place_and_the_shards_stay_whole(store):
    before = read_index(store)
    touched = {row.shard for row in before.rows if row.video == "v0"}
    store.put(SCORE, b'{"misses": ["v0: what it says"]}')
    gone = forget(store, "video:v0")
    assert (
        not store.exists(SCORE) and gone.videos == ["v0"] and gone.clips == ["v0-0000"] and set(gone.removed) == touched
    )
    assert [path for path in everything(store) if "v0" in path] == ["tombstones/v0.json"]
    assert "v0" not in read_catalogue(store, CLIPS)["video"].to_pylist()
    assert "v0" not in read_catalogue(store, VIDEOS)["video"].to_pylist()
    assert not store.exists("report.html") and "v0" not in {video.id for video in read_videos(store)}
    report = verify(store)
    assert report.problems == [] and report.samples == len(before.rows) - 1
    assert {row.shard for row in before.rows} - touched <= set(read_index(store).shards)


def test_a_later_run_does_not_take_it_in_again(store):
    wanted = read_videos(store)
    forget(store, "video:v0")
    assert all("v0" not in due.enter for due in plan(RECIPE.stages(), wanted, store))
    assert "v0" not in {one.video.id for one in facts(RECIPE.stages(), wanted, store)}


def test_the_shards_without_it_are_those_that_sharding_anew_would_write(store):
    forget(store, "video:v2")
    after = {path: store.get(path) for path in store.list("shards")}
    finish(RECIPE, Job(recipe="own"), snapshot(RECIPE, read_videos(store), store), store)
    again = {path: store.get(path) for path in store.list("shards")}
    assert again == after


def test_card_and_sums_are_of_what_is_left(store):
    n_before = len(read_index(store).rows)
    assert f" {n_before} clips of " in store.get(CARD).decode()
    forget(store, "video:v0")
    assert f" {n_before - 1} clips of {n_before - 1} persons from {n_before - 1} videos" in store.get(CARD).decode()
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=store.local / "shards", check=True)
    assert len(store.get(SUMS).splitlines()) == len(store.list("shards")) - 1 and verify(store).ok


def test_shards_that_were_judged_otherwise_are_left_with_sums_alone(store):
    other = dataclasses.replace(RECIPE, policy=dataclasses.replace(RECIPE.policy, name="other"))
    forget_all(store, other, read_videos(store), ["video:v0"])
    assert not store.exists(CARD) and store.exists(SUMS) and verify(store).ok
    finish(other, Job(recipe="own"), snapshot(other, read_videos(store), store), store)
    assert "**other**" in store.get(CARD).decode() and verify(store).ok


def test_a_shard_is_written_anew_where_it_is_to_lie_and_not_copied_there(store, monkeypatch):
    written, join = [], forgetting.join_tar
    monkeypatch.setattr(
        forgetting, "join_tar", lambda target, *tar: written.append(target.parent) or join(target, *tar)
    )
    assert forget(store, "video:v0").rewritten
    assert set(written) == {store.local / "shards"}


def test_a_channel_goes_with_all_its_videos(store):
    assert forget(store, "channel:https://tube.example/@anna", dry=True).videos == ["v1", "v2"]
    assert forget(store, "channel:anna").videos == ["v1", "v2"]


def test_a_person_goes_with_every_video_that_shows_them(store):
    person = next(row.person for row in read_index(store).rows if row.video == "v5")
    assert forget(store, f"person:{person}").videos == ["v0", "v5"]


def test_what_was_dropped_goes_too_where_it_shows_the_person_or_copies_what_goes(store):
    """v5 shows the person of v0, v4 copies v3; both are dropped here for a rule of their own."""
    strict = dataclasses.replace(RECIPE, policy=dataclasses.replace(RECIPE.policy, max_offset_frames=0))
    for video in ("v4", "v5"):
        key = keys(RECIPE.stages(), Video)["sync"]
        (one,) = (one for one in facts(RECIPE.stages(), read_videos(store), store) if one.video.id == video)
        (late,) = (dataclasses.replace(sync, offset_frames=5) for sync in one.syncs.items)
        body = to_plain(dataclasses.replace(one.syncs, items=(late,)))
        Ledger(store).write(key, video, Outcome(status="ok", body=body))
    done = finish(strict, Job(recipe="own"), snapshot(strict, read_videos(store), store), store)
    person = {verdict.video: verdict.person for verdict in done.verdicts}
    assert person["v4"] == person["v5"] == ""
    gone = forget_all(store, strict, read_videos(store), [f"person:{person['v0']}", "video:v3"])
    assert gone.videos == ["v0", "v3", "v4", "v5"] and gone.copies == ["v4"]


def test_a_copy_does_not_take_the_place_of_what_was_forgotten(store):
    kept = next(row.video for row in read_index(store).rows if row.video in ("v3", "v4"))
    gone = forget(store, f"video:{kept}")
    assert gone.videos == ["v3", "v4"] and gone.copies == [({"v3", "v4"} - {kept}).pop()]
    finish(RECIPE, Job(recipe="own"), snapshot(RECIPE, read_videos(store), store), store)
    assert {row.video for row in read_index(store).rows} == {"v0", "v1", "v2", "v5"}


def test_a_call_that_was_killed_before_the_old_shards_went_is_finished_by_the_same_command(store, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(forgetting, "drop_stale", killed)
        forget(store, "video:v0")
    assert holding(store, "v0")
    assert forget(store, "video:v0").removed
    assert holding(store, "v0") == [] and verify(store).ok


def test_shards_of_others_that_a_run_beside_has_written_stay(store, monkeypatch):
    """It has named none of them yet."""
    for path in store.list("shards"):
        store.delete(path)
    small = dataclasses.replace(RECIPE, shard_bytes=20_000)

    def forgets_first(*given):
        monkeypatch.setattr(sharding, "write_index", write_index)
        before, (touched,) = tars(store), holding(store, "v0")
        gone = forget(store, "video:v0", recipe=small)
        assert len(before) > 3 and [f"shards/{name}" for name in gone.removed] == [touched]
        assert set(before) - set(tars(store)) == set(gone.removed)
        write_index(*given)

    monkeypatch.setattr(sharding, "write_index", forgets_first)
    finish(small, Job(recipe="own"), snapshot(small, read_videos(store), store), store)
    assert not holding(store, "v0") and verify(store).ok


def holding(store, video):
    return [path for path in store.list("shards") if path.endswith(".tar") and f"{video}-0".encode() in store.get(path)]


def test_a_dry_call_says_the_same_and_touches_nothing(store):
    before = {path: store.get(path) for path in [*everything(store), CLIPS, VIDEOS, "report.html"]}
    dry = forget(store, "video:v0", dry=True)
    assert all(store.get(path) == data for path, data in before.items()) and not store.list("tombstones")
    done = forget(store, "video:v0")
    assert (dry.videos, dry.clips, dry.objects) == (done.videos, done.clips, done.objects)
    assert dry.lines()[0] == "would remove video v0" and done.lines()[0] == "removed video v0"


def test_a_call_that_was_cut_short_is_finished_by_the_next(store):
    store.put("tombstones/v1.json", to_json({"id": "v1"}))
    forget(store, "video:v0")
    assert [path for path in everything(store) if "v1" in path] == ["tombstones/v1.json"]
    assert "v1" not in {row.video for row in read_index(store).rows} and verify(store).ok


def test_another_call_that_ends_meanwhile_is_no_matter(store, monkeypatch):
    listed, ended = store.list, {"forgetting": ["forgetting/ended.json"]}
    monkeypatch.setattr(store, "list", lambda path: [*listed(path), *ended.get(path, ())])
    assert forget(store, "video:v0").videos == ["v0"]


def cut_short(store, monkeypatch, writes, act):
    """Do what is killed after so many writes."""
    done = itertools.count()

    def until_the_machine_is_off(write):
        def one(*given):
            if next(done) >= writes:
                raise KeyboardInterrupt
            write(*given)

        return one

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        for name in ("put", "delete"):
            cut.setattr(store, name, until_the_machine_is_off(getattr(store, name)))
        act()


@pytest.mark.parametrize("writes", [1, 2, 5, 20])
def test_the_same_command_finishes_a_call_wherever_it_was_cut_short(store, monkeypatch, writes):
    person = next(row.person for row in read_index(store).rows if row.video == "v0")
    what = f"person:{person}", "video:v3"
    cut_short(store, monkeypatch, writes, lambda: forget(store, *what))
    add_videos(store, [])  # as a run does: from then on the list knows nothing of them
    gone = forget(store, *what)
    assert gone.videos == ["v0", "v3", "v4", "v5"] and gone.copies == ["v4"]
    left = [path for path in everything(store) if any(id in path for id in gone.videos)]
    assert left == [f"tombstones/{id}.json" for id in gone.videos] and not store.list("forgetting")
    assert not any(holding(store, id) for id in gone.videos)
    assert {row.video for row in read_index(store).rows} == {"v1", "v2"} and verify(store).ok and store.exists(SUMS)


def test_a_video_that_was_forgotten_can_be_forgotten_again(store):
    forget(store, "video:v0")
    put(store, "blobs/fetch-0/v0/v0/source.mp4", b"of a run that was killed")
    assert forget(store, "video:v0").objects == 1
    assert [path for path in everything(store) if "v0" in path] == ["tombstones/v0.json"]


@pytest.mark.parametrize("kind", ["disk", "memory", "s3"])
def test_of_few_videos_and_of_many_the_same_is_found_and_of_few_no_other_is_listed(
    kind, tmp_path, request, monkeypatch
):
    places = {"disk": lambda: str(tmp_path), "memory": lambda: f"memory://{tmp_path.name}-found"}
    store = Store(places.get(kind, lambda: f"{request.getfixturevalue('bucket')}/found")())
    ids, ledger = ["ab1", "ab2", "cd1", "cd2", "ab"], Ledger(store)
    for key, id in itertools.product(("fetch-1", "fetch-0", "speech-by-hand-2"), ids):
        ledger.begin(key, id, "run")
    for key, id, status in (
        ("fetch-1", "ab1", "ok"),
        ("fetch-1", "ab1", "failed"),  # of a run beside
        ("fetch-1", "ab2", "rejected"),
        ("fetch-1", "cd2", "ok"),
        ("fetch-0", "cd1", "quarantined"),
        ("speech-by-hand-2", "ab", "ok"),
    ):
        store.put(f"ledger/{key}/{status}/{id[:2]}/{id}.json", b"" if status == "failed" else b"{}")
    for key, id, name in itertools.product(("fetch-1", "clip-9"), ids, ("x.mp4", "of/one/x")):
        store.put(f"blobs/{key}/{id[:2]}/{id}/{name}", b"x")
    store.put("blobs/seen-3/cd/cd2/x", b"left where no outcome was written")
    asked = {"ab1", "ab", "cd2", "not-there"}
    every = [path for folder in ("ledger", "blobs") for path in store.list(folder)]
    listed, listing = [], store.list
    monkeypatch.setattr(store, "list", lambda path: listed.append(path) or listing(path))
    few = forgetting.objects(store, asked)
    assert {path.split("/")[-1] for path in listed} == asked
    monkeypatch.setattr(forgetting, "_FEW", 3)
    assert set(few) == set(forgetting.objects(store, asked)) == {p for p in every if forgetting.about(p)[1] in asked}
    assert len(few) == len(set(few)) == 9 + 4 + 12 + 1
    assert [path.split("/")[0] for path in few] == ["ledger"] * 13 + ["blobs"] * 13


def test_faces_are_compared_for_persons_alone_and_once_for_all_of_them(store, monkeypatch):
    mean_face, calls = forgetting.mean_face, []
    monkeypatch.setattr(forgetting, "mean_face", lambda faces: calls.append(1) or mean_face(faces))
    persons = {row.video: f"person:{row.person}" for row in read_index(store).rows}
    forget(store, "video:v3", "channel:anna", dry=True)
    assert not calls
    assert forget(store, persons["v0"], persons["v1"], dry=True).videos == ["v0", "v1", "v5"]
    assert len(calls) == 6 + 2, "every clip's, and the two persons'"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("v0", "expected video:ID, channel:NAME or person:ID"),
        ("film:v0", "expected video:ID"),
        ("video:", "expected video:ID"),
        ("video:v", "6 videos begin so"),
        ("channel:nobody", "no channel of that name"),
        ("person:p-x", "no person of that name"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(store, what, said):
    with pytest.raises(ValueError, match=said):
        forget(store, what)


@pytest.mark.parametrize("step", ["shard", "write_report"])
def test_what_is_forgotten_before_a_step_of_the_results_is_not_in_them(store, monkeypatch, step):
    taken, calls = getattr(finishing, step), []

    def forgets_first(*given, **options):
        if not calls.append(step) and len(calls) == 1:
            forget(store, "video:v0")
        return taken(*given, **options)

    monkeypatch.setattr(finishing, step, forgets_first)
    done = finish(RECIPE, Job(recipe="own"), snapshot(RECIPE, read_videos(store), store), store)
    assert len(calls) == 2 and "v0" not in {one.video.id for one in done.known}
    assert "v0" not in {row.video for row in read_index(store).rows} and verify(store).ok
    assert [path for path in everything(store) if "v0" in path] == ["tombstones/v0.json"]


def test_a_clip_that_was_lost_but_not_forgotten_is_told(store):
    for path in ("blobs/clip-test/v0/v0/0000.mp4", "shards"):
        store.delete(path)
    store.put("tombstones/other.json", b"{}")
    with pytest.raises(ValueError, match=r"v0/0000\.mp4 is gone; the next run measures anew the 1 videos"):
        finish(RECIPE, Job(recipe="own"), snapshot(RECIPE, read_videos(store), store), store)


def test_a_run_begins_with_what_a_killed_one_left_of_what_was_forgotten(store):
    store.put("tombstones/v0.json", b"{}")
    videos = add_videos(store, [])
    this = running._Run(Namespace(until=None), Console(quiet=True), store, Job(recipe="own"), RECIPE, "a")
    running._carry(this, videos, plan(RECIPE.stages(), videos, store))
    left = [path for path in everything(store) if "v0" in path and "shards" not in path]
    assert left == ["tombstones/v0.json"] and Ledger(store).videos(keys(RECIPE.stages(), Video)["fetch"], "ok")


def test_what_a_run_measured_of_a_video_that_was_forgotten_meanwhile_goes_with_its_end(store, monkeypatch):
    videos, job = add_videos(store, [Video.of("new.mp4"), Video.of("other.mp4")]), Job(recipe="own")
    gone, stays = Video.of("new.mp4").id, Video.of("other.mp4").id
    fetch = keys(RECIPE.stages(), Video)["fetch"]

    def forgotten_while_it_runs(*_):
        forget(store, f"video:{gone}")
        for id in (gone, stays):
            put(store, f"blobs/{fetch}/{id[:2]}/{id}/source.mp4", b"source")
            Ledger(store).write(fetch, id, Outcome(status="ok"))

    monkeypatch.setattr(running, "run_on_ray", forgotten_while_it_runs)
    options = Namespace(until=None, manifest="list.csv", address=None, cpus=None)
    this = running._Run(options, Console(quiet=True), store, job, RECIPE, "a")
    running._carry(this, videos, plan(RECIPE.stages(), videos, store))
    assert [path for path in everything(store) if gone in path] == [f"tombstones/{gone}.json"]
    assert len([path for path in everything(store) if stays in path]) == 2
