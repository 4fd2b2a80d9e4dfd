"""Who is seen: the numbers that make one rendered person, drawn from a seed."""

import functools
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # RGB, 0..1, as displayed


@dataclass(frozen=True)
class Shape:
    """Proportions of a head; 1 is the average."""

    width: float = 1.0
    jaw_width: float = 1.0
    chin: float = 1.0
    cheek: float = 1.0
    cheekbone: float = 1.0
    brow: float = 1.0
    socket: float = 1.0
    nose_length: float = 1.0
    nose_width: float = 1.0
    nose_depth: float = 1.0
    nose_bridge: float = 1.0
    nose_tip: float = 1.0
    lips: float = 1.0
    mouth_width: float = 0.26  # half, decimetres
    eye_spacing: float = 0.315  # of one eye from the middle, decimetres
    eye_open: float = 1.0
    eye_tilt: float = 0.0  # slope of the line through the corners of an eye
    neck: float = 1.0


@dataclass(frozen=True)
class Person:
    """One rendered person. Frozen and hashable: meshes and textures are made from it once and kept."""

    seed: int
    woman: bool
    shape: Shape
    skin: Colour
    redness: float
    freckles: float
    age: float  # 0 young .. 1 old: folds and spots
    lips: Colour
    iris: Colour
    hair: str  # bald, buzz, short, side, curly, bob, long, wavy, bun or scarf
    hair_colour: Colour
    brows: float  # thickness
    beard: float  # 0 shaven, 0.4 stubble, 1 full
    makeup: float
    glasses: str  # "", "round", "square"
    clothes: Colour
    collar: str  # "round", "v", "shirt", "high"
    pattern: str  # "plain", "stripes", "checks"


_SKINS = (
    (0.95, 0.80, 0.72),
    (0.91, 0.73, 0.62),
    (0.84, 0.65, 0.53),
    (0.76, 0.57, 0.44),
    (0.62, 0.44, 0.33),
    (0.47, 0.32, 0.24),
    (0.36, 0.24, 0.18),
)
_HAIRS = (
    (0.07, 0.06, 0.06),
    (0.14, 0.10, 0.08),
    (0.24, 0.16, 0.10),
    (0.38, 0.25, 0.15),
    (0.62, 0.47, 0.28),
    (0.78, 0.66, 0.45),
    (0.45, 0.20, 0.10),
    (0.60, 0.60, 0.60),
)
_IRISES = (
    (0.26, 0.16, 0.09),
    (0.33, 0.22, 0.12),
    (0.40, 0.35, 0.18),
    (0.35, 0.45, 0.30),
    (0.40, 0.50, 0.60),
    (0.30, 0.42, 0.58),
)
_CLOTHES = (
    (0.13, 0.15, 0.20),
    (0.75, 0.75, 0.73),
    (0.45, 0.12, 0.14),
    (0.15, 0.30, 0.45),
    (0.25, 0.35, 0.25),
    (0.55, 0.45, 0.30),
    (0.30, 0.20, 0.35),
    (0.60, 0.65, 0.75),
)


CORPUS_PEOPLE = range(1000)
"""Seeds of the people of the corpus: never trained on."""


@functools.lru_cache(maxsize=4096)
def person(seed: int) -> Person:
    """Draw a person: equal seeds give equal people, on any machine."""
    rng = np.random.default_rng([seed, 0x9E0])
    tone = rng.uniform(0, len(_SKINS) - 1)
    skin = _between(_SKINS, tone)
    woman = rng.random() < 0.5
    age = float(rng.beta(1.3, 2.2))
    dark = tone > 3.2
    hair_colour = _HAIRS[int(rng.integers(0, 3))] if dark else _HAIRS[int(rng.integers(0, 7))]
    if age > 0.55 and rng.random() < 0.6:
        hair_colour = _between((hair_colour, _HAIRS[7]), float(rng.uniform(0.4, 1.0)))
    styles = (
        ("bob", "long", "wavy", "bun", "curly", "scarf", "side")
        if woman
        else ("short", "side", "buzz", "bald", "curly", "short", "long")
    )
    weights = (0.2, 0.22, 0.18, 0.14, 0.1, 0.1, 0.06) if woman else (0.34, 0.22, 0.14, 0.08, 0.1, 0.08, 0.04)
    makeup = float(rng.beta(1.5, 1.5)) if woman else 0.0
    natural = np.array(skin) * (0.90, 0.66, 0.66)
    painted = np.array(((0.72, 0.20, 0.25), (0.62, 0.25, 0.30), (0.75, 0.38, 0.38))[int(rng.integers(3))])
    lips = natural * (1 - 0.6 * makeup) + painted * 0.6 * makeup
    return Person(
        seed=seed,
        woman=woman,
        shape=_shape(rng, woman=woman),
        skin=skin,
        redness=float(rng.uniform(0.3, 1.0)),
        freckles=float(max(0.0, rng.normal(0, 0.4)) if tone < 2 else 0.0),
        age=age,
        lips=_colour(lips),
        iris=_IRISES[int(rng.integers(0, 2 if dark else len(_IRISES)))],
        hair=str(rng.choice(styles, p=weights)),
        hair_colour=hair_colour,
        brows=float(rng.uniform(0.55, 0.9) if woman else rng.uniform(0.8, 1.4)),
        beard=0.0 if woman else float(rng.choice((0.0, 0.15, 0.4, 0.75, 1.0), p=(0.3, 0.2, 0.2, 0.15, 0.15))),
        makeup=makeup,
        glasses=str(rng.choice(("", "round", "square"), p=(0.76, 0.12, 0.12))),
        clothes=_colour(np.array(_CLOTHES[int(rng.integers(len(_CLOTHES)))]) * rng.uniform(0.8, 1.2, 3)),
        collar=str(rng.choice(("round", "v", "shirt", "high"), p=(0.35, 0.2, 0.3, 0.15))),
        pattern=str(rng.choice(("plain", "stripes", "checks"), p=(0.66, 0.18, 0.16))),
    )


def _shape(rng: np.random.Generator, *, woman: bool) -> Shape:
    def about(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.normal(), -1.8, 1.8))

    return Shape(
        width=about(0.98 if woman else 1.02, 0.03),
        jaw_width=about(0.93 if woman else 1.03, 0.05),
        chin=about(0.96 if woman else 1.04, 0.05),
        cheek=about(1.0, 0.35),
        cheekbone=about(1.0, 0.3),
        brow=about(0.6 if woman else 1.25, 0.3),
        socket=about(0.9 if woman else 1.05, 0.15),
        nose_length=about(0.96 if woman else 1.03, 0.06),
        nose_width=about(1.0, 0.13),
        nose_depth=about(0.98, 0.10),
        nose_bridge=about(1.0, 0.6),
        nose_tip=about(1.0, 0.5),
        lips=about(1.1 if woman else 0.95, 0.14),
        mouth_width=about(0.255 if woman else 0.268, 0.012),
        eye_spacing=about(0.315, 0.010),
        eye_open=about(1.08 if woman else 0.95, 0.10),
        eye_tilt=about(0.05, 0.06),
        neck=about(0.86 if woman else 1.06, 0.05),
    )


def _between(colours: tuple[Colour, ...], at: float) -> Colour:
    low = min(int(at), len(colours) - 2)
    share = at - low
    return _colour(np.array(colours[low]) * (1 - share) + np.array(colours[low + 1]) * share)


def _colour(rgb: np.ndarray) -> Colour:
    r, g, b = (float(v) for v in np.clip(rgb, 0.02, 0.97))
    return r, g, b
