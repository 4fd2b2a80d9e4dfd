"""What the videos of a sample corpus show: who, where, in which language, with which planted flaw."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from manifests.sample.person import CORPUS_PEOPLE, person
from stages.sample.sentences import LANGUAGES
from stages.sample.voice import CORPUS_SPEAKERS

_RATES = {
    "en": Fraction(25), "de": Fraction(30000, 1001), "zh": Fraction(25), "fr": Fraction(50),
    "hr": Fraction(24000, 1001), "ru": Fraction(25), "pl": Fraction(25), "es": Fraction(30),
    "ar": Fraction(25), "th": Fraction(30000, 1001),
}  # fmt: skip
_SIZES = {"ru": (854, 480), "pl": (360, 640)}
_SECOND = {  # flaws of the second video of each language: in one scene of it
    "en": "shifted_audio:6", "de": "shifted_audio:-5", "zh": "other_voice", "fr": "still_face", "hr": "silent_talker",
    "ru": "listener", "pl": "code_switch", "es": "small_shift:1", "ar": "tiny_face", "th": "blur",
}  # fmt: skip
_THIRD = {
    "en": "duplicate", "de": "wrong_tag", "zh": "no_audio", "fr": "no_face", "hr": "truncated",
    "ru": "cut_in_speech", "pl": "shifted_audio:-8", "es": "other_voice", "ar": "listener", "th": "silent_talker",
}  # fmt: skip
WHOLE_FILE = ("duplicate", "wrong_tag", "no_audio", "no_face", "truncated")
"""Flaws of a file, not of one of its scenes."""


@dataclass(frozen=True, kw_only=True)
class Take:
    """One scene: one person talking (and perhaps another listening) for about `length_s`."""

    seed: int
    person: int
    language: str
    length_s: float
    flaw: str = ""
    offset_frames: int = 0  # of the sound against the picture, at 25 fps
    yaw_deg: float = 0.0
    other: int = -1  # the listener, or whose voice is heard
    angles: int = 1  # camera angles, cut within the speech


@dataclass(frozen=True, kw_only=True)
class Script:
    """One video."""

    seed: int
    name: str
    language: str  # as tagged
    width: int
    height: int
    rate_hz: Fraction
    takes: tuple[Take, ...]
    flaw: str = ""  # one of WHOLE_FILE or ""
    copy_of: str = ""
    title: str = ""
    channel: str = ""


@dataclass(frozen=True, kw_only=True)
class Hardness:
    """How far from a studio: all zero for the committed corpus."""

    noise: float = 0.0  # of the sound: share of the speech's level
    music: float = 0.0
    yaw_deg: float = 0.0  # people sit turned by up to this much
    grain: float = 0.0  # more noise in the picture
    crf: int = 29  # of x264
    generations: int = 1  # encoded so many times
    variable_rate: float = 0.0  # share of frames left out


HARD = Hardness(noise=0.12, music=0.10, yaw_deg=35.0, grain=3.0, crf=33, generations=2, variable_rate=0.15)


def speaker_of(who: int) -> int:
    """A voice for a person, of the right sex: `voice.voice` gives men the variants 0, 2 and 4 of five."""
    fitting = (1, 3) if person(who).woman else (0, 2, 4)
    return CORPUS_SPEAKERS.start + who // 5 * 5 + fitting[who % len(fitting)]


def scripts(seed: int, *, minutes: float | None = None, hardness: Hardness = Hardness()) -> list[Script]:
    """Three videos a language; with `minutes`, as many rounds of these as fill it."""
    rng = np.random.default_rng([seed, 0x5C1])
    people = [int(p) for p in rng.permutation(len(CORPUS_PEOPLE))]
    found: list[Script] = []
    wanted = 0.0 if minutes is None else minutes * 60
    rounds = 0
    while not found or sum(t.length_s for s in found for t in s.takes) < wanted:
        for number, language in enumerate(LANGUAGES):
            at = (rounds * 40 + number * 4) % (len(people) - 4)
            found += _Author(rng, language, people[at : at + 4], rounds, hardness).write()
        rounds += 1
    return found


@dataclass(frozen=True)
class _Author:
    """Writes the three videos of one language."""

    rng: np.random.Generator
    language: str
    people: list[int]
    round_: int
    hardness: Hardness

    def take(self, who: int, length_s: float, *, language: str = "") -> Take:
        turned = float(self.rng.uniform(-self.hardness.yaw_deg, self.hardness.yaw_deg))
        yaw_deg = turned if self.hardness.yaw_deg else float(self.rng.choice((0, 0, -14, 14, -24, 24)))
        seed = int(self.rng.integers(1 << 31))
        return Take(seed=seed, person=who, language=language or self.language, length_s=length_s, yaw_deg=yaw_deg)

    def script(self, number: int, takes: list[Take], rate_hz: Fraction, flaw: str = "") -> Script:
        width, height = _SIZES.get(self.language, (640, 360))
        name = f"{self.language}{self.round_ or ''}-{number}"
        return Script(
            seed=int(self.rng.integers(1 << 31)),
            name=name,
            language=self.language,
            width=width,
            height=height,
            rate_hz=rate_hz,
            takes=tuple(takes),
            flaw=flaw,
            title=f"People talking, {name}",
            channel=f"sample-{self.language}-{self.people[0]}",
        )

    def write(self) -> list[Script]:
        people, rate = self.people, _RATES[self.language]
        takes = [self.take(people[0], 8.5), self.take(people[1], 7.5), self.take(people[0], 6.0)]
        first = self.script(1, takes, rate)
        clean = self.take(people[1], 8.0)
        flawed = _flawed(self.take(people[2], 9.0), _SECOND[self.language], people[3])
        second = [flawed, clean] if self.rng.random() < 0.5 else [clean, flawed]
        return [first, self.script(2, second, Fraction(25)), self._third(first)]

    def _third(self, first: Script) -> Script:
        flaw, people = _THIRD[self.language], self.people
        if flaw == "duplicate":
            return replace(first, name=f"{first.name}-again", flaw=flaw, copy_of=first.name, channel="sample-copies")
        if flaw in WHOLE_FILE:
            spoken = "fr" if flaw == "wrong_tag" else ""
            takes = [self.take(people[3], 9.0, language=spoken), self.take(people[2], 8.0, language=spoken)]
            return self.script(3, takes, Fraction(25), flaw)
        length_s = 11.0 if flaw == "cut_in_speech" else 9.0
        flawed = _flawed(self.take(people[3], length_s), flaw, people[0])
        return self.script(3, [self.take(people[2], 8.0), flawed], Fraction(25))


def _flawed(take: Take, flaw: str, other: int) -> Take:
    name, _, offset = flaw.partition(":")
    straight = take.yaw_deg if name not in ("listener", "tiny_face") else float(np.clip(take.yaw_deg, -10, 10))
    return replace(
        take,
        flaw=name,
        yaw_deg=straight,
        offset_frames=int(offset or 0),
        other=other if name in ("listener", "other_voice") else -1,
        angles=2 if name == "cut_in_speech" else 1,
    )
