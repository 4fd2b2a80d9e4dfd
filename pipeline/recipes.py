"""Recipes: which stages with which parameters. The order of the fields is the order of the stages."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from stages.speech import Transcribe

from pipeline.override import override
from pipeline.stage import Resources, Stage
from stages.clip import CutClips
from stages.faces import Faces
from stages.fetch import Fetch
from stages.identity import Recognise
from stages.policies import PAPER, POLICIES, SAMPLE, Policy
from stages.sync import ScoreSync
from stages.watch import Watch


@dataclass(frozen=True, kw_only=True)
class TalkingFaces:
    """Wild video in, talking-face clips out."""

    fetch: Fetch = field(default_factory=Fetch)
    watch: Watch = field(default_factory=Watch)
    clip: CutClips = field(default_factory=CutClips)
    sync: ScoreSync = field(default_factory=ScoreSync)
    speech: Transcribe = field(default_factory=Transcribe)
    identity: Recognise = field(default_factory=Recognise)
    policy: Policy = PAPER
    shard_bytes: int = 1_000_000_000

    def stages(self) -> tuple[Stage[Any], ...]:
        """The stages of a run, in order."""
        return self.fetch, self.watch, self.clip, self.sync, self.speech, self.identity


def wild() -> TalkingFaces:
    """The full models, for real sources: insightface buffalo_l, SyncNet v2, Whisper large-v3."""
    return TalkingFaces(fetch=Fetch(licence="cc"))


def own() -> TalkingFaces:
    """The full models, for one's own material: any licence, the manifest's owner knows."""
    return TalkingFaces()


def sample() -> TalkingFaces:
    """The built-in sample world and the small networks trained on its kind: no network, no GPU, minutes."""
    small = Resources(cpus=0.5)
    return TalkingFaces(
        fetch=Fetch(resources=small),
        watch=Watch(faces=Faces(pack="sample/faces")),
        clip=CutClips(),
        sync=ScoreSync(model="sample/sync"),
        speech=Transcribe(model="sample/whisper", align=False),
        identity=Recognise(pack="sample/faces"),
        policy=SAMPLE,
    )


RECIPES = {"sample": sample, "wild": wild, "own": own}


def build(name: str, policy: str | None = None, overrides: Iterable[str] = ()) -> TalkingFaces:
    """A recipe by name with a policy and `--set` assignments applied.

    Raises `ValueError` with one line that says what is allowed.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    if policy is not None:
        if policy not in POLICIES:
            raise ValueError(f"--policy {policy}: no such policy; there are {', '.join(POLICIES)}")
        recipe = replace(recipe, policy=POLICIES[policy])
    for assignment in overrides:
        recipe = override(recipe, assignment)
    return recipe
