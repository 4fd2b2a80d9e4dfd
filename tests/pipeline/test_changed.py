"""What a run does about rows, files and settings that are not what they were, and what it says of them."""

import os
from dataclasses import replace

import pandas as pd
import pytest

from manifests.records import MISSING, Video
from pipeline import run as running
from pipeline.changed import Changes
from pipeline.cli import main
from pipeline.job import add_videos, read_videos
from pipeline.ledger import Ledger, Outcome
from pipeline.plan import plan
from pipeline.recipes import TalkingFaces, build
from pipeline.sources import missing_files, own_videos
from pipeline.stage import keys

STAGES = build("sample").stages()
NAMES = keys(STAGES, Video)
EVERY = {stage.name for stage in STAGES}
GONE = Outcome(status="rejected", body={"reason": "gone", "measured": {}})


def pass_all(store, *videos):
    """As if they had passed every stage, each of which left a blob."""
    add_videos(store, videos)
    for video in videos:
        for key in NAMES.values():
            Ledger(store).begin(key, video.id, "run")
            Ledger(store).write(key, video.id, Outcome(status="ok"))
            store.put(f"blobs/{key}/{video.id[:2]}/{video.id}/x", b"x")


def due(store, videos, **given):
    return {one.stage.name: one.enter for one in plan(STAGES, videos, store, **given) if one.enter}


def about(store, video):
    return {path.split("/")[1] for folder in ("ledger", "blobs") for path in store.list(folder) if video.id in path}


def test_another_expected_language_makes_speech_due_again_for_that_video_alone(store):
    video, other = Video.of("a.mp4", language="de"), Video.of("b.mp4", language="de")
    pass_all(store, video, other)
    Ledger(store).write("speech-otherwise", video.id, Outcome(status="ok"))
    words = [replace(video, language="en"), other]
    changes = Changes.of(read_videos(store), words, STAGES, store)
    assert due(store, words, again=changes.again) == {"speech": (video.id,)}, "a dry run sees it, and removes nothing"
    assert changes.lines == ("videos now expected in another language, their speech measured anew: 1",)
    changes.take_back(store)
    assert due(store, words) == {"speech": (video.id,)}
    assert about(store, video) == {key for name, key in NAMES.items() if name != "speech"}
    assert about(store, other) == {*NAMES.values()}


def test_what_was_made_of_a_changed_outcome_is_due_again_too(store):
    video = Video.of("a.mp4", stamp="1-1")
    changes = Changes.of([video], [replace(video, stamp="1-2")], TalkingFaces(cascade=True).stages(), store)
    assert changes.again == {name: {video.id} for name in EVERY}


def test_wherever_taking_back_is_cut_short_what_a_stage_keeps_was_made_of_what_is_there(store, monkeypatch):
    """Else tracks of the old file pass on to the new one, which nobody tells by them."""
    videos = [Video.of(f"{name}.mp4", stamp="1-1") for name in "ab"]
    pass_all(store, *videos)
    changes = Changes.of(videos, [replace(video, stamp="1-2") for video in videos], STAGES, store)
    assert changes.again == {name: {video.id for video in videos} for name in EVERY}
    order, removed, delete = list(NAMES.values()), [], store.delete
    monkeypatch.setattr("pipeline.forget._REMOVERS", 1)

    def look_and_delete(path):
        delete(path)
        removed.append(path)
        for video in videos:
            kept = [key for key in order if Ledger(store).read(key, video.id)]
            assert kept == order[: len(kept)], f"{video.url}: {kept} after {len(removed)} deletions"
            blobs = {path.split("/")[1] for path in store.list("blobs") if video.id in path}
            assert blobs >= set(kept), "an outcome goes before its blobs"

    monkeypatch.setattr(store, "delete", look_and_delete)
    changes.take_back(store)
    assert len(removed) == len(videos) * len(order) * 3 and not any(about(store, video) for video in videos)


def test_of_two_videos_one_stage_is_taken_back_before_the_one_that_it_needs(store, monkeypatch):
    """Another run beside must not fetch the one anew while the tracks of the other are still to go."""
    videos = [Video.of(f"{name}.mp4", stamp="1-1") for name in "ab"]
    pass_all(store, *videos)
    removed = []
    monkeypatch.setattr("pipeline.changed.remove", lambda store, paths: removed.append(list(paths)))
    Changes.of(videos, [replace(video, stamp="1-2") for video in videos], STAGES, store).take_back(store)
    assert [{path.split("/")[1] for path in paths} for paths in removed if paths[0].startswith("ledger")] == [
        {key} for key in reversed(NAMES.values())
    ]
    assert {path.split("/")[0] for path in removed[-1]} == {"blobs"}


