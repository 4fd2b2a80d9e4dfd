"""Results are vouched for only while they are there and of one mind."""

import dataclasses
import io

import pytest
from rich.console import Console

from manifests.records import Verdict, Video
from manifests.store import Store
from pipeline import finish as finishing
from pipeline import run as running
from pipeline.cli import main
from pipeline.finish import finish, is_finished, notes, snapshot
from pipeline.job import Job, add_videos, read_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.recipes import TalkingFaces
from pipeline.show import show
from pipeline.stage import keys
from stages.policies import PAPER
from stages.shard import Sharded
from stages.shard_json import SCHEMA
from tests.stages.measured import measured, put, remember, source, speech, stored_clip, sync


def put_in(store, recipe, known):
    """Leave in a store what a run would have that measured this."""
    add_videos(store, [known.video])
    remember(store, keys(recipe.stages(), Video), known)


@pytest.fixture
def finished(tmp_path):
    """A store of one video that was never run, judged and written."""
    store, job = Store(str(tmp_path)), Job(recipe="sample")
    write_job(store, job)
    videos = add_videos(store, [Video.of("a.mp4")])
    finish(job.build(), job, snapshot(job.build(), videos, store), store)
    return store, job, videos


def test_a_finished_store_is_finished_and_one_of_another_policy_is_not(finished):
    store, job, videos = finished
    assert is_finished(store, job.build(), videos)
    assert not is_finished(store, job.changed("strict", ()).build(), videos)


@pytest.mark.parametrize("lost", ["shards", "report.html", "clips.parquet", "videos.parquet"])
def test_results_that_were_deleted_are_not_vouched_for(finished, lost):
    store, job, videos = finished
    store.delete(lost)
    assert not is_finished(store, job.build(), videos)


def test_results_of_an_older_schema_are_not_vouched_for(finished, monkeypatch):
    store, job, videos = finished
    monkeypatch.setattr(finishing, "SCHEMA", SCHEMA - 1)
    finish(job.build(), job, snapshot(job.build(), videos, store), store)
    assert is_finished(store, job.build(), videos)
    monkeypatch.undo()
    assert not is_finished(store, job.build(), videos), "the next run writes them anew"


def test_shards_that_another_command_left_or_removed_are_not_vouched_for(finished, monkeypatch):
    store, job, videos = finished
    store.put("shards/train-000000-00000000.tar", b"of another command that writes at this moment")
    assert not is_finished(store, job.build(), videos)
    monkeypatch.setattr(finishing, "shard", lambda *_, **__: Sharded(index, (), (), ()))
    index = dataclasses.make_dataclass("Index", ["shards"])(("train-000000-00000000.tar",))
    monkeypatch.setattr(finishing, "write_report", lambda *_, **__: None)
    finish(job.build(), job, snapshot(job.build(), videos, store), store)
    store.put("report.html", b"")
    assert is_finished(store, job.build(), videos)
    store.delete("shards/train-000000-00000000.tar")
    assert not is_finished(store, job.build(), videos)


def test_results_do_not_vouch_for_what_a_run_added_while_they_were_written(finished):
    store, job, videos = finished
    seen = snapshot(job.build(), videos, store)
    key = keys(job.build().stages(), Video)["fetch"]
    Ledger(store).write(key, videos[0].id, Outcome(status="rejected", body={"reason": "gone", "measured": {}}))
    finish(job.build(), job, seen, store)
    assert not is_finished(store, job.build(), videos)


def test_results_do_not_vouch_for_videos_that_their_host_sent_away(finished):
    store, job, videos = finished
    Ledger(store).put_off(keys(job.build().stages(), Video)["fetch"], videos[0].id, "a", 1, "x.invalid: refused")
    finish(job.build(), job, snapshot(job.build(), videos, store), store)
    assert not is_finished(store, job.build(), videos), "the next run says again why they wait"
    assert is_finished(store, job.build(), videos, or_postponed=True)


def test_a_judging_that_broke_off_leaves_nothing_finished(finished, monkeypatch):
    store, job, videos = finished

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(finishing, "write_report", full)
    with pytest.raises(OSError, match="no space"):
        finish(job.changed("strict", ()).build(), job, snapshot(job.build(), videos, store), store)
    assert not is_finished(store, job.build(), videos), "the shards may be those of strict"


def test_judging_reads_what_is_known_once(finished, monkeypatch):
    store, _, _ = finished
    calls = []
    measured = finishing.measured
    monkeypatch.setattr(finishing, "measured", lambda *given: calls.append(1) or measured(*given))
    assert main(["judge", "--policy", "strict", "--store", store.url]) == 0
    assert len(calls) == 1


