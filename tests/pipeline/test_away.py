"""What a run does about files that are not there: on a disk that is away, or of another machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from manifests.records import MISSING, Video
from pipeline import run as running
from pipeline.changed import Changes
from pipeline.cli import main
from pipeline.job import add_videos, read_videos
from pipeline.ledger import Ledger, Outcome
from pipeline.sources import as_seen, missing_files, out_of_sight, own_videos
from tests.pipeline.test_changed import EVERY, GONE, NAMES, STAGES, about, due, pass_all


def test_workers_are_told_which_files_are_missing_now_though_the_store_knows_them(store, film):
    """A node that does not see a file which the command sees is at fault: it must not be blamed for one that went."""
    row, left, fetched = (Video(id=name, url=str(film.with_name(name)), stamp="5-1") for name in ("row", "left", "ok"))
    add_videos(store, [row, left, fetched])
    words = [replace(row, stamp=MISSING), Video.of("https://h.invalid/b.mp4")]
    everything = add_videos(store, words, lost={row.id})
    unseen = out_of_sight(everything, words, {one.id for one in (row, left, words[1])})
    told = as_seen(everything, {row.id}, unseen)
    assert unseen == {left.id}
    assert {one.id: one.stamp for one in told} == {"row": MISSING, "ok": row.stamp, words[1].id: ""}


def test_a_run_looks_anew_for_the_files_that_are_due(store, film, monkeypatch):
    told: list[Video] = []
    monkeypatch.setattr(running, "_carry", lambda this, videos, due: told.extend(videos))
    listed = film.with_name("list.txt")
    listed.write_text("a.mp4\nb.mp4\n")
    film.with_name("b.mp4").touch()
    for _ in range(2):
        assert main(["run", "sample", "--manifest", str(listed), "--store", store.url, "--until", "fetch"]) == 0
        film.unlink(missing_ok=True)
    assert [(Path(one.url).name, one.stamp == MISSING) for one in sorted(told[2:], key=lambda one: one.url)] == [
        ("a.mp4", True),
        ("b.mp4", False),
    ]


@pytest.mark.parametrize("listed", [("done", "due", "elsewhere"), ("done", "elsewhere")])
def test_what_was_due_while_its_disk_was_away_is_fetched_once_it_is_back(listed, store, film, monkeypatch, tmp_path):
    """Of two files on a disk a run that was killed had fetched one; a third lies on another disk."""
    disk, key, text = film.parent, NAMES["fetch"], tmp_path / "list.txt"
    film.rename(disk / "done.mp4")
    (disk / "due.mp4").touch()
    (tmp_path / "elsewhere.mp4").touch()
    where = {"done": "films/done.mp4", "due": "films/due.mp4", "elsewhere": "elsewhere.mp4"}

    def killed(this, videos, due):
        (done,) = (one.id for one in videos if one.url.endswith("done.mp4"))
        Ledger(store).write(key, done, Outcome(status="ok"))

    def whole(this, videos, due):
        for one in videos:
            if one.id in due[0].enter:
                Ledger(store).write(key, one.id, GONE if one.stamp == MISSING else Outcome(status="ok"))

    def run(carry, *names):
        monkeypatch.setattr(running, "_carry", carry)
        text.write_text("".join(f"{where[name]}\n" for name in names))
        return main(["run", "sample", "--manifest", str(text), "--store", store.url, "--until", "fetch"])

    assert run(killed, *where) == 0
    disk.rename(tmp_path / "away")
    assert run(whole, *listed) == 0 and len(Ledger(store).videos(key, "rejected")) == ("due" in listed)
    (tmp_path / "away").rename(disk)
    assert run(whole, *where) == 0
    assert len(Ledger(store).videos(key, "ok")) == 3 and not Ledger(store).videos(key, "rejected")


@pytest.fixture
def run(store, film, monkeypatch):
    """A run over two films, one of a disk of its own, up to the end of fetching: what is due is there or is gone."""
    disk, listed = film.parent, film.parent.parent / "list.txt"
    listed.write_text("films/a.mp4\nelsewhere.mp4\n")
    (listed.parent / "elsewhere.mp4").touch()

    def whole(this, videos, due):
        for one in videos:
            if one.id in due[0].enter:
                Ledger(store).write(due[0].key, one.id, GONE if one.stamp == MISSING else Outcome(status="ok"))

    def call(*more, away=False):
        monkeypatch.setattr(running, "_carry", whole)
        disk.rename(disk.with_name("away")) if away else None
        code = main(["run", "sample", "--manifest", str(listed), "--store", store.url, "--until", "fetch", *more])
        disk.with_name("away").rename(disk) if away else None
        return code

    return call


def test_of_a_file_that_is_still_away_no_run_says_that_it_is_back(run, store, film, capsys):
    """One that the store knew without a stamp, of a list written before there were any."""
    (video,) = own_videos(str(film), None)
    add_videos(store, [replace(video, stamp="")])
    for _ in range(3):
        assert run(away=True) == 0
    said = capsys.readouterr().out
    assert said.count("1 of 2 files are not there") == 1 and "there again" not in said
    assert run() == 0 and "are there again, fetched where they were missed: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("is_stamped", [True, False])
def test_what_was_measured_stays_though_a_run_of_other_settings_missed_its_file(run, store, film, capsys, is_stamped):
    """By this machine while its disk was away, or by another one, which has no such disk."""
    other, (video,) = ("--set", "fetch.max_height_px=480"), own_videos(str(film), None)
    pass_all(store, video if is_stamped else replace(video, stamp=""))
    known = about(store, video)
    assert run(*other, away=True) == 0 and len(about(store, video) - known) == 1
    capsys.readouterr()
    assert run() == 0 and about(store, video) == known and due(store, [video]) == {}
    said = capsys.readouterr().out
    assert "videos whose files are there again, fetched where they were missed: 1\n" in said and "changed" not in said
    assert run(*other) == 0 and len(about(store, video) - known) == 1, "under the other settings it is fetched now"
    assert not [path for path in store.list("ledger") if "/rejected/" in path]


def test_another_file_than_the_one_that_a_run_missed_is_measured_anew(run, store, film):
    assert run() == 0 and run("--set", "fetch.max_height_px=480", away=True) == 0
    (video,) = own_videos(str(film), None)
    film.write_bytes(b"second")
    words = own_videos(str(film), None)
    assert Changes.of(read_videos(store), words, STAGES, store).again == {name: {video.id} for name in EVERY}


def test_files_of_another_machine_are_left_to_it(run, store, tmp_path, capsys):
    """One that is queued there and listed here as gone would be measured by neither."""
    theirs = Video.of(str(tmp_path / "disk of theirs" / "b.mp4"), stamp="5-1")
    add_videos(store, [theirs])
    assert run() == 0 and about(store, theirs) == set() and theirs in read_videos(store)
    assert "that this run does not ask for, whose files are not there, left for later: 1\n" in capsys.readouterr().out


def test_retry_leaves_what_was_given_up_of_files_that_are_away_as_it_is(store, tmp_path):
    listed, key = tmp_path / "list.txt", NAMES["fetch"]
    listed.write_text("a.mp4\nb.mp4\n")
    cut, other = own_videos(str(listed), None)
    Ledger(store).write(key, cut.id, Outcome(status="rejected", body={"reason": "truncated", "measured": {}}))
    Ledger(store).write(key, other.id, Outcome(status="quarantined", body={"error": ""}))
    command = ["run", "sample", "--manifest", str(listed), "--store", store.url, "--until", "fetch"]
    assert main([*command, "--retry"]) == 0
    assert Ledger(store).videos(key, "rejected") == {cut.id} and Ledger(store).videos(key, "quarantined") == {other.id}
    for video in (cut, other):
        Path(video.url).touch()
    assert due(store, [cut, other], retry=True) == {"fetch": tuple(sorted((cut.id, other.id)))}


def test_a_run_whose_files_are_all_away_is_refused_though_some_of_them_were_fetched(film):
    (row,) = own_videos(str(film), None)
    fetched, due = replace(row, id="fetched", url="a.mp4", stamp=MISSING), replace(row, id="due", stamp=MISSING)
    with pytest.raises(ValueError, match="2 of 2 files are not there"):
        list(missing_files([fetched, due], {"due"}, "list.csv"))
    assert list(missing_files([fetched, due], (), "list.csv")) == []
    (said,) = missing_files([fetched, due, Video.of("https://h.invalid/b.mp4")], {"due"}, "list.csv")
    assert said.startswith("1 of 2 files are not there")
