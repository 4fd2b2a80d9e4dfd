"""What is trained and how: frozen dataclasses, and three recipes as functions.

Where the paper (arXiv 2502.09533) is silent, the field's comment says "unstated" and why the value was chosen.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mcdm.limits import above_zero, at_least, between, check_together, check_unet, divides, even, share
from mcdm.local_weights import digest_at

STAGES = (0, 1, 2, 3)

NEEDS: dict[int, tuple[int, ...]] = {0: (), 1: (), 2: (0,), 3: (0, 1, 2)}
"""Which stages must be finished before a stage starts."""


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Pictures to latents. `dct`: orthonormal block transform, nothing learned. `sd`: the VAE of Stable Diffusion."""

    kind: Literal["dct", "sd"]
    size_px: int
    factor: int  # picture pixels per latent pixel, per side
    channels: int
    path: str = ""  # local directory in diffusers' format, for "sd"
    view: float = 1.0  # share of the crop's side that is shown, around the face: small pictures need close faces

    def __post_init__(self) -> None:
        at_least(self, "codec.", 1, "size_px", "factor", "channels")
        divides("codec.factor", self.factor, "codec.size_px", self.size_px)
        even("codec.size_px", self.size_px)  # H.264 takes no other
        if not 0 < self.view <= 1:
            raise ValueError(f"codec.view={self.view:g}: expected a share above 0, at most 1")

    @property
    def latent_px(self) -> int:
        """Latent pixels per side."""
        return self.size_px // self.factor


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Sound to features at the frame rate. `mel`: log-mel bands, nothing learned. `wav2vec2`: a local directory."""

    kind: Literal["mel", "wav2vec2"]
    width: int  # of one feature vector
    vectors: int  # per video frame
    reach: int = 2  # unstated: frames heard on either side, as in EMO and Hallo
    path: str = ""

    def __post_init__(self) -> None:
        at_least(self, "audio.", 1, "width", "vectors")
        at_least(self, "audio.", 0, "reach")

    @property
    def tokens(self) -> int:
        """Audio tokens that the prior gets per frame."""
        return self.vectors * (2 * self.reach + 1)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Reference picture to one vector. `thumbnail`: the picture at 8 x 8 px. `clip`: a CLIP vision tower on disk."""

    kind: Literal["thumbnail", "clip"]
    width: int
    path: str = ""

    def __post_init__(self) -> None:
        at_least(self, "image.", 1, "width")


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Stage 0: lip and expression encoders (supplement B.2) and the landmark guider (head tokens)."""

    face_px: int = 48  # side of the aligned grey face that the encoders see
    patch_px: int = 8
    width: int = 64
    heads: int = 4
    layers: int = 4  # stated
    head_tokens: int = 4  # counts and width of tokens are unstated
    lip_tokens: int = 4
    expression_tokens: int = 4
    token_width: int = 64
    token_noise: float = 0.1  # added to tokens while stage 0 learns, so that the token space is smooth
    cross_weight: float = 1.0  # loss weights are unstated
    consistency_weight: float = 0.1
    level_weight: float = (
        0.03  # of what is decoded before the clip's mean is taken out: more, and the tokens go constant
    )

    def __post_init__(self) -> None:
        at_least(self, "motion.", 16, "face_px")  # less has no mouth patch and upper face
        between(self, "motion.", 1, self.face_px, "patch_px")
        at_least(self, "motion.", 4, "width")  # parts are a quarter as wide
        at_least(self, "motion.", 1, "heads", "layers", "head_tokens", "lip_tokens", "expression_tokens", "token_width")
        divides("motion.heads", self.heads, "motion.width", self.width)
        at_least(self, "motion.", 0, "token_noise", "cross_weight", "consistency_weight", "level_weight")

    @property
    def tokens(self) -> int:
        """Motion tokens per frame, in the order head, lip, expression."""
        return self.head_tokens + self.lip_tokens + self.expression_tokens


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """Archived-clip motion-prior (section 3.2): m = (latent side / patch)^2 patches, n queries of width d."""

    frames: int = 16  # a
    patch: int = 4
    queries: int = 16  # n
    width: int = 768  # d, unstated; the cross-attention width of SD 1.5
    positions: bool = False  # learned positions on patches, queries and frames: not in the equation
    anchor: bool = False  # the oldest archived frame is always the reference: not in the paper, against drift
    noise: float = 0.0  # share of noise on archived latents while training, against drift (as Hallo2)
    start_share: float = 0.05  # of training clips that start cold: archived = reference repeated

    def __post_init__(self) -> None:
        at_least(self, "archive.", 1, "frames", "patch", "queries", "width")
        at_least(self, "archive.", 0, "noise")
        share(self, "archive.", "start_share")


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Present-clip motion-prior diffusion transformer (section 3.3)."""

    layers: int = 8  # L, stated
    width: int = 768  # unstated
    heads: int = 12
    history: bool = True  # the archived frames' tokens stand, clean, before the noised ones: unstated, else clips jump
    history_drop: float = 0.3
    temperature: float = 1.0  # of the noise that motion starts from: below 1 steadier, nearer to what is expected
    landmark_drop: float = 0.5  # of clips; stated without a probability
    late: float = 1.0  # as `UNetConfig.late`: in the noisy steps sound alone says what moves
    prediction: Literal["eps", "v", "x0"] = "eps"  # stated
    gain: float = 1.0  # of lip and expression tokens as they are painted: less noise makes smaller motion
    join: float = 0.0  # of the head's jump at the joint of two clips, what each frame keeps of what the one before kept
    sampling_steps: int = 50  # unstated

    def __post_init__(self) -> None:
        at_least(self, "prior.", 1, "layers", "heads")
        at_least(self, "prior.", 2, "width")
        divides("prior.heads", self.heads, "prior.width", self.width)
        even("prior.width", self.width)
        share(self, "prior.", "history_drop", "landmark_drop", "join")
        above_zero(self, "prior.", "late")
        at_least(self, "prior.", 0, "temperature", "gain")
        between(self, "prior.", 1, 1000, "sampling_steps")  # as many as there are timesteps


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The denoiser: SD 1.5's shape with four attentions per block (section 3.1)."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    archived_reads: Literal["global", "aligned"] = "global"  # unstated: all a*n tokens, or those of the same number
    residual: float = 0.0  # what is noised is (latent - reference's) / residual; 0: the latent. For small models, x0
    see_reference: bool = False  # its latent beside the noise, channel by channel: not in the paper, for small models
    see_last: bool = False  # the same with the last archived frame, as in Hallo; errors add up: `tiny` blurs in 2 s
    see_motion: bool = False  # the reference's head and the decoded motion in their place (`mcdm.sketch`): small models
    repaint: float = 1.0  # share of its answer that counts away from mouth and eyes; below 1 needs see_motion
    pixel_error: bool = False  # learn by the absolute error of pictures and their slopes (`mcdm.sketch`): less blur
    late: float = 1.0  # timesteps are drawn as u^(1/late): above 1 oftener the noisy ones, where few steps start
    strict: bool = False  # Figure 2 read literally: archived features reach the output through the memory alone
    memory_decay: float = 0.1  # alpha of equation 5, stated
    memory_attention: Literal["exact", "favor", "linear"] = "exact"  # the paper's is favor; exact is cheaper at 2f = 32
    favor_features: int = 256
    memory_zero_init: bool = True  # the memory adds nothing at first; needs strict = False
    use_memory: bool = True  # False: the ablation without memory; plain temporal attention over the present clip
    prediction: Literal["eps", "v", "x0"] = "eps"
    schedule: Literal["scaled_linear", "cosine"] = "scaled_linear"
    zero_snr: bool = False
    min_snr: float = 0.0  # gamma of min-SNR weights; 0: off
    noise_offset: float = 0.0
    mouth_weight: float = 0.0  # of the squared error around the mouth, on top of 1: it is a hundredth of the picture
    drop_archived: float = 0.05  # condition dropout, for classifier-free guidance
    drop_present: float = 0.05
    drop_both: float = 0.05
    guidance: float = 1.0  # unstated; 1 = off, at half the cost
    sampling_steps: int = 25  # unstated
    train_spatial: bool = True  # stage 1 trains the UNet's spatial weights too: unstated, see the switch's ablation
    unroll: int = 1  # clips in a row that stage 3 learns on, memory carried from one to the next: unstated
    tune_spatial: bool = False  # stage 3 trains all weights on: the paper freezes them, after 30,000 steps
    checkpointing: bool = False  # recompute transformer blocks in the backward pass

    def __post_init__(self) -> None:
        at_least(self, "unet.", 1, "layers", "heads", "groups", "favor_features")
        if self.unroll < 1:
            raise ValueError(f"unet.unroll={self.unroll}: expected 1 or more clips in a row")
        above_zero(self, "unet.", "late")
        at_least(self, "unet.", 0, "residual", "min_snr", "noise_offset", "mouth_weight")
        share(self, "unet.", "repaint", "memory_decay", "drop_archived", "drop_present", "drop_both")
        between(self, "unet.", 1, 1000, "sampling_steps")
        check_unet(self)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """How long and how fast one stage learns. `batch` is global: all ranks and accumulation steps together."""

    steps: int
    batch: int
    rate: float
    warmup: int = 0
    final_rate: float = 1.0  # share of `rate` that a cosine ends at; 1 = constant


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW is stated; the rest of this is not."""

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.9999

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            said = ",".join(map(str, self.betas))
            raise ValueError(f"optimizer.betas={said}: expected two numbers from 0, below 1")
        at_least(self, "optimizer.", 0, "weight_decay")
        above_zero(self, "optimizer.", "clip_norm")
        share(self, "optimizer.", "ema_decay")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what is learned. Two recipes with equal `digest` can share checkpoints."""

    name: str
    frames: int  # f, of the present clip
    codec: CodecConfig
    audio: AudioConfig
    image: ImageConfig
    motion: MotionConfig
    archive: ArchiveConfig
    prior: PriorConfig
    unet: UNetConfig
    plans: tuple[StagePlan, StagePlan, StagePlan, StagePlan]
    optimizer: OptimizerConfig = field(default=OptimizerConfig())
    sd_weights: str = ""  # SD 1.5 UNet (safetensors or a diffusers directory) to start stage 1 from; none: a random one
    motion_weights: str = ""  # AnimateDiff motion module to start the memory attention from

    def __post_init__(self) -> None:
        at_least(self, "", 1, "frames")
        for number, plan in enumerate(self.plans):
            at_least(plan, f"plans.{number}.", 1, "steps", "batch")
            at_least(plan, f"plans.{number}.", 0, "rate", "warmup", "final_rate")
        check_together(self)

    @property
    def digest(self) -> str:
        """Names the shapes and meaning of the weights: plans, weights to start from and sampling are left out."""
        known = dataclasses.asdict(self)
        for name in ("name", "plans", "optimizer", "sd_weights", "motion_weights"):
            del known[name]
        for group, names in _NOT_MEANING.items():
            for name in names:
                del known[group][name]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def encoding(self) -> str:
        """Names what `encode` writes: latents and features depend on nothing else of the recipe."""
        parts = (self.codec, self.audio, self.image)
        known = [{**dataclasses.asdict(part), "path": digest_at(part.path)} for part in parts]
        version = 3 if self.codec.kind == "sd" else 2  # 2: faces are shrunk by areas; 3: float16 on a GPU
        version += 2 * (self.audio.kind == "wav2vec2")  # each of its vectors in its place, none stretched
        known.append({"face_px": self.motion.face_px, "version": version})
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]


