"""The README's main command, run as a person does, and what it leaves behind. One run serves all tests here."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import webdataset

from tests.command import ROOT, Said, pipeline

pytestmark = pytest.mark.timeout(3600)

GOLDEN = Path(__file__).parents[1] / "golden"
"""`score.json` holds what the sample run has reached; it is written anew when it reaches more."""


@pytest.fixture(scope="session")
def first(tmp_path_factory) -> tuple[Path, Said]:
    store = tmp_path_factory.mktemp("sample") / "out"
    return store, pipeline("run", "--langs", "10", "--store", store, timeout_s=3400)


@pytest.fixture
def store(first) -> Path:
    place, said = first
    assert said.code == 0, said.out + said.err
    return place


@pytest.fixture
def copied(store, tmp_path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "out"))


def ledger(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in (store / "ledger").rglob("*.json")}


def digests(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / "shards").iterdir())}


def test_the_run_ends_with_the_funnel_the_score_the_paths_and_the_next_commands(first, store):
    out = first[1].out
    for words in (
        "By stage",
        "By language",
        "By reason",
        "Score against the truth",
        "shards",
        "clips.parquet",
        "report.html",
    ):
        assert words in out
    assert "python -m mcdm train --shards" in out and "python -m pipeline run wild --langs 10 --hours 0.5" in out


def test_the_funnel_that_the_readme_shows_is_that_of_the_run(first, store):
    (shown,) = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    said = [line.split() for line in first[1].out.splitlines()]
    for row in shown.splitlines():
        numbers = row.split()[:7]  # why most were lost is cut off where a terminal is narrow
        assert any(line[: len(numbers)] == numbers for line in said), row


def test_every_video_of_the_corpus_ends_in_a_typed_outcome(store):
    videos = pd.read_parquet(store / "videos.parquet")
    assert len(videos) >= 30 and set(videos.language_expected.str[:2]) >= {
        "en",
        "de",
        "zh",
        "fr",
        "hr",
        "ru",
        "pl",
        "es",
        "ar",
        "th",
    }
    assert not list((store / "ledger").glob("*/failed/*/*.json")) and not list(
        (store / "ledger").glob("*/quarantined/*/*")
    )


@pytest.mark.parametrize("measure", sorted(json.loads((GOLDEN / "score.json").read_text())))
def test_the_score_does_not_fall_behind_what_was_reached_before(store, measure):
    reached = json.loads((GOLDEN / "score.json").read_text())[measure]
    score = json.loads((store / "score.json").read_text())[measure]
    # Sums of floats differ between processors: two points of a hundred are not a regression.
    assert score <= reached + 0.02 if measure == "word_error_rate" else score >= reached - 0.02


def test_every_planted_flaw_is_caught(store):
    flaws = json.loads((store / "score.json").read_text())["flaws"]
    assert len(flaws) >= 15 and sum(flaw["planted"] for flaw in flaws.values()) >= 21
    assert {name: flaw["cases"] for name, flaw in flaws.items() if flaw["caught"] != flaw["planted"]} == {}


def test_a_second_run_does_no_stage_work_and_does_not_import_ray(copied, tmp_path, monkeypatch):
    (tmp_path / "barred").mkdir()
    (tmp_path / "barred" / "ray.py").write_text("raise SystemExit('Ray is not wanted where nothing is due')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "barred"), prepend=os.pathsep)
    before, shards = ledger(copied), digests(copied)
    said = pipeline("run", "--langs", "10", "--store", copied)
    assert said.code == 0 and "nothing to do: all" in said.out
    assert ledger(copied) == before and digests(copied) == shards


def test_a_dry_run_says_what_is_due_and_leaves_nothing(tmp_path):
    said = pipeline("run", "--langs", "2", "--dry", "--store", tmp_path / "out")
    assert said.code == 0 and re.search(r"fetch +[1-9]", said.out) and not (tmp_path / "out").exists()


def test_a_changed_parameter_makes_only_that_stage_and_what_follows_due(copied):
    said = pipeline("run", "--langs", "10", "--store", copied, "--dry", "--set", "sync.reach=12")
    due = {name: int(count) for name, count in re.findall(r"^ *(\w+) +(\d+)", said.out, re.M)}
    assert due["fetch"] == due["watch"] == due["clip"] == 0 and due["sync"] > 0


def test_webdataset_reads_the_shards_and_decodes_the_clips(store):
    import av

    index = pd.read_parquet(store / "shards" / "index.parquet")
    tars = [str(path) for path in sorted((store / "shards").glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode())
    assert len(samples) == len(index) > 0 and {s["__key__"] for s in samples} == set(index.key)
    for sample in samples:
        about = sample["json"]
        with av.open(io.BytesIO(sample["mp4"])) as container:
            frames = sum(1 for _ in container.decode(video=0))
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.average_rate) == (512, 512, 25)
        assert (
            frames == about["n_frames"] == len(sample["box.npy"]) == len(sample["lmk.npy"]) == len(sample["pose.npy"])
        )
        assert len(sample["wav"]) == 44 + 2 * 640 * frames and np.isfinite(sample["box.npy"]).all()
        assert about["licence"] and about["language"] and "." not in sample["__key__"]


def test_the_loop_of_the_readme_reads_every_clip_of_the_training_shards(store, monkeypatch, capsys):
    (loop,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(store.parent)
    assert store.name == "out"
    exec(loop, {})
    index = pd.read_parquet(store / "shards" / "index.parquet")
    train = index[index.split == "train"]
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(train.key) and len(train)


def test_tar_alone_reads_the_shards(store):
    for path in (store / "shards").glob("*.tar"):
        listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.split()
        with tarfile.open(path) as tar:
            assert listed == tar.getnames() and listed


def test_a_video_is_never_split_over_shards(store):
    index = pd.read_parquet(store / "shards" / "index.parquet")
    assert (index.assign(video=index.key.str.split("-").str[0]).groupby("video").shard.nunique() == 1).all()


def test_verify_finds_nothing_wrong_and_a_flipped_byte(store, copied):
    assert pipeline("verify", "--store", store).code == 0
    victim = sorted((copied / "shards").glob("*.tar"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    said = pipeline("verify", "--store", copied)
    assert said.code == 1 and victim.name in said.out


def test_judge_applies_new_thresholds_without_stage_work(copied):
    before = ledger(copied)
    said = pipeline("judge", "--store", copied, "--set", "policy.min_duration_s=1000")
    assert said.code == 0 and "0 now" in said.out and ledger(copied) == before
    assert not list((copied / "shards").glob("*.tar"))
    dropped = pd.read_parquet(copied / "clips.parquet")
    assert (dropped.first_broken_rule == "too_short").all() and (dropped.receipts.str.len() > 0).all()


def test_every_dropped_clip_has_a_receipt(store):
    clips = pd.read_parquet(store / "clips.parquet")
    dropped = clips[~clips.kept]
    assert len(dropped) and dropped.receipts.map(len).min() >= 1 and dropped.first_broken_rule.notna().all()
    assert clips[clips.kept].first_broken_rule.isna().all()


def test_show_tells_everything_about_one_video(store):
    clips = pd.read_parquet(store / "clips.parquet")
    key = clips[~clips.kept].key.iloc[0]
    said = pipeline("show", key, "--store", store)
    assert said.code == 0 and f"{key}: dropped" in said.out and "limit" in said.out
    for stage in ("fetch: ok", "watch: ok", "clip: ok", "sync: ok", "speech: ok", "identity: ok"):
        assert stage in said.out


def test_forget_takes_a_video_out_for_good(copied):
    key = pd.read_parquet(copied / "shards" / "index.parquet").key.iloc[0]
    video = key.split("-")[0]
    assert pipeline("forget", f"video:{video}", "--store", copied).code == 0
    left = [
        path for path in copied.rglob("*") if path.is_file() and video in str(path) and "tombstones" not in str(path)
    ]
    assert not left
    assert pipeline("verify", "--store", copied).code == 0
    said = pipeline("run", "--langs", "10", "--store", copied)
    assert said.code == 0 and "nothing to do" in said.out
    assert video not in set(pd.read_parquet(copied / "clips.parquet").video)


def test_the_report_is_one_page_that_needs_nothing_else(store):
    page = (store / "report.html").read_text()
    assert "<svg" in page and "data:image/jpeg;base64," in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_the_contact_sheet_shows_every_kept_clip(store, tmp_path):
    from PIL import Image

    said = pipeline("report", "--store", store, "--sheet", tmp_path / "kept.png")
    assert said.code == 0, said.err
    kept = int(pd.read_parquet(store / "clips.parquet").kept.sum())
    assert Image.open(tmp_path / "kept.png").height == -(-kept // 4) * (128 + 14 + 6) + 6


def test_report_says_the_same_again(copied):
    page = (copied / "report.html").read_text()
    said = pipeline("report", "--store", copied)
    assert said.code == 0 and "By language" in said.out and (copied / "report.html").read_text() == page


def test_the_score_can_be_had_again(copied):
    before = json.loads((copied / "score.json").read_text())
    said = pipeline("score", "--store", copied)
    assert said.code == 0 and "Score against the truth" in said.out
    assert json.loads((copied / "score.json").read_text()) == before


def test_calibrate_says_what_the_sync_limit_costs_and_how_to_change_it(copied):
    said = pipeline("calibrate", "--store", copied)
    assert said.code == 0 and "Sync by language" in said.out and "too few clips" in said.out
    wrong = pipeline("calibrate", "--wrong", "2", "--store", copied)
    assert (wrong.code, wrong.err) == (2, "error: calibrate: 2 is no share between 0 and 1\n")


def test_shard_writes_shards_of_another_size(copied):
    before = len(list((copied / "shards").glob("train-*.tar")))
    assert pipeline("shard", "--bytes", "1000000", "--store", copied).code == 0
    assert len(list((copied / "shards").glob("train-*.tar"))) > before
    assert pipeline("verify", "--store", copied).code == 0


def test_models_lists_what_is_here():
    said = pipeline("models", "list")
    assert said.code == 0 and all(name in said.out for name in ("sample/sync", "syncnet_v2", "buffalo_l", "large-v3"))
    assert pipeline("models", "check", "sample/sync").code == 0