def test_another_file_under_the_same_name_is_measured_anew(store, film):
    (video,) = own_videos(str(film.parent), None)
    pass_all(store, video)
    film.write_bytes(b"second")
    words = own_videos(str(film.parent), None)
    assert [word.id for word in words] == [video.id]
    changes = Changes.of(read_videos(store), words, STAGES, store)
    assert changes.lines == ("videos that changed since they were fetched, measured anew: 1",)
    changes.take_back(store)
    assert about(store, video) == set() and not store.list("tombstones")
    assert due(store, add_videos(store, words)) == {"fetch": (video.id,)}
    assert not Changes.of(read_videos(store), own_videos(str(film.parent), None), STAGES, store).again


def test_a_file_of_the_same_size_is_told_by_its_time(store, film):
    old = own_videos(film.as_uri(), None)
    os.utime(film, ns=(0, film.stat().st_mtime_ns + 1000))
    assert Changes.of(old, own_videos(film.as_uri(), None), STAGES, store).again["fetch"] == {old[0].id}


def test_a_file_that_is_missing_for_a_while_changes_nothing(store, film, tmp_path):
    (tmp_path / "list.txt").write_text("films/a.mp4\nhttps://h.invalid/b.mp4\n")
    rows = add_videos(store, own_videos(str(tmp_path / "list.txt"), None))
    film.rename(tmp_path / "elsewhere")
    words = own_videos(str(tmp_path / "list.txt"), None)
    assert not Changes.of(rows, words, STAGES, store).again and add_videos(store, words) == rows
    (tmp_path / "elsewhere").rename(film)
    assert not Changes.of(rows, own_videos(str(tmp_path / "list.txt"), None), STAGES, store).again
    assert [row.stamp for row in rows if row.url.startswith("https")] == [""], "nobody asks a web site"


def test_a_file_that_was_never_there_is_fetched_once_it_is(store, film, tmp_path):
    (tmp_path / "list.txt").write_text("films/late.mp4\n")
    (row,) = add_videos(store, own_videos(str(tmp_path / "list.txt"), None))
    film.rename(film.with_name("late.mp4"))
    assert Changes.of([row], own_videos(str(tmp_path / "list.txt"), None), STAGES, store).again["fetch"] == {row.id}


def test_files_that_are_not_there_are_told_beforehand_and_refused_where_they_are_all_there_is(film, tmp_path, capsys):
    listed = film.with_name("list.txt")

    def dry(text: str) -> int:
        listed.write_text(text)
        return main(["run", "sample", "--manifest", str(listed), "--store", str(tmp_path / "out"), "--dry"])

    assert dry("b.mp4\nc.mp4\n") == 2
    assert capsys.readouterr().err == (
        f"error: 2 of 2 files are not there, first: {film.with_name('b.mp4')}; relative paths start at the folder of "
        f"{listed}; a .txt holds one path or address a line, columns belong in a .csv\n"
    )
    for there in ("a.mp4\nb.mp4\n", "a.mp4\nb.mp4\nhttps://h.invalid/c.mp4\n"):
        assert dry(there) == 0
        assert f"1 of 2 files are not there, first: {film.with_name('b.mp4')}; " in capsys.readouterr().out
    assert dry("a.mp4\n") == 0 and "not there" not in capsys.readouterr().out
    assert dry("b.mp4\nhttps://h.invalid/c.mp4\n") == 0


def test_files_that_went_after_they_were_fetched_are_no_matter(store, film):
    (row,) = own_videos(str(film), None)
    lost = [replace(row, stamp=MISSING)]
    assert list(missing_files(lost, due=(), manifest="list.csv")) == []
    with pytest.raises(ValueError, match=r"1 of 1 files are not there, first: .*; relative paths .* of list\.csv$"):
        list(missing_files(lost, due={row.id}, manifest="list.csv"))


