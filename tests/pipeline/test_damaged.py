"""What was damaged on the disk is had anew in the way that the command says."""

import pytest

from pipeline.cli import main
from stages.catalogue import CLIPS, VIDEOS, read_catalogue
from stages.shard_index import INDEX, tars
from tests.pipeline.test_unmeasured import made


def test_a_shard_that_verify_finds_damaged_is_written_anew_once_it_is_deleted(tmp_path, capsys):
    store = made(tmp_path / "out", 1)
    shard = store.local / "shards" / tars(store)[0]
    shard.write_bytes(shard.read_bytes()[:3000])
    assert main(["verify", "--store", store.url]) == 1
    way = f"delete them, and `python -m pipeline shard --store {store.url}` writes them anew"
    assert way in capsys.readouterr().out
    shard.unlink()
    assert main(["shard", "--store", store.url]) == 0
    assert main(["verify", "--store", store.url]) == 0
    assert way not in capsys.readouterr().out


@pytest.mark.parametrize(("table", "anew"), [(CLIPS, "judge"), (VIDEOS, "judge"), (INDEX, "shard")])
def test_a_table_that_is_damaged_is_named_with_the_command_that_writes_it_anew(table, anew, tmp_path, capsys):
    store = made(tmp_path / "out", 1)
    whole, wanted = store.get(table), "person:absent" if table == INDEX else "channel:absent"
    store.put(table, whole[:7])
    assert main(["forget", wanted, "--store", store.url]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {store.at(table)} is ") and f"`{anew}` writes it anew once it is deleted" in said
    store.delete(table)
    assert main([anew, "--store", store.url]) == 0
    assert store.get(table) == whole


@pytest.mark.parametrize("table", [CLIPS, VIDEOS])
def test_a_table_that_a_power_cut_left_empty_does_not_keep_a_video_from_being_forgotten(table, tmp_path):
    store = made(tmp_path / "out", 1)
    (row,) = read_catalogue(store, VIDEOS).to_pylist()
    store.put(table, b"")
    assert main(["forget", f"video:{row['video']}", "--store", store.url]) == 0
    assert not tars(store)
