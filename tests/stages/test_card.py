"""The card beside the shards tells what is in them, the sums hold for every file, and both are of this very set."""

import dataclasses
import functools
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from manifests import parquet
from manifests.store import Store
from stages import shard as sharding
from stages.card import Maker
from stages.catalogue import CLIPS, write_catalogue
from stages.judge import judge
from stages.policies import PAPER
from stages.shard import shard
from stages.shard_index import CARD, INDEX, SUMS, read_index, write_index
from stages.verify import verify
from tests.stages.measured import identity, measured, source, speech, stored_clip, sync

POLICY = dataclasses.replace(PAPER, name="paper+min_duration_s=None", min_duration_s=None)
MAKER = Maker(policy=POLICY, detector="faces 0123456789ab", notes=("Made of grey *squares*.",))
HUB = {"pretty_name", "license", "license_name", "license_details", "language", "task_categories", "size_categories",
       "tags", "configs"}  # fmt: skip
"""Of the keys of a card's head that huggingface/hub-docs lists (datasetcard.md), those that are used."""


def videos_in(store):
    """Six of two languages, two licences and none, of four channels and none; one clip in twelve is dropped."""
    videos, blobs = six_videos()
    for path, data in blobs.items():
        store.put(path, data, is_synced=False)
    return list(videos)


@functools.cache
def six_videos():
    """The videos, and by their paths the files of their clips."""
    here, found = Store("memory://six-videos"), []
    for n in range(6):
        name, language = f"v{n}", "no" if n % 3 == 0 else "de"
        clips = tuple(
            stored_clip(here, name, c, n_frames=20 + n, seed=3 * n + c, start_s=2.0 * c, face_px=150.0 + 10 * n + c)
            for c in range(2)
        )
        confidences = [1.0 if (n, c) == (1, 1) else 4.0 + n + c / 4 for c in range(2)]
        one = measured(
            name, clips=clips, language=language, channel=f"channel {n % 4}" if n < 5 else "",
            syncs=tuple(sync(one.key, confidence=read) for one, read in zip(clips, confidences, strict=True)),
            speeches=tuple(speech(one.key, language=language) for one in clips),
            identities=tuple(identity(one.key, person=n) for one in clips),
        )  # fmt: skip
        stated = source(licence=("", "CC BY 4.0", "CC BY 4.0", "CC BY 4.0", "mine | \n yours", "CC BY 4.0")[n])
        found.append(dataclasses.replace(one, video=dataclasses.replace(one.video, licence=""), source=stated))
    return tuple(found), {path: here.get(path) for path in here.list("blobs")}


def write(store, videos=None, maker=MAKER, **options):
    videos = videos_in(store) if videos is None else videos
    return shard(store, videos, judge(videos, maker.policy if maker else POLICY), maker=maker, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("store")))
    videos = videos_in(store)
    verdicts = judge(videos, POLICY)
    shard(store, videos, verdicts, maker=MAKER)
    write_catalogue(store, videos, verdicts, POLICY)
    clips = pd.read_parquet(store.local / CLIPS)
    assert len(clips) == 12 and clips.kept.sum() == 11
    return store, clips[clips.kept]


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path))
    write(store)
    return store


def card(store):
    """The head, as YAML has it, and the text."""
    _, head, text = store.get(CARD).decode().split("---\n", 2)
    return yaml.safe_load(head), text