_NOT_MEANING: dict[str, tuple[str, ...]] = {
    "codec": ("path",),
    "audio": ("path",),
    "image": ("path",),
    "motion": ("token_noise", "cross_weight", "consistency_weight", "level_weight"),
    "archive": ("noise", "start_share"),
    "prior": ("history_drop", "landmark_drop", "late", "temperature", "gain", "join", "sampling_steps"),
    "unet": (
        *("min_snr", "noise_offset", "mouth_weight", "pixel_error", "late"),
        *("drop_archived", "drop_present", "drop_both"),
        *("guidance", "sampling_steps", "train_spatial", "tune_spatial", "unroll", "checkpointing"),
    ),
}


def tiny() -> Recipe:
    """64 px on two CPU cores: all four stages within 15 minutes and 4 GB."""
    return Recipe(
        name="tiny",
        frames=8,
        codec=CodecConfig(kind="dct", size_px=64, factor=4, channels=24, view=0.66),  # all of luma
        audio=AudioConfig(kind="mel", width=128, vectors=1),
        image=ImageConfig(kind="thumbnail", width=192),
        motion=MotionConfig(patch_px=12, width=64, head_tokens=1, lip_tokens=2, expression_tokens=1, token_width=16),
        archive=ArchiveConfig(
            frames=8, patch=4, queries=16, width=64, positions=True, anchor=True, noise=0.05, start_share=0.15
        ),
        prior=PriorConfig(
            layers=3,
            width=96,
            heads=4,
            prediction="v",
            # As measured with one seed before faces were shrunk by areas; since then, as it is here, the mouths
            # correlate by 0.29, 0.37, 0.37 and 0.40 (another's sound: 0.04; `learn.json`) with other draws:
            late=4.0,  # mouth and true mouth correlate by 0.40 (another's sound: 0.14), with 1 by 0.22 (0.05)
            temperature=0.1,  # the prior's mouth and the true one correlate by 0.23 at 1, 0.41 at 0; at 1 heads shake
            gain=1.7,  # mouths open by 0.56 of the true spread without
            join=0.7,  # without, pictures where clips meet differ by 2.5 grey levels, by 0.8 within; with it by 0.9
            sampling_steps=10,
        ),
        unet=UNetConfig(
            channels=(48, 96),
            attention=(False, True),
            layers=1,
            heads=2,
            groups=8,
            residual=0.18,  # the spread of what differs, measured on the sample set
            see_reference=True,
            see_motion=True,
            repaint=0.0,
            pixel_error=True,
            late=4.0,
            tune_spatial=True,
            mouth_weight=10.0,
            prediction="x0",  # a small network's error is blur with x0, noise with v
            schedule="cosine",
            favor_features=64,
            drop_archived=0.02,
            drop_present=0.05,
            drop_both=0.02,
            sampling_steps=1,  # two add noise that a small network does not take out again: SSIM 0.59 instead of 0.75
        ),
        plans=(
            StagePlan(steps=500, batch=8, rate=3e-3, warmup=20, final_rate=0.05),
            StagePlan(steps=130, batch=4, rate=1.5e-3, warmup=20, final_rate=0.05),
            StagePlan(steps=550, batch=16, rate=1e-3, warmup=30, final_rate=0.05),
            StagePlan(steps=390, batch=4, rate=1e-3, warmup=20, final_rate=0.05),
        ),
        optimizer=OptimizerConfig(ema_decay=0.99, betas=(0.9, 0.99)),
    )