def test_a_row_of_before_there_were_stamps_takes_one_and_is_not_due_again(store, film):
    words = own_videos(str(film), None)
    rows = add_videos(store, [replace(word, stamp="") for word in words])
    assert not Changes.of(rows, words, STAGES, store).again and add_videos(store, words) == words


def under(rule):
    return build("own", overrides=[f"fetch.licence={rule}"]).stages()


def settled_at_fetch(store, stages, **statuses):
    """Videos of these names that ended so, with a blob each."""
    rows = [Video.of(f"http://h.invalid/{name}.mp4", licence="?", licence_rule="cc") for name in statuses]
    key = keys(stages, Video)["fetch"]
    for row, status in zip(rows, statuses.values(), strict=True):
        Ledger(store).write(key, row.id, Outcome(status=status))
        store.put(f"blobs/{key}/{row.id[:2]}/{row.id}/source", b"x")
    return rows


def due_at_fetch(store, stages, rows, changes=None):
    given = {} if changes is None else {"again": changes.again, "if_rejected": changes.rejected}
    entering = plan(stages, rows, store, **given)[0].enter
    return [row for row in rows if row.id in entering]


@pytest.mark.parametrize(
    ("rule", "change", "expected"),
    [
        ("cc", {"licence": "CC BY 4.0"}, ["rejected"]),
        ("cc", {"licence": "All rights reserved"}, ["ok", "rejected"]),
        ("any", {"licence": "CC BY 4.0"}, []),
        ("per_language", {"licence_rule": "any"}, ["rejected"]),
        ("per_language", {"licence_rule": "cc"}, []),
    ],
)
def test_a_licence_or_a_rule_that_is_corrected_is_asked_anew_where_it_decides(rule, change, expected, store):
    stages = under(rule)
    before = settled_at_fetch(store, stages, ok="ok", rejected="rejected")
    after = [replace(row, **change) for row in before]
    changes = Changes.of(before, after, stages, store)
    wanted = [row for row, name in zip(after, ("ok", "rejected"), strict=True) if name in expected]
    assert due_at_fetch(store, stages, after, changes) == wanted and due_at_fetch(store, stages, after) == []
    assert bool(changes.lines) == bool(wanted)
    changes.take_back(store)
    assert due_at_fetch(store, stages, after) == wanted
    assert len(store.list("blobs")) == 2 - ("ok" in expected) - (expected == ["ok", "rejected"])


def test_videos_of_a_rule_that_became_stricter_are_measured_anew_from_their_pages_on(store):
    stages = under("per_language")
    before = [replace(row, licence_rule="any") for row in settled_at_fetch(store, stages, ok="ok", rejected="rejected")]
    changes = Changes.of(before, [replace(row, licence_rule="cc") for row in before], stages, store)
    assert changes.again == {name: {row.id for row in before} for name in EVERY}


@pytest.mark.parametrize("url", ["/films/a.mp4", "s3://bucket/a.mp4"])
def test_a_stricter_rule_is_no_matter_to_what_comes_from_no_page(url, store):
    video = Video.of(url, licence_rule="any")
    pass_all(store, video)
    changes = Changes.of([video], [replace(video, licence_rule="cc")], under("per_language"), store)
    assert not changes.again


@pytest.mark.parametrize(
    ("rule", "before", "after", "left"),
    [
        ("per_language", {"licence_rule": "any"}, {"licence_rule": "cc"}, {"page"}),
        ("per_language", {"licence_rule": "any", "licence": "CC0"}, {"licence_rule": "cc"}, {"page", "row"}),
        ("cc", {"licence": "CC0"}, {"licence": "All rights reserved"}, {"page"}),
    ],
)
def test_what_is_free_by_its_page_or_else_its_row_is_not_fetched_again(rule, before, after, left, store):
    stages = under(rule)
    stated = {"page": "Creative Commons Attribution license (reuse allowed)", "row": "", "none": "Standard licence"}
    rows = [replace(row, **before) for row in settled_at_fetch(store, stages, **dict.fromkeys(stated, "ok"))]
    for row, licence in zip(rows, stated.values(), strict=True):
        Ledger(store).write(keys(stages, Video)["fetch"], row.id, Outcome(status="ok", body={"licence": licence}))
    words = [replace(row, **after) for row in rows]
    changes = Changes.of(rows, words, stages, store)
    changes.take_back(store)
    wanted = [word for word, name in zip(words, stated, strict=True) if name not in left]
    assert due_at_fetch(store, stages, words) == wanted and len(store.list("blobs")) == len(left)


