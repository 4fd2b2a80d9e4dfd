"""Recipes: which stages with which parameters. The order of the fields is the order of the stages."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from manifests.tags import language_tag
from pipeline.override import OverrideError, override
from pipeline.stage import Resources, Stage
from stages.clip import CutClips
from stages.discover import Discovery
from stages.faces import Faces
from stages.fetch import Fetch
from stages.identity import Recognise
from stages.language import subtag
from stages.policies import PAPER, POLICIES, SAMPLE, ForLanguage, Policy
from stages.politeness import Manners
from stages.spare import BY_SYNC, BY_TRACK, loosest
from stages.speech import Transcribe
from stages.sync import ScoreSync
from stages.watch import Watch


@dataclass(frozen=True, kw_only=True)
class TalkingFaces:
    """Wild video in, talking-face clips out."""

    discover: Discovery = field(default_factory=Discovery)  # no stage: how `wild` comes by its videos
    fetch: Fetch = field(default_factory=Fetch)
    watch: Watch = field(default_factory=Watch)
    clip: CutClips = field(default_factory=CutClips)
    sync: ScoreSync = field(default_factory=ScoreSync)
    speech: Transcribe = field(default_factory=Transcribe)
    identity: Recognise = field(default_factory=Recognise)
    policy: Policy = PAPER
    cascade: bool = False  # measure no further what the policy drops by what is known of it already
    cascade_policy: Policy | None = None  # whose limits decide that, where it is not the policy in force
    shard_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise ValueError(f"shard_bytes: {self.shard_bytes} is not at least 1")
        for stage in (self.fetch, self.watch, self.clip, self.sync, self.speech, self.identity):
            if stage.deadline_s is not None and not stage.deadline_s > 0:
                raise ValueError(f"{stage.name}.deadline_s: {stage.deadline_s:g} is not more than 0")

    def stages(self) -> tuple[Stage[Any], ...]:
        """The stages of a run, in order."""
        clip, speech = self.clip, self.speech
        if self.cascade:
            policy = self.cascade_policy or self.policy
            clip = replace(clip, spare=(*loosest(policy, BY_TRACK), *clip.spare))
            speech = replace(speech, spare=(*loosest(policy, BY_SYNC), *speech.spare))
        return self.fetch, self.watch, clip, self.sync, speech, self.identity


_HOURS = 3600.0


def own() -> TalkingFaces:
    """The full models, for one's own material: any licence, its owner knows. Wants a GPU; runs without one, slowly."""
    # Shares of a GPU are turns at it, so small that at 24 GB the cores are what bounds the number of workers: two that
    # hear (large-v3, some 6 GB each) fit beside six that watch (below 1 GB each). On a GPU sync and speech compute on
    # one core; an hour watched takes 6 parts of a core's time to watch and 5 to cut. On a processor large-v3 is 1.55
    # billion weights of 4 bytes, with an aligner beside them.
    return TalkingFaces(
        fetch=Fetch(resources=Resources(cpus=0.5, workers=(1, 4)), deadline_s=4 * _HOURS),
        # on a GPU the detector is quick, and what it waits for is pictures: many workers to one, a core each
        watch=Watch(
            resources=Resources(cpus=1.0, gpus=0.02, memory_gb=0.5, gpu_memory_gb=1.0, weight=6.0),
            deadline_s=4 * _HOURS,
        ),
        clip=CutClips(resources=Resources(cpus=1.0, memory_gb=0.3, weight=5.0), deadline_s=4 * _HOURS),
        # a quarter of the windows, 40 at least: clear offsets stay within a frame, confidence within 0.1 (LOG.md)
        sync=ScoreSync(
            every=4,
            least_windows=40,
            resources=Resources(cpus=2.0, cpus_beside_gpu=1.0, gpus=0.1, memory_gb=1.3, gpu_memory_gb=1.5),
            deadline_s=4 * _HOURS,
        ),
        speech=Transcribe(
            resources=Resources(cpus=2.0, cpus_beside_gpu=1.0, gpus=0.3, memory_gb=9.0, gpu_memory_gb=7.0),
            deadline_s=4 * _HOURS,
        ),
        identity=Recognise(
            resources=Resources(cpus=1.0, gpus=0.05, memory_gb=0.5, gpu_memory_gb=1.0), deadline_s=4 * _HOURS
        ),
    )


