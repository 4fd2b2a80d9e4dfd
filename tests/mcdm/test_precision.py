"""Roll-outs in bfloat16: when, how far from float32, and what stays float32."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from mcdm import diffusion, distributed
from mcdm import generate as roll
from mcdm.cli import main
from mcdm.course import train
from mcdm.generate import Talker
from mcdm.motion import Motion
from mcdm.precision import full_precision, takes_bf16
from tests.mcdm.nano import SEEING, nano, nano_of
from tests.mcdm.test_generate import generate, read
from tests.mcdm.test_train import options
from tests.mcdm.world import made_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run whose networks do not answer with the noise: what that tells of the picture where nothing else is, any
    rounding turns over."""
    recipe = nano(memory_zero_init=False, guidance=2.0, **SEEING)
    return made_world(tmp_path_factory.mktemp("world"), replace(recipe, prior=replace(recipe.prior, prediction="v")))


@pytest.mark.parametrize(("precision", "native"), [("auto", True), ("auto", False), ("bf16", False), ("fp32", True)])
def test_bfloat16_is_taken_where_it_is_asked_for_and_by_itself_where_a_gpu_has_it(precision, native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert takes_bf16(precision, torch.device("cuda")) == (precision == "bf16" or (precision == "auto" and native))
    assert takes_bf16(precision, CPU) == (precision == "bf16")


def rolled_out(talker):
    """Latents and tokens of three clips of two videos, the head led in the last, and the last state."""
    source, side, recipe = torch.Generator().manual_seed(1), talker.recipe.codec.size_px, talker.recipe
    pictures = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    state, made = talker.begin(pictures, [3, 4]), []
    for heads in (False, False, True):
        w = talker.history + recipe.frames
        audio = torch.randn(2, w, recipe.audio.tokens, recipe.audio.width, generator=source)
        latents, state = talker.clip(state, audio, torch.randn(2, w, 13, generator=source) * 0.1 if heads else None)
        made += [latents, state.tokens]
    return made, state


def test_a_roll_out_in_bfloat16_is_near_that_in_float32_and_the_same_each_time(world):
    exact, coarse = Talker(world / "run", CPU), Talker(world / "run", CPU, bf16=True)
    kinds = set()
    for network in (coarse.prior.answer, coarse.denoiser.unet.conv_out, coarse.denoiser.archive):
        network.register_forward_hook(lambda _, given, answer: kinds.add(answer.dtype))
    (wanted, _), (made, state), (again, _) = rolled_out(exact), rolled_out(coarse), rolled_out(coarse)
    assert kinds == {torch.bfloat16}, "the networks compute in it"
    assert all(torch.equal(one, other) for one, other in zip(made, again, strict=True))
    for one, other in zip(wanted, made, strict=True):
        assert not torch.equal(one, other) and (one - other).norm() < 0.05 * one.norm()
    kept = (state.reference, state.points, state.image, state.archived, state.tokens)
    assert {one.dtype for one in (*made, *kept)} == {torch.float32}, "noise, steps, landmarks and latents do not"


def test_only_the_networks_of_stages_2_and_3_compute_in_bfloat16(world, monkeypatch):
    def looking(plain):
        def look(*given, **named):
            seen.append(torch.is_autocast_enabled("cpu"))
            return plain(*given, **named)

        return look

    seen, talker = [], Talker(world / "run", CPU, bf16=True)
    for owner, names in (
        (diffusion, ("split", "ddim_step")),
        (roll, ("draw_normal", "landmarks_of", "sketch", "placed")),
        (talker.codec, ("decode",)),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, looking(getattr(owner, name)))
    _, state = rolled_out(talker)
    talker.pictures(state.archived)
    assert len(seen) > 8 and not any(seen)


def test_the_command_line_chooses_and_an_evaluation_says_what_it_computed_in(world, tmp_path):
    for name, more in (("own", ()), ("fp32", ("--precision", "fp32")), ("bf16", ("--precision", "bf16"))):
        assert generate(world, tmp_path / f"{name}.mp4", "--seconds", "0.4", *more) == 0
    own, exact, coarse = (read(tmp_path / f"{name}.mp4")[0].astype(int) for name in ("own", "fp32", "bf16"))
    assert np.array_equal(own, exact), "on a processor float32 is the default"
    assert 0 < np.abs(own - coarse).mean() < 8, "of an untrained network, in grey levels"
    given = ["evaluate", "--run", world / "run", "--shards", world / "shards", "--device", "cpu", "--frames", "8"]
    for more, computed in (((), "fp32"), (("--precision", "bf16"), "bf16")):
        assert main([str(one) for one in [*given, "--face-pack", "none", *more]]) == 0
        assert json.loads((world / "run" / "eval.json").read_text())["computed_in"] == computed


def test_samples_compute_in_what_training_computes_in(world, tmp_path, monkeypatch, caplog):
    def talker(run, device, *, bf16=False):
        asked.append(bf16)
        return Talker(run, device, bf16=bf16)

    asked = []
    caplog.set_level("INFO", "mcdm")
    monkeypatch.setattr("mcdm.samples.Talker", talker)
    monkeypatch.setattr("mcdm.samples._FRAMES", 8)
    train(nano_of(1), options(str(world / "shards"), tmp_path / "run", precision="bf16", samples_every=1))
    assert asked == [True] and caplog.messages.count("on the processor, bf16") == 1, "told once"
    assert '"samples"' in (tmp_path / "run" / "log.jsonl").read_text()


@pytest.fixture
def gpu_in_name(monkeypatch):
    """A GPU in name, whose settings are put back."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    matmul, fused = torch.get_float32_matmul_precision(), torch.backends.mha.get_fastpath_enabled()
    tf32 = torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.mha.set_fastpath_enabled(fused)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.mark.parametrize("start", [distributed.start, partial(distributed.start_alone, "generate")])
def test_float32_that_is_asked_for_is_that_of_a_processor_on_a_gpu_too(gpu_in_name, start):
    for precision, matmul, tf32 in (("fp32", "highest", False), ("bf16", "high", True), ("auto", "high", True)):
        start("cuda", precision)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (matmul, tf32)


def test_on_a_processor_threads_in_full_precision_leave_cudnn_as_it_was():
    """Two that encoded side by side had put back what the other had set: TF32 was off from then on."""
    inside = [full_precision(CPU), full_precision(CPU)]
    for one in inside:
        one.__enter__()
    assert torch.backends.cudnn.allow_tf32
    for one in inside:  # the first goes first, as threads may
        one.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("native", "number"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_is_told_by_its_name(native, number, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert distributed.described(torch.device("cuda", 0), "auto") == f"cuda, NVIDIA H200, {number}"
    assert distributed.described(torch.device("cuda", 0), "fp32") == "cuda, NVIDIA H200, fp32"


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_the_precision_that_a_command_is_given_reaches_the_gpu(command, tmp_path, monkeypatch):
    def start(_, *given):
        asked.append(given)
        raise ValueError

    asked = []
    monkeypatch.setattr(distributed, "start_alone", start)
    given = {"generate": ["--reference", "x", "--audio", "x"], "evaluate": ["--shards", "x"]}[command]
    given += ["--out", str(tmp_path / "o.mp4")] if command == "generate" else []
    assert main([command, "--run", str(tmp_path), *given, "--device", "cpu", "--precision", "fp32"]) == 2
    assert asked == [("cpu", "fp32")]


def test_a_gpu_that_torch_cannot_use_is_told_in_one_line_and_not_passed_over(monkeypatch):
    def too_old(*_, **__):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("stages.cuda.has_gpu", lambda: False)
    assert distributed.start("auto").device == CPU
    monkeypatch.setattr("stages.cuda.has_gpu", lambda: True)
    monkeypatch.setattr("torch.empty", too_old)
    line = r"^torch cannot use the GPU: The NVIDIA .* \(found version 11040\)\.; --device cpu does without$"
    with pytest.raises(ValueError, match=line):
        distributed.start("auto")
    assert distributed.start("cpu").device == CPU


def test_on_a_gpu_the_motion_encoders_are_not_fused_into_another_gelu(monkeypatch, gpu_in_name):
    def fused(*given):
        calls.append(1)
        return plain(*given)

    def tokens():
        face = torch.zeros(1, 2, recipe.motion.face_px, recipe.motion.face_px)
        with torch.no_grad():
            motion.tokens(face, torch.zeros(1, 2, 13))
        return len(calls)

    plain, calls, recipe = torch._transformer_encoder_layer_fwd, [], nano()
    motion = Motion(recipe.motion).eval()
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", fused)
    distributed.start("cpu")
    made = tokens()
    assert made > 0, "on a processor the fused one has the same GELU"
    distributed.start("cuda")
    assert tokens() == made