def table(text, first):
    """The rows of the table whose heading begins so, by their first cell."""
    lines = text[text.index(f"| {first} |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in rows}


def summed(store):
    """What coreutils says of the folder: nothing wrong is an empty text."""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"],
        cwd=store.local / "shards", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode == 0) == (not done.stdout + done.stderr)
    return done.stdout + done.stderr


def names(store):
    return {line.split("  ")[1] for line in store.get(SUMS).decode().splitlines()}


def times(store, suffix=""):
    return {p: (store.local / p).stat().st_mtime_ns for p in store.list("shards") if p.endswith(suffix)}


def numbers(of):
    hours = f"{of.n_frames.sum() / 25 / 3600:.3f}"
    return [hours, str(len(of)), str(of.person.nunique()), str(of.video.nunique())]


def test_its_figures_are_those_of_the_table_of_clips(made):
    store, clips = made
    _, text = card(store)
    assert clips.split.nunique() > 1
    for split, row in table(text, "split").items():
        n_tars = len(list((store.local / "shards").glob("*.tar" if split == "all" else f"{split}-*.tar")))
        assert row == [*numbers(clips if split == "all" else clips[clips.split == split]), str(n_tars)]
    assert set(table(text, "split")) == {*clips.split, "all"}
    assert table(text, "language") == {
        name: [code, *numbers(clips[clips.language == code])] for name, code in (("German", "de"), ("Norwegian", "no"))
    }
    seconds = clips.n_frames / 25
    read = {"sync confidence": clips.sync_confidence, "face, pixels of the source": clips.face_px}
    assert table(text, "measure") == {
        name: [str(len(values)), *(f"{values.quantile(q):.4g}" for q in (0.05, 0.5, 0.95))]
        for name, values in {**read, "duration, seconds": seconds}.items()
    }
    licence = clips.licence.fillna("unknown").replace("", "unknown").str.split().str.join(" ")
    assert {name.replace("\\", ""): row for name, row in table(text, "licence").items()} == {
        name: [str(len(of)), numbers(of)[0], str(of.video.nunique())]
        for name, of in ((name, clips[licence == name]) for name in set(licence))
    }
    n_channels = clips.channel.replace("", np.nan).nunique()
    assert f"{clips.video.nunique()} videos of {n_channels} known channels (1 of no known channel)." in text
    for column in ("sync_model", "identity_model", "speech_model"):
        assert all(f": {model}\n" in text for model in clips[column])
    assert "faces and landmarks: faces 0123456789ab\n" in text and "> Made of grey \\*squares\\*." in text


def test_its_head_is_what_the_hub_reads(made):
    store, clips = made
    head, _ = card(store)
    assert set(head) == HUB and head["license"] == "other" and head["size_categories"] == ["n<1K"]
    assert head["language"] == ["de", "no"], "the code of Norwegian is no boolean"
    ((config,),) = (head["configs"],)
    found = {one["split"]: sorted((store.local / "shards").glob(one["path"])) for one in config["data_files"]}
    assert set(found) == {"validation" if split == "val" else split for split in set(clips.split)}
    assert sorted(path.name for paths in found.values() for path in paths) == sorted(read_index(store).shards)


def test_it_names_every_limit_in_force_and_what_was_changed(made):
    store, _ = made
    limits = table(card(store)[1], "limit")
    fields = {f"`{f.name}`" for f in dataclasses.fields(POLICY)} - {"`name`", "`by_language`"}
    assert set(limits) == fields | {f"`{one.limit}.{one.language}`" for one in POLICY.by_language}
    read = ("min_duration_s", "max_offset_frames", "one_speaker", "max_distance", "min_confidence", "min_confidence.zh")
    said = ["none (changed from 3)", "1", "yes", "none", "3", "2"]
    assert [limits[f"`{name}`"][0] for name in read] == said


def test_its_loop_reads_the_training_clips(made, monkeypatch, capsys):
    store, clips = made
    (loop,) = re.findall(r"```python\n(.*?)```", card(store)[1], re.S)
    monkeypatch.chdir(store.local / "shards")
    exec(loop, {})
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(clips[clips.split == "train"].key)


def test_it_sends_readers_to_a_section_that_there_is(made):
    ((page, section),) = re.findall(r'The project\'s `(\S+)`, section "(.+?)"', card(made[0])[1])
    assert f"\n## {section}\n" in (Path(sharding.__file__).parents[1] / page).read_text()


def test_sha256sum_finds_every_file_as_it_was_written(made):
    store, _ = made
    assert summed(store) == "" and verify(store).problems == []
    assert names(store) | {"SHA256SUMS"} == {path.name for path in (store.local / "shards").iterdir()}


@pytest.mark.parametrize("kind", ["disk", "memory", "s3"])
def test_equal_sets_have_equal_cards_wherever_they_lie_and_a_second_call_writes_nothing(
    made, kind, tmp_path, request, monkeypatch
):
    places = {"disk": lambda: str(tmp_path), "memory": lambda: f"memory://{tmp_path.name}-card"}
    other = Store(places.get(kind, lambda: f"{request.getfixturevalue('bucket')}/card")())
    videos = videos_in(other)[::-1]
    write(other, videos, workers=1)
    assert {path: other.get(path) for path in (CARD, SUMS)} == {path: made[0].get(path) for path in (CARD, SUMS)}
    written = []
    monkeypatch.setattr(Store, "put", lambda _, path, *given: written.append(path))
    monkeypatch.setattr(Store, "delete", lambda _, path: written.append(path))
    write(other, videos)
    assert written == []


def test_a_changed_policy_is_told_though_it_keeps_the_same_clips(store):
    before, tars = store.get(CARD), times(store, ".tar")
    videos = videos_in(store)
    looser = dataclasses.replace(MAKER, policy=dataclasses.replace(POLICY, max_yaw_deg=50.0))  # the name was given
    write(store, videos, looser)
    assert times(store, ".tar") == tars and store.get(CARD) != before and summed(store) == ""
    assert table(card(store)[1], "limit")["`max_yaw_deg`"] == ["50 (changed from 45)"]
    write(store, videos, Maker(policy=dataclasses.replace(PAPER, min_duration_s=0.5), detector=""))
    assert "**paper**" in card(store)[1] and summed(store) == "" and verify(store).ok


def test_an_exception_that_a_limit_for_all_took_back_is_told_as_changed(store):
    """`--set policy.min_confidence=5` takes back what the policy says of Mandarin."""
    stricter = dataclasses.replace(POLICY, min_confidence=5.0, by_language=())
    write(store, videos_in(store), dataclasses.replace(MAKER, policy=stricter))
    limits = table(card(store)[1], "limit")
    assert limits["`min_confidence`"] == ["5 (changed from 3)"]
    assert limits["`min_confidence.zh`"] == ["5 (changed from 2)"]


def test_a_set_without_clips_has_a_card_that_says_so(store):
    write(store, maker=Maker(policy=dataclasses.replace(POLICY, min_confidence=99.0), detector="faces"))
    head, text = card(store)
    assert set(head) == HUB - {"language", "configs"} and "kept no clip" in text
    assert names(store) == {"README.md", "index.parquet"} and summed(store) == "" and verify(store).ok


def test_sums_that_say_something_else_than_the_index_are_found(store):
    lines = store.get(SUMS).decode().splitlines()
    tar = next(line for line in lines if line.endswith(".tar"))
    name, zeros = tar[66:], "0" * 64
    wrong, lacks, no_file = "SHA256SUMS has another digest of it", "SHA256SUMS lacks it", f"{zeros}  x.tar"
    for changed, said in (
        ([*lines, tar], []),
        ([tar.replace("  ", " *") if line == tar else line for line in lines], []),
        ([f"{zeros}  {name}" if line == tar else line for line in lines], [(name, wrong)]),
        ([*lines, f"{zeros}  {name}"], [(name, wrong)]),
        ([line for line in lines if line != tar], [(name, lacks)]),
        ([*lines, no_file], [("x.tar", "SHA256SUMS names it, but it is no file of this set")]),
        ([], [(line[66:], lacks) for line in lines]),
    ):
        store.put(SUMS, "".join(f"{line}\n" for line in changed).encode())
        assert [(one.shard, one.what) for one in verify(store).problems] == said


@pytest.mark.parametrize("path", [CARD, INDEX])
def test_a_card_or_an_index_that_was_written_anew_is_found(store, path):
    other = parquet.write(parquet.read(store.get(INDEX)).append_column("mine", [[1] * 11]))
    store.put(path, store.get(CARD) + b"more" if path == CARD else other)
    wrong = [(path.removeprefix("shards/"), "SHA256SUMS has another digest of it")]
    assert summed(store) and [(one.shard, one.what) for one in verify(store).problems] == wrong


def test_a_tar_with_other_bytes_after_its_last_clip_is_found(store):
    tar = store.local / "shards" / read_index(store).shards[0]
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    said = ["its SHA-256 is not that of the index, though its clips are"]
    assert tar.name in summed(store) and [one.what for one in verify(store).problems] == said


def old(store):
    """As before there were cards: an index without digests of shards."""
    table = parquet.read(store.get(INDEX)).drop_columns(["shard_sha256"])
    for path in (CARD, SUMS):
        store.delete(path)
    store.put(INDEX, parquet.write(table))


def test_a_set_of_before_there_were_cards_is_whole_and_gets_one_with_the_next_writing(store):
    new, tars = {path: store.get(path) for path in (INDEX, CARD, SUMS)}, times(store, ".tar")
    old(store)
    assert verify(store).ok and read_index(store).rows and not read_index(store).is_summed
    assert len(write(store).found) == len(tars)
    assert {path: store.get(path) for path in new} == new and times(store, ".tar") == tars and summed(store) == ""


def test_after_a_crash_between_index_and_card_the_set_is_whole_without_one_and_gets_it_by_the_next_call(
    tmp_path, monkeypatch
):
    store = Store(str(tmp_path))
    write(store)
    wanted, tars = {path: store.get(path) for path in (CARD, SUMS)}, times(store, ".tar")

    def dies(*_):
        raise KeyboardInterrupt

    for last in ("write_card", "drop_stale"):
        write(store, maker=Maker(policy=dataclasses.replace(POLICY, min_confidence=5.0), detector=""))
        monkeypatch.setattr(sharding, last, dies)
        with pytest.raises(KeyboardInterrupt):
            write(store)
        assert not store.exists(CARD) and not store.exists(SUMS)
        assert len(read_index(store).rows) == 11
        monkeypatch.undo()
        write(store)
        assert {path: store.get(path) for path in wanted} == wanted and summed(store) == "" and verify(store).ok
    assert set(times(store, ".tar")) == set(tars)


def test_until_the_new_set_stands_the_card_is_of_the_old_one(store, monkeypatch):
    before = store.get(CARD)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sharding, "write_index", dies)
    with pytest.raises(KeyboardInterrupt):
        write(store, maker=Maker(policy=dataclasses.replace(POLICY, min_confidence=5.0), detector=""))
    assert store.get(CARD) == before and summed(store) == ""