@pytest.fixture
def judgings(monkeypatch):
    """The names of the policies that were judged by, in turn."""
    names, judge = [], finishing.judge
    monkeypatch.setattr(finishing, "judge", lambda known, policy: names.append(policy.name) or judge(known, policy))
    return names


def test_a_command_judges_once_by_each_policy(finished, judgings, tmp_path):
    store, _, _ = finished
    judgings.clear()
    assert main(["judge", "--policy", "strict", "--store", store.url]) == 0
    assert judgings == ["sample", "strict"]
    assert main(["judge", "--policy", "strict", "--store", store.url]) == 0
    assert main(["report", "--sheet", str(tmp_path / "sheet.png"), "--store", store.url]) == 0
    assert judgings == ["sample", "strict", "strict", "strict"]


def test_what_was_known_is_read_anew_only_where_something_was_settled_since(finished):
    store, job, videos = finished
    recipe = job.build()
    seen = snapshot(recipe, videos, store)
    assert snapshot(recipe, read_videos(store), store, seen) is seen
    key = keys(recipe.stages(), Video)["fetch"]
    Ledger(store).write(key, videos[0].id, Outcome(status="rejected", body={"reason": "gone", "measured": {}}))
    anew = snapshot(recipe, videos, store, seen)
    assert anew.known[0].rejected and snapshot(recipe, add_videos(store, [Video.of("b.mp4")]), store, anew) is not anew


def test_what_a_search_knew_when_it_found_no_more_is_not_judged_again_for_the_results(finished, judgings):
    store, job, _ = finished
    videos = add_videos(store, [Video.of("b.mp4")])
    dry = {"troubles": (), "next_wave": lambda *_: (), "short": lambda *_: ()}
    options = type("Options", (), {"until": None, "manifest": "own.csv"})()
    this = running._Run(options, Console(file=io.StringIO()), store, job, job.build(), "r")
    judgings.clear()
    running._end(this, 0.0, running._search(this, type("Search", (), dry)(), videos))
    assert judgings == ["sample"] and is_finished(store, job.build(), videos)