def small() -> Recipe:
    """256 px on one GPU: minutes to hours."""
    return Recipe(
        name="small",
        frames=16,
        codec=CodecConfig(kind="dct", size_px=256, factor=8, channels=48, view=0.66),
        audio=AudioConfig(kind="mel", width=128, vectors=1),
        image=ImageConfig(kind="thumbnail", width=192),
        motion=MotionConfig(face_px=64, width=128, head_tokens=2, lip_tokens=4, expression_tokens=4, token_width=32),
        archive=ArchiveConfig(width=512, positions=True, anchor=True, noise=0.1, start_share=0.1),
        prior=PriorConfig(layers=8, width=512, heads=8, prediction="v"),
        unet=UNetConfig(channels=(128, 256, 512, 512), prediction="v", schedule="cosine", zero_snr=True),
        plans=(
            StagePlan(steps=2000, batch=64, rate=3e-4, warmup=100),
            StagePlan(steps=3000, batch=16, rate=1e-4, warmup=100),
            StagePlan(steps=3000, batch=32, rate=1e-4, warmup=100),
            StagePlan(steps=3000, batch=16, rate=1e-4, warmup=100),
        ),
        optimizer=OptimizerConfig(ema_decay=0.999),
    )


def paper() -> Recipe:
    """The paper's scale: SD 1.5's UNet at 512 px, 16 frames; 8 GPUs with 4 clips each, 30,000 steps per stage.

    Give `codec.path`, `audio.path`, `image.path`, `sd_weights` and, if wanted, `motion_weights` with `--set`.
    """
    plan = StagePlan(steps=30_000, batch=32, rate=1e-5)
    return Recipe(
        name="paper",
        frames=16,
        codec=CodecConfig(kind="sd", size_px=512, factor=8, channels=4),
        audio=AudioConfig(kind="wav2vec2", width=768, vectors=2),
        image=ImageConfig(kind="clip", width=768),
        motion=MotionConfig(face_px=96, width=256, heads=8, token_width=768),
        archive=ArchiveConfig(),
        prior=PriorConfig(),
        unet=UNetConfig(checkpointing=True),
        plans=(plan, plan, plan, plan),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"tiny": tiny, "small": small, "paper": paper}
