"""Recipes and their keys. The diff of `tests/golden/keys.json` is the bill of a change: which stages will recompute."""

import json
import re
from pathlib import Path

import pytest

from manifests.records import Video
from pipeline.recipes import RECIPES, build
from pipeline.stage import keys

GOLDEN = Path(__file__).parents[1] / "golden" / "keys.json"


def current() -> dict[str, dict[str, str]]:
    return {name: keys(build(name).stages(), Video) for name in RECIPES}


def test_no_stage_key_changes_unseen():
    assert current() == json.loads(GOLDEN.read_text()), (
        "write tests/golden/keys.json anew if stages are meant to recompute"
    )


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_running_differently_does_not_change_what_is_computed(name):
    plain = keys(build(name).stages(), Video)
    sets = ["sync.batch=7", "watch.threads=3", "speech.batch=2", "fetch.access.proxy=http://p"]
    tuned = build(name, overrides=[*sets, *(["discover.per_source=7"] if name == "wild" else [])])
    assert keys(tuned.stages(), Video) == plain


def test_a_stage_s_weights_are_part_of_its_key():
    assert current()["sample"]["sync"] != current()["own"]["sync"]
    assert current()["sample"]["fetch"] != current()["wild"]["fetch"]  # the licence rule


def test_every_stage_that_loads_weights_names_them_for_the_run_to_have_beforehand():
    named = {stage.name: stage.models() for stage in build("sample").stages()}
    assert named == {
        "fetch": (),
        "watch": ("sample/faces",),
        "clip": (),
        "sync": ("sample/sync",),
        "speech": ("sample/whisper",),
        "identity": ("sample/faces", "ppocr_v6_det"),
    }


def test_a_cascade_makes_the_clips_and_all_that_is_measured_of_them_others():
    plain, cascade = (keys(build("sample", overrides=sets).stages(), Video) for sets in ((), ("cascade=true",)))
    assert {name for name in plain if plain[name] == cascade[name]} == {"fetch", "watch"}


@pytest.mark.parametrize(
    ("limit", "anew"),
    [
        ("min_face_px=70", {"clip", "sync", "speech", "identity"}),
        ("min_confidence=1.5", {"speech"}),
        ("min_speech_share=0.5", set()),
        ("min_identity_cosine=0.5", set()),
    ],
)
def test_in_a_cascade_a_limit_counts_where_it_spares_something(limit, anew):
    one, other = (
        keys(build("sample", overrides=("cascade=true", *sets)).stages(), Video) for sets in ((), (f"policy.{limit}",))
    )
    assert {name for name in one if one[name] != other[name]} == anew


@pytest.mark.parametrize("value", [1.0, 6.0])
def test_a_limit_that_is_assigned_holds_for_every_language(value):
    policy = build("own", overrides=[f"policy.min_confidence={value}"]).policy
    assert {policy.limit("min_confidence", language) for language in ("zh", "cmn", "en", "")} == {value}


def test_exceptions_stay_where_another_limit_is_assigned_or_they_are():
    assert build("own", overrides=["policy.max_yaw_deg=30"]).policy.limit("min_confidence", "zh") == 2.0
    own = 'policy.by_language=[{"language": "th", "limit": "min_confidence", "value": 2.5}]'
    policy = build("own", "strict", [own, "policy.min_confidence=6"]).policy
    assert [policy.limit("min_confidence", language) for language in ("th", "zh")] == [2.5, 6.0]


def test_a_limit_may_be_assigned_for_one_language_and_taken_back_for_all():
    def limits(*sets):
        policy = build("own", overrides=[f"policy.{one}" for one in sets]).policy
        return [policy.limit("min_confidence", language) for language in ("de", "zh", "cmn", "en")]

    assert limits("min_confidence.de=2.5") == [2.5, 2.0, 2.0, 3.0]
    assert limits("min_confidence=4", "min_confidence.cmn=1.5") == [4.0, 1.5, 1.5, 4.0]
    assert limits("min_confidence.de=2.5", "min_confidence=4") == [4.0, 4.0, 4.0, 4.0]
    name = build("own", overrides=["policy.min_confidence.de=2.5", "policy.min_confidence.zh=1"]).policy.name
    assert name == "paper+min_confidence.de=2.5,min_confidence.zh=1"


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("min_confidence.de=much", "--set policy.min_confidence.de=much: "),
        ("min_confidence.#=2", "'#' is neither a BCP-47 tag"),
        ("name.de=x", "--set policy.name.de=x: "),
        ("min_beauty.de=2", "no limit 'min_beauty' for language 'de', only max_"),
    ],
)
def test_a_limit_for_one_language_that_cannot_be_is_refused(assignment, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        build("own", overrides=[f"policy.{assignment}"])


def test_the_name_of_a_changed_policy_says_by_what():
    def name(*sets):
        return build("own", "strict", [f"policy.{one}" for one in sets]).policy.name

    assert name() == name("max_yaw_deg=30") == "strict"  # which is its own
    assert name("max_yaw_deg=20", "max_roll_deg=5", "max_yaw_deg=10") == "strict+max_roll_deg=5,max_yaw_deg=10"
    assert name("max_yaw_deg=10", "name=mine") == "mine"


@pytest.mark.parametrize("name", ["own", "wild"])
@pytest.mark.parametrize("cores", [16, 27])
def test_on_a_gpu_node_cores_and_not_shares_of_the_gpu_bound_who_decodes(name, cores):
    stages = {stage.name: stage.resources for stage in build(name).stages()}
    others = [asked for stage, asked in stages.items() if stage != "watch"]
    left_gpu = 1.0 - sum(one.gpus for one in others)
    left_cpus = cores - sum(one.cpus if one.cpus_beside_gpu is None else one.cpus_beside_gpu for one in others)
    watch = stages["watch"]
    assert 9 <= left_cpus / watch.cpus <= left_gpu / watch.gpus