@pytest.fixture
def own(store, tmp_path):
    """A run over a list of two files that are gone, which nothing is due for, and what it printed."""
    listed = tmp_path / "list.csv"
    listed.write_text("url,language\na.mp4,de\nb.mp4,en\n")
    for video in own_videos(str(listed), None):
        Ledger(store).write(NAMES["fetch"], video.id, GONE)
    return lambda *more: main(["run", "sample", "--manifest", str(listed), "--store", store.url, *more])


def test_forgotten_videos_stay_out_of_the_list_and_the_run_and_show_say_so(own, store, tmp_path, capsys):
    assert own() == 0 and "left out" not in capsys.readouterr().out
    (video,) = (one for one in read_videos(store) if one.url.endswith("a.mp4"))
    assert main(["forget", f"video:{video.id}", "--store", store.url]) == 0
    capsys.readouterr()
    assert own() == 0
    assert "videos of the manifest left out, as they were forgotten: 1\n" in capsys.readouterr().out
    assert [one.url for one in read_videos(store)] == [str(tmp_path / "b.mp4")]
    assert main(["show", video.id[:8], "--store", store.url]) == 2
    assert f"{video.id} was forgotten: nothing is kept" in capsys.readouterr().err


def test_rows_that_left_the_manifest_are_said_to_stay(own, tmp_path, capsys):
    assert own() == 0 and own("--langs", "de", "--dry") == 0
    assert "in no row of" not in capsys.readouterr().out, "those of another language are rows all the same"
    (tmp_path / "list.csv").write_text("url,language\na.mp4,de\n")
    assert own() == 0
    said = capsys.readouterr().out
    assert f"videos of this store in no row of {tmp_path / 'list.csv'}, which stay in the set" in said
    assert "(`forget` takes them out, with --alone where times were corrected): 1\n" in said


def test_a_run_says_which_settings_of_judge_and_shard_it_replaces(own, store, capsys):
    assert own() == 0 and "other settings" not in capsys.readouterr().out
    assert main(["judge", "--set", "policy.max_offset_frames=9", "--store", store.url]) == 0
    assert main(["shard", "--bytes", "500", "--store", store.url]) == 0
    capsys.readouterr()
    assert own() == 0
    said = "in force in this store: policy.max_offset_frames=default (was 9), shard_bytes=default (was 500)"
    assert said in capsys.readouterr().out
    assert own() == 0 and "other settings" not in capsys.readouterr().out


def test_the_results_hold_what_another_run_on_the_store_added_meanwhile(own, store, monkeypatch):
    theirs = Video.of("theirs.mp4")
    monkeypatch.setattr(running, "_carry", lambda *_: add_videos(store, [theirs]))
    assert own() == 0
    assert theirs.id in {*pd.read_parquet(store.at("videos.parquet")).video} and len(read_videos(store)) == 3


def test_a_run_takes_back_what_its_manifest_says_otherwise_and_a_dry_one_does_not(own, store, tmp_path, capsys):
    videos = own_videos(str(tmp_path / "list.csv"), None)
    pass_all(store, *videos)
    (tmp_path / "list.csv").write_text("url,language\na.mp4,pl\nb.mp4,en\n")
    assert own("--dry") == 0 and not due(store, videos)
    assert "videos now expected in another language" in capsys.readouterr().out
    assert own("--until", "fetch") == 0
    assert due(store, videos) == {"speech": (videos[0].id,)}
    assert {video.language for video in read_videos(store)} == {"pl", "en"}


def test_a_run_that_is_killed_while_it_takes_back_finds_the_same_rows_changed_again(
    own, store, tmp_path, monkeypatch, capsys
):
    def killed(*_):
        raise KeyboardInterrupt

    pass_all(store, *own_videos(str(tmp_path / "list.csv"), None))
    (tmp_path / "list.csv").write_text("url,language\na.mp4,pl\nb.mp4,en\n")
    with monkeypatch.context() as cut:
        cut.setattr(Changes, "take_back", killed)
        assert own("--until", "fetch") == 130
    capsys.readouterr()
    assert own("--dry") == 0 and "videos now expected in another language" in capsys.readouterr().out
