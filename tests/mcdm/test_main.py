"""The command line: fast help, one line and code 2 for what the user can mend."""

import re
import subprocess
import sys
import time

import pytest
import torch
from s3fs import S3FileSystem

from mcdm.cli import main, stages_of
from mcdm.config import RECIPES, paper, small, tiny
from mcdm.diffusion import loss_weight, make_schedule
from pipeline.override import override

_TALK = ["--reference", "a.png", "--audio", "b.wav", "--out", "{tmp}/c.mp4"]


def test_help_needs_no_torch():
    code = "import sys; from mcdm.cli import parser; parser(); assert 'torch' not in sys.modules"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--shards", "nowhere", "--out", "{tmp}/run", "--stages", "0-9"], "expected some of 0-3"),
        (["train", "--shards", "nowhere", "--out", "{tmp}/run"], "nowhere: no shards"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "unet.wings=2"], "UNetConfig has no 'wings', only"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "unet.strict=perhaps"], "Expected `bool`"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "unet.strict=true"], "no gradient would reach"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--save-every", "0"], "--save-every 0: expected at least 1"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--held-out", "0"], "--held-out 0: expected at least 1"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--workers", "-1"], "--workers -1: expected at least 0"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--seed", "-1"], "--seed -1: expected 0 to 2147483647"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--seed", "1" + "0" * 20], "expected 0 to 2147483647"),
        (["generate", *_TALK, "--seed", "2147483648"], "--seed 2147483648: expected 0 to 2147483647"),
        (["evaluate", "--shards", "x", "--run", "{tmp}", "--seed", "-1"], "--seed -1: expected 0 to 2147483647"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "plans.0=3"], "plans.0=3: a group of settings;"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--set", "plans=3"], "plans=3: a group of settings;"),
        (["encode", "--shards", "x", "--cache", "off"], "--cache off: expected where to write"),
        (["encode", "--shards", "x", "--workers", "0"], "--workers 0: expected at least 1"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--device", "tpu"], "expected auto, cpu or cuda"),
        (["train", "--shards", "x", "--out", "/dev/null", "--device", "cpu"], "/dev/null"),
        (["evaluate", "--shards", "x", "--run", "{tmp}", "--clips", "0"], "--clips 0: expected at least 1"),
        (["evaluate", "--shards", "x", "--run", "{tmp}", "--lanes", "0"], "--lanes 0: expected at least 1"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--ray-workers", "2"], "--ray-workers 2: goes with --ray"),
        (["train", "--shards", "x", "--out", "{tmp}/run", "--fsdp"], "--fsdp: shares a model over processes"),
        (["encode", "--shards", "nowhere"], "nowhere: no shards"),
        (["generate", *_TALK, "--steps", "-1"], "--steps -1: expected at least 0"),
        (["generate", *_TALK, "--run", "{tmp}"], "no recipe.json"),
        *(
            (["evaluate", "--shards", "x", "--run", "{tmp}", "--name", name], f"--name {name!r}: expected the name of")
            for name in ("", "a/b", "..", "recipe", "held_out")
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_code_2(arguments, line, tmp_path, capsys):
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and "\n" not in said


@pytest.mark.parametrize(("key", "says"), [("", "credentials"), ("mine", "Could not connect")])
@pytest.mark.parametrize("command", ["train --out {tmp}/run", "encode"])
def test_a_bucket_that_gives_nothing_is_told_in_one_line(command, key, says, tmp_path, monkeypatch, capsys):
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
        if key and name != "AWS_PROFILE":
            monkeypatch.setenv(name, key)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    S3FileSystem.clear_instance_cache()  # fsspec keeps one per place, with the credentials that it met
    assert main([*command.format(tmp=tmp_path).split(), "--shards", "s3://nobodys-bucket/set"]) == 2
    S3FileSystem.clear_instance_cache()
    said = capsys.readouterr().err.splitlines()[-1]  # after what botocore tells of where it looked
    assert said.startswith(f"mcdm {command.split()[0]}: ") and says in said


def test_an_interrupted_command_ends_in_one_line(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mcdm.cli._encode", interrupted)
    assert main(["encode", "--shards", "x"]) == 130
    assert capsys.readouterr().err == "mcdm encode: interrupted; run the same command again\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "error: argument command: invalid choice: 'trian' (choose from"),
        (["train"], "error: the following arguments are required: --shards"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith(said) and "(see python -m mcdm" in line


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
    recipe = override(tiny(), "unet.channels=16,32", "plans.1.steps=7", "unet.memory_attention=favor")
    assert recipe.unet.channels == (16, 32) and recipe.plans[1].steps == 7
    assert recipe.unet.memory_attention == "favor"
    with pytest.raises(ValueError, match="expected one of exact, favor, linear"):
        override(tiny(), "unet.memory_attention=quick")


def test_settings_that_need_each_other_are_taken_in_either_order():
    pair = ["unet.strict=true", "unet.memory_zero_init=false"]
    one, other = override(tiny(), *pair), override(tiny(), *pair[::-1])
    assert one == other and one.unet.strict and not one.unet.memory_zero_init
    with pytest.raises(ValueError, match="no gradient would reach"):
        override(tiny(), *pair, "unet.memory_zero_init=true")
    with pytest.raises(ValueError, match=r"^strict without use_memory: no gradient would reach"):
        override(tiny(), *pair, "unet.use_memory=false")


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("frames=0", "frames=0: expected at least 1"),
        ("codec.factor=0", "codec.factor=0: expected at least 1"),
        ("codec.factor=5", "codec.factor=5: does not divide codec.size_px=64"),
        ("audio.reach=-1", "audio.reach=-1: expected at least 0"),
        ("image.width=0", "image.width=0: expected at least 1"),
        ("motion.heads=3", "motion.heads=3: does not divide motion.width=64"),
        ("motion.patch_px=99", "motion.patch_px=99: expected 1 to 48"),
        ("archive.patch=0", "archive.patch=0: expected at least 1"),
        ("archive.start_share=2", "archive.start_share=2.0: expected a share from 0 to 1"),
        ("prior.width=9", "prior.heads=4: does not divide prior.width=9"),
        ("prior.sampling_steps=0", "prior.sampling_steps=0: expected 1 to 1000"),
        ("unet.heads=5", "unet.heads=5: does not divide unet.channels=96"),
        ("unet.heads=0", "unet.heads=0: expected at least 1"),
        ("unet.channels=16,32,64", "unet.channels=16,32,64: expected as many values as unet.attention has, 2"),
        ("unet.channels=0,32", "unet.channels=0: expected an even number above 0"),
        ("unet.groups=5", "unet.groups=5: does not divide unet.channels=48"),
        ("unet.late=0", "unet.late=0.0: expected a number above 0"),
        ("unet.late=nan", "--set unet.late=nan: expected a finite number"),
        ("unet.guidance=nan", "--set unet.guidance=nan: expected a finite number"),
        ("unet.guidance=-inf", "--set unet.guidance=-inf: expected a finite number"),
        ("unet.drop_present=1", "unet.drop_archived, drop_present and drop_both are shares of all clips: 1.04 in sum"),
        ("unet.favor_features=0", "unet.favor_features=0: expected at least 1"),
        ("plans.0.batch=0", "plans.0.batch=0: expected at least 1"),
        ("plans.3.steps=0", "plans.3.steps=0: expected at least 1"),
        ("optimizer.betas=0.9,1", "optimizer.betas=0.9,1.0: expected two numbers from 0, below 1"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_value(assignment, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        override(tiny(), "unet.memory_attention=favor", assignment)


def test_no_signal_at_the_last_step_and_a_network_that_answers_with_the_noise_exclude_each_other():
    with pytest.raises(ValueError, match=r"^unet\.zero_snr=true: unet\.prediction=eps"):
        override(paper(), "unet.zero_snr=true")
    assert override(paper(), "unet.zero_snr=true", "unet.prediction=v").unet.zero_snr


def test_no_signal_at_the_last_step_and_weights_that_leave_that_step_out_exclude_each_other():
    with pytest.raises(ValueError, match=r"^unet\.zero_snr=true: with unet\.min_snr=5 the last step"):
        override(small(), "unet.min_snr=5")
    assert override(small(), "unet.min_snr=5", "unet.zero_snr=false").unet.min_snr == 5


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_learns_at_the_step_where_sampling_starts(name):
    unet = RECIPES[name]().unet
    schedule = make_schedule(unet.schedule, zero_snr=unet.zero_snr)
    first = torch.tensor(schedule.timesteps(unet.sampling_steps)[:1])
    assert float(loss_weight(schedule, unet.prediction, first, unet.min_snr)) > 0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_stands_up_to_its_own_checks(name):
    assert RECIPES[name]().name == name