def wild() -> TalkingFaces:
    """The full models on real sources: insightface buffalo_l, SyncNet v2, Whisper large-v3.

    Licences as each language's manifest asks. Most of what is found is dropped in the end, so nothing is measured of
    it that cannot save it (`cascade`).

    Fetching asks for the custom resource `net`, of which each fetching node of `ray_cluster.yaml` has four.
    """
    recipe = own()
    net = Resources(cpus=0.5, workers=(1, 32), custom={"net": 1.0})
    fetch = replace(recipe.fetch, licence="per_language", resources=net)
    return replace(recipe, cascade=True, fetch=fetch)


def sample() -> TalkingFaces:
    """The built-in sample world and the small networks trained on its kind: no network, no GPU, minutes."""
    return TalkingFaces(
        fetch=Fetch(manners=Manners(interval_s=0.0), resources=Resources(cpus=0.25), deadline_s=_HOURS),
        watch=Watch(faces=Faces(pack="sample/faces"), resources=Resources(weight=2.0), deadline_s=_HOURS),
        clip=CutClips(resources=Resources(weight=3.0), deadline_s=_HOURS),  # takes half as long again (LOG.md)
        sync=ScoreSync(model="sample/sync", deadline_s=_HOURS),
        speech=Transcribe(
            model="sample/whisper", align=False, window_s=3.0, part_s=3.0, context_s=4.0, deadline_s=_HOURS
        ),
        identity=Recognise(pack="sample/faces", deadline_s=_HOURS),
        policy=SAMPLE,
    )


_OF_LANGUAGE = re.compile(r"policy\.(\w+)\.([^=]+)=")
"""An assignment of one limit for one language."""

RECIPES = {"sample": sample, "wild": wild, "own": own}


def build(name: str, policy: str | None = None, overrides: Iterable[str] = ()) -> TalkingFaces:
    """A recipe by name with a policy and `--set` assignments applied.

    A limit that is assigned holds for every language: the policy's own exceptions to it go; `policy.LIMIT.LANGUAGE=`
    makes one. The name of a policy that was changed says by what, since index and tables carry no more of it:
    `paper+min_confidence=6`.

    Raises `ValueError` with one line that says what is allowed.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    if policy is not None:
        if policy not in POLICIES:
            raise ValueError(f"--policy {policy}: no such policy; there are {', '.join(POLICIES)}")
        recipe = replace(recipe, policy=POLICIES[policy])
    before, sets = recipe.policy, in_force(overrides)
    if name != "wild" and (vain := [one for one in sets if re.match(r"discover\b", one)]):
        raise ValueError(f"--set {vain[0]}: belongs to the recipe wild; {name} is told its videos and looks for none")
    of_policy = dict(one.removeprefix("policy.").split("=", 1) for one in sets if re.match(r"policy\.[\w.-]+=", one))
    by_language = tuple(one for one in before.by_language if one.limit not in of_policy)
    plain = (one for one in sets if not _OF_LANGUAGE.match(one))
    recipe = override(replace(recipe, policy=replace(before, by_language=by_language)), *plain)
    recipe = replace(recipe, policy=_with_exceptions(recipe.policy, sets))
    if recipe.policy == before or not of_policy or "name" in of_policy:
        return recipe
    said = ",".join(f"{name}={value}" for name, value in sorted(of_policy.items()))
    return replace(recipe, policy=replace(recipe.policy, name=f"{before.name}+{said}"))


def in_force(sets: Iterable[str]) -> tuple[str, ...]:
    """The assignments but those for one language that a later one of the same limit, for all languages, takes back."""
    kept: list[str] = []
    for one in sets:
        limit = one.partition("=")[0]
        kept = [before for before in kept if not before.startswith(f"{limit}.") or not _OF_LANGUAGE.match(before)]
        kept.append(one)
    return tuple(kept)


def _with_exceptions(policy: Policy, sets: Iterable[str]) -> Policy:
    """The policy with the limits of one language that are assigned, as in `policy.min_confidence.zh=2.5`."""
    added: dict[tuple[str, str], ForLanguage] = {}
    for one in sets:
        if found := _OF_LANGUAGE.match(one):
            limit, language = found[1], language_tag(found[2])
            try:
                exception = override(ForLanguage(language, limit, None), f"value={one.partition('=')[2]}")
            except OverrideError as error:
                raise OverrideError(f"--set {one}: {str(error).partition(': ')[2]}") from None
            added[limit, subtag(language)] = exception
    others = (one for one in policy.by_language if (one.limit, subtag(one.language)) not in added)
    return replace(policy, by_language=(*others, *added.values()))
