"""READMEs: every command is one that a test runs, or is named below with why none can; links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from mcdm.cli import parser as trainer
from pipeline.cli import parser
from stages.judge import candidates, judge
from stages.policies import PAPER
from stages.shard_json import describe
from tests.stages.measured import measured

ROOT = Path(__file__).parents[1]
READMES = {path: path.read_text() for path in (ROOT / "README.md", *sorted(ROOT.glob("*/README.md")))}
_OTHERS = (path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
TESTS = "".join(path.read_text() for path in _OTHERS)

NOT_HERE = {
    "python3 -m tests": "this very suite",
    'pip install -U "yt-dlp[default,deno]"': "changes the environment under test",
    "ray up ray_cluster.yaml": "needs a cloud; the file is held against Ray's own schema",
    "ray dashboard ray_cluster.yaml": "forwards a port of that cloud",
    "python -m pipeline models fetch buffalo_l": "needs the web; fetching is tested against a local server",
    "python -m pipeline run wild --langs 10 --hours 0.5 --store wild": "needs the web; its parts are tried on loopback",
}

RUN_BY = {
    "run": "test_the_run_ends_with_the_funnel",
    "judge": "test_judge_applies_new_thresholds",
    "show": "test_show_tells_everything",
    "report": "test_report_says_the_same_again",
    "verify": "test_verify_finds_nothing_wrong",
    "calibrate": "test_calibrate_says_what",
    "score": "test_the_score_can_be_had_again",
    "shard": "test_shard_writes_shards_of_another_size",
    "forget": "test_forget_takes_a_video_out",
    "prune": "test_prune_removes_what_the_recipe_names_no_more",
    "models": "test_models_lists_what_is_here",
    "mcdm train": "test_what_the_command_line_has_encoded",
    "mcdm encode": "test_what_the_command_line_has_encoded",
    "mcdm generate": "test_a_picture_and_a_voice_become_a_video",
    "mcdm evaluate": "test_an_evaluation_writes_numbers",
}


def commands() -> list[str]:
    """Shell lines of all READMEs, each once: those of bash blocks, and those in tables."""
    text = "".join(READMES.values())
    blocks = [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines() if line]
    return list(dict.fromkeys(blocks + re.findall(r"\| `(python -m [^`]+)`", text)))


def has(test: str) -> bool:
    """Whether a test has this name, or one that begins so."""
    return f"def {test}" in TESTS


@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_readme_is_one_that_the_tests_run(line):
    if line in NOT_HERE:
        return
    if line.startswith("ray job submit"):
        assert has("test_ray_job_submit")
        line = line.split(" -- ")[1]
    words = shlex.split(line)
    if words[0] == "torchrun":
        assert has("test_torchrun_trains_one_run")
        words = ["python", *words[words.index("-m") :]]
    assert words[0] in ("python", "python3") and words[1] == "-m"
    if words[2] == "pipeline":
        options = parser().parse_args(words[3:])
        assert has(RUN_BY[options.command])
    else:
        assert words[2] == "mcdm"
        assert has(RUN_BY[f"mcdm {trainer().parse_args(words[3:]).command}"])


def anchors(text: str) -> set[str]:
    """Names under which a page's headings are reached, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_a_link_of_a_readme_leads_to_a_file_and_heading(path):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", READMES[path]):
        file, _, anchor = target.partition("#")
        assert (path.parent / file).exists(), target
        assert not anchor or anchor in anchors((path.parent / file).read_text()), target


def test_a_readme_names_every_key_of_a_clips_json():
    one = measured()
    (verdict,) = judge([one], PAPER)
    (clip,) = candidates([one])
    described = describe(clip, verdict, n_clips=1, follows=False)
    named = set(re.findall(r"`(\w+)`", READMES[ROOT / "stages" / "README.md"].partition("## The shards")[2]))
    assert {*described, *described["quality"], *described["hashes"], *described["words"][0]} <= named
