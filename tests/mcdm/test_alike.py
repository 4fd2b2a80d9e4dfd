"""All processes of a training go by the same, or say in one line what they do not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mcdm import alike
from mcdm.alike import check_told, settings
from mcdm.config import paper, tiny
from mcdm.course import Options
from mcdm.distributed import World
from pipeline.override import override
from tests.mcdm.nano import nano
from tests.mcdm.processes import run_processes
from tests.mcdm.shards import write_shards

COMMANDS = """
import contextlib, io, json, os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from mcdm import cli as command
from tests.mcdm.nano import nano
command.RECIPES["tiny"] = nano
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
given = ["train", "--device", "cpu", "--workers", "0", "--held-out", "2", "--stages", "0", "--cache", "off"]
found = {}
for name, shards, more in (
    ("rate", "short", ["--set", f"plans.0.rate={1e-3 * (1 + rank)}"]),
    ("seed", "short", ["--seed", str(rank)]),
    ("batch", "short", ["--set", "plans.0.batch=4", "--micro-batch", str(1 + rank)]),
    ("clips", ("short", "long")[rank], []),
):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        asked = [*given, "--shards", str(folder / shards / "shards"), "--out", str(folder / name), *more]
        code = command.main(asked)
    found[name] = [code, *said.getvalue().splitlines()[-1:]]
(folder / f"{rank}.json").write_text(json.dumps(found))
"""

CPU = torch.device("cpu")


@pytest.fixture
def two(monkeypatch):
    """Raises what `check_told` does where two processes are told these."""
    said = []

    def check(*told):
        for recipe, options in told:
            monkeypatch.setattr(alike.distributed, "gather_names", lambda names, _: said.append(*names) or names)
            check_told(recipe, options, World(0, 2, CPU))
        monkeypatch.setattr(alike.distributed, "gather_names", lambda *_: said[-2:])
        check_told(*told[0], World(0, 2, CPU))

    return check


def test_processes_that_are_told_or_see_something_else_all_end_in_one_line_before_the_first_step(tmp_path):
    for name, n_frames in (("short", 40), ("long", 45)):
        write_shards(tmp_path / name, people=3, clips=1, n_frames=n_frames)
    (tmp_path / "commands.py").write_text(COMMANDS)
    run_processes(tmp_path / "commands.py", tmp_path, size=2)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other and {code for code, _ in one.values()} == {2}
    for name, apart in (
        ("rate", "plans.0.rate 0.002, process 0 by 0.001"),
        ("seed", "--seed 1, process 0 by 0"),
        ("batch", "--micro-batch 2, process 0 by 1"),
    ):
        assert one[name][1] == f"mcdm train: process 1 goes by {apart}: all must go by the same"
        assert not (tmp_path / name).exists(), "nor is anything written"
    assert one["clips"][1].startswith("mcdm train: process 1 goes by clips to train on 2 (")
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"stop_after": 3}, "--stop-after 3, process 0 by 0"),
        ({"save_every": 3}, "--save-every 3, process 0 by 0"),
        ({"validate_every": 3}, "--validate-every 3, process 0 by 100"),
        ({"log_every": 3}, "--log-every 3, process 0 by 20"),
        ({"stages": (1,)}, "--stages [1], process 0 by [0, 1, 2, 3]"),
        ({"sharded": True}, "--fsdp True, process 0 by False"),
        ({"cache": "off"}, "--cache off, process 0 by on"),
        ({"seed": 2, "held_out": 3}, "--seed 2, process 0 by 0 (and 1 more)"),
    ],
)
def test_an_option_that_decides_what_is_waited_for_is_named(two, given, named):
    with pytest.raises(ValueError, match=r"^process 1 goes by ") as caught:
        two(*((nano(), Options(shards="x", run=Path("x"), **more)) for more in ({}, given)))
    assert str(caught.value) == f"process 1 goes by {named}: all must go by the same"


def test_where_things_lie_may_differ_but_not_what_lies_there(two, tmp_path):
    for name, data in (("here.bin", b"one"), ("there.bin", b"one"), ("other.bin", b"two")):
        (tmp_path / name).write_bytes(data)
    here, there, other = (replace(nano(), sd_weights=str(tmp_path / f"{n}.bin")) for n in ("here", "there", "other"))
    on_a, on_b = (Options(shards=n, run=Path(n), cache=n, device=n, workers=len(n)) for n in ("a", "bb"))
    two((here, on_a), (there, on_b))
    with pytest.raises(ValueError, match="goes by sd_weights "):
        two((here, on_a), (other, on_b))


@pytest.mark.parametrize("recipe", [tiny(), paper()], ids=["tiny", "paper"])
def test_every_setting_goes_by_the_name_that_set_takes(recipe):
    found = settings(recipe)
    assert found["plans.1.rate"] == recipe.plans[1].rate and found["optimizer.betas"] == recipe.optimizer.betas
    spelled = {name: value if isinstance(value, tuple) else (value,) for name, value in found.items()}
    assert override(recipe, *[f"{name}={','.join(map(str, values))}" for name, values in spelled.items()]) == recipe
