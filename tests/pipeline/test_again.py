"""What a run says before it does once more what was done under other settings, by another version or other weights."""

from collections import Counter

import pytest

from manifests.records import Video
from manifests.store import Store
from pipeline import run as running
from pipeline.again import done_again
from pipeline.cli import main
from pipeline.job import Job, add_videos, write_job
from pipeline.ledger import Ledger, Outcome
from pipeline.plan import plan
from pipeline.recipes import build
from pipeline.stage import keys
from stages.speech import Transcribe

URLS = [f"http://h.invalid/{name}.mp4" for name in "abc"]
ROWS = [Video.of(url) for url in URLS]
ALL = "fetch, watch, clip, sync, speech, identity"
KEPT = "; with those of before they stay as they are"
UNTOLD = "under other settings, by another version or with other weights than before"


@pytest.fixture
def done(store):
    """As if a run with these settings had taken three videos through all stages, or as the statuses by stage say."""

    def do(recipe="own", policy=None, sets=(), **statuses):
        names = keys(build(recipe, policy, sets).stages(), Video)
        add_videos(store, ROWS)
        for stage, key in names.items():
            for row, status in zip(ROWS, statuses.get(stage, ["ok"] * len(ROWS)), strict=True):
                Ledger(store).write(key, row.id, Outcome(status=status))
        write_job(store, Job(recipe=recipe, policy=policy, overrides=tuple(sets), stages=names))

    return do


def said(store, recipe="own", policy=None, sets=(), changed=None):
    stages = build(recipe, policy, sets).stages()
    return list(done_again(plan(stages, ROWS, store, again=changed), store, changed or {}))


def test_a_run_says_before_it_starts_what_it_fetches_again_and_by_which_setting(store, done, tmp_path, monkeypatch):
    done()
    (tmp_path / "list.txt").write_text("\n".join(URLS))
    printed = []
    monkeypatch.setattr("rich.console.Console.print", lambda self, line, **_: printed.append(line))
    monkeypatch.setattr(running, "_carry", lambda *_: printed.append("started"))
    asked = ["run", "--manifest", str(tmp_path / "list.txt"), "--store", store.url, "--until", "fetch"]
    setting = "fetch.max_duration_s=60.0 (was 14400.0)"
    line = f"videos fetched again: 3 (stages: fetch), under other settings than before: {setting}{KEPT}"
    assert main([*asked, "--set", "fetch.max_duration_s=60", "--dry"]) == 0 and printed[0] == line
    printed.clear()
    assert main([*asked, "--dry"]) == 0 and line not in printed
    printed.clear()
    assert main([*asked, "--set", "fetch.max_duration_s=60"]) == 0 and printed == [line, "started"]


def test_each_setting_is_named_with_the_stages_that_go_after_it(store, done):
    done(sets=["fetch.licence=cc", "sync.every=2"])
    lead, fetch, sync = "under other settings than before: ", "fetch.licence=any (was cc)", "sync.every=4 (was 2)"
    assert said(store, sets=["sync.every=2"]) == [f"videos fetched again: 3 (stages: {ALL}), {lead}{fetch}{KEPT}"]
    assert said(store, sets=["fetch.licence=cc"]) == [f"videos measured again: 3 (stages: sync), {lead}{sync}{KEPT}"]
    assert said(store, sets=["fetch.licence=cc", "sync.every=2", "speech.batch=3"]) == []


def test_limits_of_a_cascade_are_named_as_what_they_follow_from(store, done):
    done("wild", "paper")
    lead = "videos measured again: 3 (stages: clip, sync, speech, identity), under other settings than before: "
    assert said(store, "wild", "strict") == [f"{lead}the limits of its cascade{KEPT}"]
    assert said(store, "wild", "paper", ["policy.val_share=0.1"]) == []


def test_a_version_that_rose_is_told_from_a_setting(store, done, monkeypatch):
    done()
    monkeypatch.setattr(Transcribe, "version", Transcribe.version + 1)
    lead = "videos measured again: 3 (stages: speech), "
    assert said(store) == [f"{lead}by another version or with other weights"]
    both = "under other settings than before: speech.beam=1 (was 5) and by another version or with other weights"
    assert said(store, sets=["speech.beam=1"]) == [lead + both]


def test_settings_that_only_the_first_stages_were_run_with_are_no_other_version_of_the_last(
    store, done, tmp_path, monkeypatch
):
    done()
    (tmp_path / "list.txt").write_text("\n".join(URLS))
    for name in ("_carry", "_prepare"):
        monkeypatch.setattr(running, name, lambda *_: None)
    sets = ["watch.look_px=240"]
    asked = ["run", "--manifest", str(tmp_path / "list.txt"), "--store", store.url, "--until", "watch"]
    assert main([*asked, "--set", *sets]) == 0
    for row in ROWS:
        Ledger(store).write(keys(build("own", None, sets).stages(), Video)["watch"], row.id, Outcome(status="ok"))
    assert said(store, sets=sets) == [f"videos measured again: 3 (stages: clip, sync, speech, identity), {UNTOLD}"]


def test_what_an_earlier_run_did_is_counted_too_and_each_video_once(store, done):
    done(sets=["fetch.licence=cc"])
    done()
    write_job(store, Job(recipe="own", overrides=("fetch.licence=cc",)))  # of before keys were written down
    assert said(store, sets=["fetch.licence=any", "fetch.max_duration_s=60"]) == [
        f"videos fetched again: 3 (stages: {ALL}), {UNTOLD}"
    ]
    store.put("job.json", b'{"recipe":"own","overrides":["fetch.no_more=1"],"stages":{"fetch":"fetch-0000000000"}}')
    Ledger(store).write("fetch-0000000000", ROWS[0].id, Outcome(status="ok"))
    assert said(store, sets=["fetch.max_duration_s=60"]) == [f"videos fetched again: 3 (stages: {ALL}), {UNTOLD}"]


def test_what_was_watched_in_vain_is_counted_and_what_could_not_be_fetched_or_has_another_row_is_not(store, done):
    done(fetch=["rejected", "ok", "ok"], watch=["failed", "rejected", "failed"])
    fetched, watched = said(store, sets=["fetch.licence=cc"]), said(store, sets=["watch.look_px=240"])
    assert [line.partition(" (")[0] for line in fetched + watched] == [
        "videos fetched again: 2", "videos measured again: 1",
    ]  # fmt: skip
    (line,) = said(store, sets=["fetch.licence=cc"], changed={"fetch": {ROWS[1].id}})
    assert line.startswith("videos fetched again: 1 ")


def test_no_key_is_listed_twice_and_none_where_nothing_is_due(store, done, monkeypatch):
    done()
    listed, list_, folders = Counter[str](), Store.list, Store.folders
    monkeypatch.setattr(Store, "list", lambda self, path: listed.update([path]) or list_(self, path))
    monkeypatch.setattr(Store, "folders", lambda self, path: listed.update([path]) or folders(self, path))
    assert said(store) == [] and "ledger" not in listed
    listed.clear()
    assert len(said(store, sets=["fetch.licence=cc"])) == 1 and {*listed.values()} == {1}