def test_judge_says_by_language_what_comes_and_goes(tmp_path, capsys):
    store, job = Store(str(tmp_path)), Job(recipe="own")
    write_job(store, job)
    for n, (language, confidence) in enumerate((("th", 2.5), ("th-TH", 7.0), ("de", 7.0))):
        known = measured(f"v{n}", language=language, person=n, syncs=(sync(f"v{n}-0000", confidence),))
        put_in(store, job.build(), known)
    assert main(["judge", "--dry", "--set", "policy.min_confidence.th=2", "--store", store.url]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == ["kept 2 clips before, 3 now: +1 -0", "th: 1 -> 2 clips, 0.001 -> 0.002 h"]


def test_a_long_name_of_a_policy_is_not_broken(finished, capsys):
    store, _, _ = finished
    limits = [f"{name}=none" for name in ("max_yaw_deg", "min_confidence", "min_face_px", "min_motion")]
    assert main(["judge", *(f"--set=policy.{limit}" for limit in limits), "--store", store.url]) == 0
    assert f"policy sample+{','.join(limits)}\n" in capsys.readouterr().out


def test_brackets_in_an_address_are_shown(tmp_path):
    store = Store(str(tmp_path))
    write_job(store, Job(recipe="sample"))
    (video,) = add_videos(store, [Video.of("/videos/Talk [dQw4w9WgXcQ] [/b].mp4")])
    console = Console(file=io.StringIO(), width=200)
    options = type("Options", (), {"store": store.url, "id": video.id})()
    assert show(options, console) == 0
    assert f"{video.id}  {video.url}" in console.file.getvalue()


def test_a_split_of_less_than_half_its_share_is_told_with_the_size_of_the_largest_group():
    splits = ["train"] * 60 + ["val"] * 1 + ["test"] * 3
    known = [measured(f"v{n}") for n in range(len(splits))]
    made = {"kept": True, "policy": "paper"}
    verdicts = [
        Verdict(key=f"v{n}-0000", video=f"v{n}", group="giant" if n < 48 else f"g{n}", split=split, **made)
        for n, split in enumerate(splits)
    ]
    recipe = TalkingFaces(policy=PAPER, cascade=False)
    (said,) = notes(recipe, known, verdicts)
    assert "val has 1.6 % instead of 5.0 %" in said and "test" not in said
    assert "the largest of 17 such groups has 75.0 %" in said
    assert notes(recipe, known, [dataclasses.replace(one, kept=False, split="") for one in verdicts]) == ()
    assert notes(recipe, known[47:], verdicts[47:]) == ()


def shown(store, video):
    console = Console(file=io.StringIO(), width=200)
    assert show(type("Options", (), {"store": store.url, "id": video})(), console) == 0
    return console.file.getvalue()


def test_a_video_is_shown_without_judging_a_finished_store_as_it_is_shown_by_judging_it(tmp_path, judgings):
    store, job = Store(str(tmp_path)), Job(recipe="own", overrides=("policy.min_duration_s=0.5",))
    write_job(store, job)
    for n in range(2):
        clips = tuple(stored_clip(store, f"v{n}", number, seed=n, start_s=9.0 * number) for number in range(3))
        syncs = tuple(sync(one.key, confidence) for one, confidence in zip(clips, (7.0, 1.23456789, 7.0), strict=True))
        heard = {"speeches": (speech(clips[0].key), speech(clips[1].key), speech(clips[2].key, verdict="other"))}
        put_in(store, job.build(), measured(f"v{n}", clips=clips, syncs=syncs, person=n, **heard))
    finish(job.build(), job, snapshot(job.build(), read_videos(store), store), store)
    judgings.clear()
    quick = shown(store, "v1")
    assert judgings == [] and "v0-0000" not in quick
    store.delete("finished.json")
    assert shown(store, "v1") == quick and len(judgings) == 1
    assert "v1-0000: kept, " in quick and "v1-0001: dropped" in quick
    assert "  low_sync: 1.23457, limit" in quick and "  wrong_language: de, limit" in quick


def test_clips_that_are_not_those_that_were_scored_are_due_again_with_what_was_measured_on_them(tmp_path):
    store, recipe = Store(str(tmp_path)), TalkingFaces(policy=dataclasses.replace(PAPER, min_duration_s=None))
    for n in range(2):
        clip = stored_clip(store, f"v{n}", seed=n)
        one = measured(f"v{n}", clips=(clip,), person=n)
        put_in(store, recipe, dataclasses.replace(one, source=source(put(store, f"blobs/x/v{n}", b"source"))))
    store.put(clip.audio.path, b"of another run")
    with pytest.raises(ValueError, match=r"0000.wav is not the file that was scored.* anew the 1 videos"):
        finish(recipe, Job(recipe="own"), snapshot(recipe, read_videos(store), store), store)
    left = [sorted(Ledger(store).videos(key, "ok")) for key in keys(recipe.stages(), Video).values()]
    assert left == [["v0", "v1"]] * 2 + [["v0"]] * 4


@pytest.fixture
def three(tmp_path):
    """A store of three videos with a clip each, and the recipe that measured them."""
    store, recipe = Store(str(tmp_path)), TalkingFaces(policy=dataclasses.replace(PAPER, min_duration_s=None))
    for n in range(3):
        one = measured(f"v{n}", clips=(stored_clip(store, f"v{n}", seed=n),), person=n)
        put_in(store, recipe, dataclasses.replace(one, source=source(put(store, f"blobs/x/v{n}", b"source"))))
    return store, recipe


def passed(store, recipe):
    """The videos that passed each stage, in the order of the stages."""
    return [sorted(Ledger(store).videos(key, "ok")) for key in keys(recipe.stages(), Video).values()]


def test_clips_that_are_gone_are_due_again_with_what_was_measured_on_them(three):
    store, recipe = three
    store.delete("blobs/clip-test/v0/v0/0000.wav")
    store.delete("blobs/clip-test/v1")
    with pytest.raises(ValueError, match=r"0000.\w+ is gone; .* anew the 2 videos"):
        finish(recipe, Job(recipe="own"), snapshot(recipe, read_videos(store), store), store)
    assert passed(store, recipe) == [["v0", "v1", "v2"]] * 2 + [["v2"]] * 4


def test_clips_that_are_gone_as_their_video_was_forgotten_meanwhile_are_left_out(three):
    store, recipe = three
    seen = snapshot(recipe, read_videos(store), store)
    store.put("tombstones/v1.json", b"{}")
    store.delete("blobs/clip-test/v1")
    done = finish(recipe, Job(recipe="own"), seen, store)
    assert sorted(row.key for row in done.sharded.index.rows) == ["v0-0000", "v2-0000"]


def test_where_all_blobs_are_away_nothing_is_taken_back(three):
    store, recipe = three
    before = passed(store, recipe)
    (store.local / "blobs").rename(store.local / "elsewhere")
    with pytest.raises(FileNotFoundError, match="blobs is empty or away, with all clips: bring it back, or delete"):
        finish(recipe, Job(recipe="own"), snapshot(recipe, read_videos(store), store), store)
    assert passed(store, recipe) == before


def test_what_was_measured_on_clips_is_taken_back_before_the_clips_themselves(tmp_path, monkeypatch):
    recipe, taken = TalkingFaces(), []
    monkeypatch.setattr(Ledger, "forget", lambda ledger, key, video: taken.append(key))
    finishing._take_back_clips(recipe, ["v0"], Store(str(tmp_path)))
    _, _, *void = keys(recipe.stages(), Video).values()
    assert taken == void[::-1]
