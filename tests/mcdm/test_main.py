"""The command line: fast help, one line and code 2 for what the user can mend."""

import subprocess
import sys
import time

import pytest
import torch

from mcdm.__main__ import main, stages_of
from mcdm.config import override, tiny


def test_help_needs_no_torch():
    code = "import sys; from mcdm.__main__ import parser; parser(); assert 'torch' not in sys.modules"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--shards", "nowhere", "--out", "{tmp}/run", "--stages", "0-9"], "expected some of 0-3"),
        (["train", "--shards", "nowhere", "--out", "{tmp}/run"], "nowhere: no shards"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "unet.wings=2"], "no such setting"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "unet.strict=perhaps"], "expected bool"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "unet.strict=true"], "no gradient would reach"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--save-every", "0"], "--save-every 0: expected at least 1"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--held-out", "0"], "--held-out 0: expected at least 1"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--workers", "-1"], "--workers -1: expected at least 0"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--device", "tpu"], "expected auto, cpu or cuda"),
        (["train", "--shards", "x", "--out", "/dev/null", "--device", "cpu"], "/dev/null"),
        (["evaluate", "--shards", "x", "--run", "{tmp}", "--clips", "0"], "--clips 0: expected at least 1"),
        (["evaluate", "--shards", "x", "--run", "{tmp}", "--lanes", "0"], "--lanes 0: expected at least 1"),
        (["encode", "--shards", "nowhere"], "nowhere: no shards"),
        (
            ["generate", "--reference", "a.png", "--audio", "b.wav", "--out", "{tmp}/c.mp4", "--steps", "-1"],
            "--steps -1: expected at least 0",
        ),
        (
            ["generate", "--run", "{tmp}", "--reference", "a.png", "--audio", "b.wav", "--out", "{tmp}/c.mp4"],
            "no recipe.json",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_code_2(arguments, line, tmp_path, capsys):
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and "\n" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["train", "--shards", "x", "--out", str(tmp_path / "run"), "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "mcdm train: --device cuda: torch sees no GPU here\n"
    assert not (tmp_path / "run").exists()


def test_stages_are_read_as_ranges_and_lists():
    assert stages_of("0-3") == (0, 1, 2, 3)
    assert stages_of("1") == (1,)
    assert stages_of("0,2-3") == (0, 2, 3)


def test_settings_reach_into_groups_tuples_and_choices():
    recipe = override(tiny(), ["unet.channels=16,32", "plans.1.steps=7", "unet.memory_attention=favor"])
    assert recipe.unet.channels == (16, 32) and recipe.plans[1].steps == 7
    assert recipe.unet.memory_attention == "favor"
    with pytest.raises(ValueError, match="expected one of exact, favor, linear"):
        override(tiny(), ["unet.memory_attention=quick"])
