"""What `--set` takes for a value: text that a shell leaves alone, and the names of what there is to choose from."""

import re

import pytest

from pipeline.override import OverrideError
from pipeline.recipes import build


@pytest.mark.parametrize("text", ["cc,by", '["cc", "by"]'])
def test_a_list_may_be_written_with_commas_or_as_json(text):
    assert build("own", overrides=[f"policy.licences={text}"]).policy.licences == ("cc", "by")


def test_a_list_with_commas_may_have_one_entry_and_is_read_by_the_types_of_what_it_holds():
    assert build("own", overrides=["policy.licences=cc"]).policy.licences == ("cc",)
    assert build("own", overrides=["fetch.resources.workers=2,8"]).fetch.resources.workers == (2, 8)


@pytest.mark.parametrize("word", ["none", "None", "null"])
@pytest.mark.parametrize("limit", ["min_avg_logprob", "max_other_faces", "licences"])
def test_a_limit_is_lifted_by_the_word_for_it(limit, word):
    assert getattr(build("own", overrides=[f"policy.{limit}={word}"]).policy, limit) is None


def test_a_limit_of_one_language_is_lifted_by_the_same_word():
    policy = build("own", overrides=["policy.min_confidence.zh=none"]).policy
    assert policy.limit("min_confidence", "zh") is None and policy.limit("min_confidence", "de") == 3.0


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("fetch.licence=foo", "--set fetch.licence=foo: expected one of cc, any, per_language"),
        ("policy.min_avg_logprob=low", "Expected `float | none`"),
        ("policy.val_share=none", "Expected `float`"),
        ("policy.licences=[cc,by]", "Expected `array | none`"),  # what a shell leaves of JSON without quotes
        ("policy.licences=", "Expected `array | none`"),
        ("fetch.resources.workers=2,many", "Expected `array`"),
        ("fetch.resources.workers=2", "Expected `array`"),
        ('sync={"every": 2}', "a group of settings; name one inside it"),  # else with the weights of no recipe
        ('fetch={"access": {"proxy": "http://me:pw@x"}}', "a group of settings"),  # else the job would hold the login
    ],
)
def test_what_cannot_be_read_is_told_by_what_could_be(assignment, says):
    with pytest.raises(OverrideError, match=re.escape(says)):
        build("own", overrides=[assignment])


@pytest.mark.parametrize(
    "assignment", ["fetch.max_height_px=0", "watch.look_px=0", "watch.threads=-1", "clip.threads=-1", "sync.device=gpu"]
)
def test_what_a_stage_cannot_work_with_is_refused_before_it_is_run(assignment):
    stage, _, field = assignment.partition("=")[0].partition(".")
    with pytest.raises(ValueError, match=f"{stage}: .*{field}"):
        build("own", overrides=[assignment])
