"""What the command line takes, and what it answers to what it does not take."""

import json
from pathlib import Path

import pytest

from pipeline.cli import main, parser

GOLDEN = Path(__file__).parents[1] / "golden" / "cli.json"


def surface() -> dict[str, list[str]]:
    """Every option of every command."""
    found = {}
    (commands,) = (action for action in parser()._actions if hasattr(action, "choices") and action.choices)
    for name, one in commands.choices.items():
        found[name] = sorted("/".join(a.option_strings) or a.dest for a in one._actions if a.dest != "help")
    return found


def test_no_option_comes_or_goes_unseen():
    assert surface() == json.loads(GOLDEN.read_text()), "write tests/golden/cli.json anew if this is meant"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("run --langs 11", "--langs 11: must be a number from 1 to 10, or any of en,de,zh,"),
        ("run --langs 0", "must be a number from 1 to 10"),
        ("run --langs de,xx", "must be a number from 1 to 10"),
        ("run --langs ,", "must be a number from 1 to 10"),
        ("run wilde", "no recipe 'wilde'; there are sample, wild, own"),
        ("run --hours 2", "--hours belongs to the recipe wild"),
        ("run wild --hours 0", "--hours 0: must be more than 0"),
        ("run wild --hours many", "argument --hours: invalid float value: 'many'"),
        ("run wild --manifest x.csv", "--manifest and wild exclude each other"),
        ("run own", "recipe own needs --manifest"),
        ("run --manifest nowhere.csv", "nowhere.csv"),
        ("run --language de", "--language goes with --manifest"),
        ("run --policy lax", "--policy lax: no such policy; there are paper, latentsync, strict, sample"),
        ("run --set sync.bach=64", "ScoreSync has no 'bach', only "),
        ("run --set sync.batch=many", "sync.batch=many: Expected `int`"),
        ("run --until dinner", "--until dinner: no such stage; there are fetch, watch, clip, sync, speech, identity"),
        ("run --cpus 0", "--cpus 0: must be at least 1"),
        ("run --train huge", "--train huge: no such recipe; there are tiny, small, paper"),
        ("run --train --until watch", "--train needs the shards, which --until and --dry do not write"),
        ("run --set train.frames=4", "--set train.frames=4: belongs to --train"),
        ("run --train tiny --set train.wings=2", "--set wings: the recipe has no such setting"),
        ("judge", "holds no results; make some: python -m pipeline run"),
        ("show abc", "holds no results"),
        ("verify", "no tar in"),
        ("models fetch", "models fetch needs a name"),
        ("models fetch nonsense", "nonsense"),
        ("models burn", "invalid choice: 'burn'"),
        ("dance", "invalid choice: 'dance'"),
        ("", "the following arguments are required: command"),
    ],
)
def test_a_wrong_request_is_answered_in_one_line_with_exit_code_2(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments.split())
    except SystemExit as stopped:  # argparse leaves by itself
        code = stopped.code
    err = capsys.readouterr().err
    assert code == 2 and says in err and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists(), "a refused request leaves nothing behind"