def test_of_two_commands_that_end_at_once_none_leaves_its_card_beside_the_index_of_the_other(store, monkeypatch):
    videos, put = videos_in(store), Store.put
    theirs = read_index(store)

    def the_other_ends_meanwhile(store, path, data, **options):
        put(store, path, data, **options)
        if path == CARD:
            monkeypatch.setattr(Store, "put", put)
            write_index(store, theirs)

    monkeypatch.setattr(Store, "put", the_other_ends_meanwhile)
    write(store, videos, Maker(policy=dataclasses.replace(POLICY, min_confidence=5.0), detector=""))
    assert read_index(store) == theirs and not store.exists(CARD) and not store.exists(SUMS)


def test_of_an_index_that_is_another_s_no_card_is_written(store, monkeypatch):
    theirs, written = read_index(store), sharding.drop_stale

    def the_other_ends_first(store, index):
        write_index(store, theirs)
        return written(store, index)

    monkeypatch.setattr(sharding, "drop_stale", the_other_ends_first)
    write(store, maker=Maker(policy=dataclasses.replace(POLICY, min_confidence=5.0), detector=""))
    assert read_index(store) == theirs and not store.exists(CARD) and not store.exists(SUMS)


def test_who_does_not_say_how_a_set_was_made_leaves_sums_alone(tmp_path):
    store = Store(str(tmp_path))
    write(store, maker=None)
    assert not store.exists(CARD) and summed(store) == "" and verify(store).ok


def test_what_strangers_wrote_is_no_markdown_and_a_long_list_of_licences_is_cut(tmp_path):
    store = Store(str(tmp_path))
    found = []
    for n, one in enumerate(videos_in(store) * 4):
        clips = tuple(dataclasses.replace(clip, key=f"w{n}-{clip.number:04d}") for clip in one.clips.items)
        licence = f"![x](http://x) <b> {n} " + "long " * 100
        found.append(
            measured(
                f"w{n}", clips=clips, syncs=tuple(sync(clip.key) for clip in clips),
                speeches=tuple(speech(clip.key) for clip in clips), person=n,
                identities=tuple(identity(clip.key, person=n) for clip in clips),
            )
        )  # fmt: skip
        found[-1] = dataclasses.replace(found[-1], source=source(licence=licence))
    write(store, found)
    rows = table(card(store)[1], "licence")
    assert len(rows) == 21 and rows["4 others"] == ["8", f"{8 * 23.5 / 90000:.3f}", "4"]
    assert sum(int(row[0]) for row in rows.values()) == 48
    assert all(
        name.startswith("!\\[x\\](http://x) \\<b\\> ") and len(name) < 140 for name in rows if "others" not in name
    )
