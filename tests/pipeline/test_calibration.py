"""What `calibrate` prints of the estimates, and the command that applies what it proposes."""

import io
import re
import shlex

from rich.console import Console

from pipeline.calibration import print_trusts
from pipeline.cli import DEFAULT_STORE, parser, store_option
from pipeline.recipes import build
from stages.calibrate import calibrate
from stages.policies import PAPER
from tests.stages.test_calibrate import world


def printed(videos, policy=PAPER, store="my set"):
    out = io.StringIO()
    trusts = calibrate(videos, policy, wrong=0.02)
    judge = f"python -m pipeline judge{store_option(store)}"
    print_trusts(Console(file=out, width=80, highlight=False), trusts, wrong=0.02, judge=judge)
    return trusts, out.getvalue()


def test_the_command_that_is_printed_sets_what_was_proposed_and_nothing_is_left_to_propose():
    videos = world("en", 7.0, 900, 200) + world("zh", 4.0, 900, 200) + world("th", 5.0, 10, 0)
    (en, zh, *_), out = printed(videos)
    (line,) = re.findall(r"to set these limits: python -m pipeline (.*)", out)
    options = parser().parse_args(shlex.split(line))
    assert (options.command, options.store) == ("judge", "my set")
    policy = build("own", overrides=options.sets).policy
    assert [policy.limit("min_confidence", tag) for tag in ("en", "zh", "th")] == [en.proposed, zh.proposed, 3.0]
    _, again = printed(videos, policy)
    assert "to set these limits" not in again and again.endswith("to say what is fair: th\n")


def test_a_row_fits_into_eighty_letters_and_the_default_store_is_not_named():
    _, out = printed(world("en", 7.0, 900, 200) + world("zh", 4.0, 900, 200), store=DEFAULT_STORE)
    rows = [line for line in out.splitlines() if re.match(r" ?(en|zh|all)\b", line)]
    assert len(rows) == 3 and "1,100" in rows[0] and "…" not in out and "judge --set policy.min_confidence.en=" in out


def test_a_store_without_readings_says_so():
    assert "nothing to calibrate with" in printed([])[1]


def test_a_language_in_which_no_limit_serves_is_not_told_to_bring_more_clips():
    _, out = printed(world("th", 0.0, 200, 400) + world("hr", 5.0, 10, 0))
    assert "to say what is fair: hr\n" in out
    assert "no limit lets pass as few as 2 % (--wrong) that are not in sync: th\n" in out
