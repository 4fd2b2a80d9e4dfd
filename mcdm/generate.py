"""Long talking-face video, clip after clip: archived frames, motion and memory are carried; memory use is constant."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mcdm import diffusion, distributed
from mcdm.checkpoint import load_learned, read_recipe
from mcdm.config import Recipe
from mcdm.denoiser import Denoiser
from mcdm.diffusion import N_TIMESTEPS, draw_normal
from mcdm.driving import heads_like, read_driving
from mcdm.encoders import encode_pictures, freeze, heard, make_audio, make_codec, make_image
from mcdm.faces import Bytes, Floats, warped
from mcdm.identity import FacePack
from mcdm.local_weights import check_paths
from mcdm.motion import Motion
from mcdm.override import in_use
from mcdm.precision import Precision, autocast, takes_bf16
from mcdm.prior import MotionPrior
from mcdm.sketch import landmarks_of, placed, sketch
from mcdm.sound import feature_rows, sound_chunks
from mcdm.video import VideoWriter

log = logging.getLogger("mcdm")

_MOTION_NOISE, _LATENT_NOISE = 0, 1


@dataclass
class State:
    """What goes from clip to clip, one row per video. `carries`: per denoising step, per block, (b, h w, c), bfloat16
    where the denoiser computes in it; all else is float32."""

    seeds: Tensor  # (b,)
    reference: Tensor  # (b, 1, c, h, w)
    points: Tensor  # (b, 5, 2), its landmarks as shares of the picture
    image: Tensor  # (b, e)
    archived: Tensor  # (b, a, c, h, w)
    tokens: Tensor  # (b, max(a, f), n, d), of the newest frames; zero where none was made yet
    carries: list[list[Tensor]] | None = None
    number: int = 0  # of the next clip


class Talker:
    """The four trained models of a run together. Raises `ValueError` where a stage is missing.

    `use_archive` and `carry_memory` switch off, for ablations, history frames and the memory between clips; `settings`
    are those of `in_use`. With `bf16` prior and denoiser compute as in training with it; noise, steps and pictures stay
    float32.
    """

    def __init__(
        self,
        run: Path,
        device: torch.device,
        *,
        steps: int = 0,
        settings: Sequence[str] = (),
        use_archive: bool = True,
        carry_memory: bool = True,
        bf16: bool = False,
    ) -> None:
        if not 0 <= steps <= N_TIMESTEPS:
            raise ValueError(f"--steps {steps}: expected at most {N_TIMESTEPS}, as many as there are timesteps")
        self.recipe: Recipe = in_use(read_recipe(run), settings)
        check_paths(self.recipe)
        recipe, self.device = self.recipe, device
        self.motion, self.prior, self.denoiser = Motion(recipe.motion), MotionPrior(recipe), Denoiser(recipe)
        load_learned(self.motion, run, 0, recipe)
        load_learned(self.prior, run, 2, recipe)
        load_learned(self.denoiser, run, 3, recipe)
        for model in (self.motion, self.prior, self.denoiser):
            freeze(model).to(device)
        self.codec = make_codec(recipe.codec).to(device)
        self.image = make_image(recipe.image).to(device)
        self.steps = steps or recipe.unet.sampling_steps
        self.use_archive, self.carry_memory, self.bf16 = use_archive, carry_memory, bf16
        self.motion_schedule = diffusion.make_schedule("cosine")

    @property
    def history(self) -> int:
        """Frames before the present clip whose sound the prior hears too."""
        return self.prior.window - self.recipe.frames

    @torch.no_grad()
    def begin(self, references: Bytes, seeds: list[int], points: Floats | None = None) -> State:
        """Start videos of reference pictures (b, side, side, 3) at the recipe's size, with landmarks (b, 5, 2), shares
        of the side; None: where training faces have them."""
        pictures = torch.from_numpy(references).to(self.device)
        latents = encode_pictures(self.codec, pictures[:, None])
        image = self.image(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1)
        a, motion = self.recipe.archive.frames, self.recipe.motion
        kept = max(a, self.recipe.frames)
        tokens = torch.zeros(len(pictures), kept, motion.tokens, motion.token_width, device=self.device)
        if points is None:
            points = usual_landmarks(self)[None].repeat(len(pictures), 0)
        at = torch.from_numpy(points).to(self.device)
        return State(torch.tensor(seeds), latents, at, image, latents.expand(-1, a, -1, -1, -1), tokens)

    @torch.no_grad()
    def clip(self, state: State, audio: Tensor, heads: Tensor | None = None) -> tuple[Tensor, State]:
        """The next f frames, latents (b, f, c, h, w), for sound (b, history + f, k, c) in audio tokens, and for head
        states (b, history + f, 13) where the head is to move like these."""
        tokens = self._move(state, audio, heads)
        loud = torch.ones(tokens.shape[2], 1, device=self.device)
        loud[self.recipe.motion.head_tokens :] = self.recipe.prior.gain
        latents, carries = self._paint(state, tokens * loud)
        a = self.recipe.archive.frames
        archived = torch.cat([state.archived, latents], 1)[:, -a:] if self.use_archive else state.archived
        return latents, State(
            state.seeds,
            state.reference,
            state.points,
            state.image,
            archived,
            torch.cat([state.tokens, tokens], 1)[:, -state.tokens.shape[1] :],
            carries=carries if self.carry_memory else None,
            number=state.number + 1,
        )

    def _move(self, state: State, audio: Tensor, heads: Tensor | None) -> Tensor:
        """Motion tokens (b, f, n, d) from the prior; those of the head as they are given, which it does not answer."""
        recipe, w = self.recipe, self.prior.window
        shape = (w, recipe.motion.tokens, recipe.motion.token_width)
        z = draw_normal(state.seeds, 2 * state.number + _MOTION_NOISE + 100, shape, self.device)
        z = z * recipe.prior.temperature
        known = torch.zeros(len(z), w, dtype=torch.bool, device=self.device)
        made = min(state.number * recipe.frames, self.history)  # before them there was nothing to be clean
        known[:, self.history - made : self.history] = True
        given = torch.cat([state.tokens[:, -self.history :] if self.history else z[:, :0], z[:, self.history :]], 1)
        landmarks = self.motion.of_head(heads) if heads is not None else None
        has_landmarks = known.new_ones(len(z)) if heads is not None else None
        steps = self.motion_schedule.timesteps(recipe.prior.sampling_steps)
        for t, t_next in zip(steps, [*steps[1:], -1], strict=True):
            z = torch.where(known[:, :, None, None], given, z)
            at = torch.full((len(z),), t, device=self.device)
            with autocast(self.device, bf16=self.bf16):
                answer = self.prior(
                    z, at, audio, state.image, landmarks=landmarks, has_landmarks=has_landmarks, known=known
                ).float()
            x, eps = diffusion.split(self.motion_schedule, recipe.prior.prediction, z, answer, at)
            z = diffusion.ddim_step(self.motion_schedule, x.clamp(-4, 4), eps, t_next)
        if landmarks is not None:
            z = torch.cat([landmarks, z[:, :, recipe.motion.head_tokens :]], 2)
        z = z[:, -recipe.frames :]
        return self._joined(state.tokens[:, -1:], z) if landmarks is None and state.number else z

    def _joined(self, last: Tensor, tokens: Tensor) -> Tensor:
        """A clip's tokens (b, f, n, d) whose head goes on from where it was in the `last` frame (b, 1, n, d), and comes
        to where the prior has it, which after true frames is off by five times what a head moves from one to the next.
        """
        n = self.recipe.motion.head_tokens
        left = self.recipe.prior.join ** torch.arange(1, tokens.shape[1] + 1, device=self.device)
        heads = tokens[:, :, :n] + left[:, None, None] * (last - tokens[:, :1])[:, :, :n]
        return torch.cat([heads, tokens[:, :, n:]], 2)

    def _paint(self, state: State, tokens: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Latents (b, f, c, h, w) from the denoiser, and its memories per denoising step."""
        denoiser, config, b = self.denoiser, self.recipe.unet, len(tokens)
        guided = config.guidance != 1.0
        with autocast(self.device, bf16=self.bf16):
            past, now = denoiser.archive(state.reference, state.archived), denoiser.context(tokens)
        base, drawn, gate = state.reference, None, None
        if config.see_motion:
            points = landmarks_of(self.motion, tokens)
            base, gate = placed(self.codec, base, state.points, points), denoiser.gate(points)
            drawn = sketch(self.motion, self.recipe.codec, tokens)
        beside = denoiser.beside(state.reference, state.archived, base, tokens.shape[1])
        if guided:
            past, now = torch.cat([past, torch.zeros_like(past)]), torch.cat([now, torch.zeros_like(now)])
            beside, drawn = (
                torch.cat([one, torch.zeros_like(one)]) if one is not None else None for one in (beside, drawn)
            )
            gate = torch.cat([gate, gate]) if gate is not None else None
        shape = (self.recipe.frames, *state.reference.shape[2:])
        z = draw_normal(state.seeds, 2 * state.number + _LATENT_NOISE + 100, shape, self.device)
        steps, carries = denoiser.schedule.timesteps(self.steps), []
        for i, (t, t_next) in enumerate(zip(steps, [*steps[1:], -1], strict=True)):
            at = torch.full((b * (1 + guided),), t, device=self.device)
            carry = state.carries[i] if state.carries is not None else None
            with autocast(self.device, bf16=self.bf16):
                answer, kept = denoiser(torch.cat([z, z]) if guided else z, at, past, now, carry, beside, drawn, gate)
            carries.append(kept)
            answer = answer.float()
            if guided:
                full, empty = answer.chunk(2)
                answer = empty + config.guidance * (full - empty)
            x, eps = diffusion.split(denoiser.schedule, config.prediction, z, answer, at[:b])
            z = diffusion.ddim_step(denoiser.schedule, x, eps, t_next)
        return denoiser.unwrap(z, base), carries

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Bytes:
        """Latents (b, f, c, h, w) to pictures (b, f, side, side, 3)."""
        flat = self.codec.decode(latents.flatten(0, 1))
        shown = ((flat + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        pictures: Bytes = torch.unflatten(shown, 0, latents.shape[:2]).cpu().numpy()
        return pictures

    def talk(
        self, reference: "Reference", rows: Iterator[Tensor], frames: int, seed: int, driving: Floats | None = None
    ) -> Iterator[Bytes]:
        """One video: pictures (n, side, side, 3), clip after clip, `frames` in all, for audio feature rows (v, c). The
        head moves by itself, or like landmarks (frames, 5, 2) of another."""
        f, reach = self.recipe.frames, self.recipe.audio.reach
        points = None if reference.landmarks is None else reference.landmarks[None]
        state = self.begin(reference.picture[None], [seed], points)
        heads = None if driving is None else heads_like(driving, state.points[0].cpu().numpy())
        first = next(rows)
        heard_rows = [first] * (self.history + reach + 1)
        for done in range(0, frames, f):
            missing = self.history + f + 2 * reach - len(heard_rows)
            for _ in range(missing):  # the sound's last row stands for what follows it, as in training
                heard_rows.append(next(rows, heard_rows[-1]))
            window = heard(torch.stack(heard_rows).to(self.device), reach)
            at = np.arange(done - self.history, done + f).clip(0, frames - 1)
            move = None if heads is None else torch.from_numpy(heads[at]).to(self.device)[None]
            latents, state = self.clip(state, window[None], move)
            yield self.pictures(latents)[0, : frames - done]
            heard_rows = heard_rows[f:]


@dataclass(frozen=True)
class Reference:
    """A picture (side, side, 3) as the recipe wants it, and the face's landmarks (5, 2) in it, shares of the side."""

    picture: Bytes
    landmarks: Floats | None  # None: not known, taken to lie where training faces have them


def read_reference(path: Path, talker: Talker, face_pack: str) -> Reference:
    """A picture from a file; raises `ValueError` if it cannot be.

    The one face is found and put where faces are in training; with `face_pack` "" a square picture is taken as it is.
    """
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path}: no such picture, or none that can be read")
    side, landmarks = talker.recipe.codec.size_px, None
    if not face_pack:
        height, width = picture.shape[:2]
        if abs(height - width) > 0.02 * width:
            raise ValueError(f"{path} is {width} x {height}: --face-pack none needs a square crop of the face")
        cropped = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    else:
        faces = FacePack(face_pack).find(picture)
        if len(faces) != 1:
            raise ValueError(
                f"{path}: {face_pack} finds {len(faces) or 'no'} face{'s' if len(faces) > 1 else ''}, expected one;"
                " give another picture, another --face-pack, or --face-pack none for a square crop taken as it is"
            )
        cropped, at = place_face(picture, faces[0].landmarks, usual_landmarks(talker) * side, side)
        landmarks = at / np.float32(side)
    return Reference(np.asarray(cv2.cvtColor(cropped, cv2.COLOR_BGR2RGB), np.uint8), landmarks)


def usual_landmarks(talker: Talker) -> Floats:
    """Where training faces have their landmarks, (5, 2) as shares of the side: the mean motion token, decoded."""
    motion = talker.recipe.motion
    zero = torch.zeros(1, 1, motion.tokens, motion.token_width, device=talker.device)
    with torch.no_grad():
        state = talker.motion.head_of(zero)[0, 0, :10].cpu().numpy()
    points: Floats = state.reshape(5, 2) + np.float32(0.5)
    return points


def place_face(picture: Bytes, landmarks: Floats, wanted: Floats, side: int) -> tuple[Bytes, Floats]:
    """Crop (scale and shift, no turn) so that landmarks (5, 2) come to lie on the wanted ones; edges are repeated.

    Gives the crop (side, side, 3) and its landmarks (5, 2), pixels: near the wanted ones, as faces differ.
    """
    scale, shift = placing(landmarks, wanted)
    return moved(picture, scale, shift, side), (scale * landmarks + shift).astype(np.float32)


def placing(landmarks: Floats, wanted: Floats) -> tuple[float, Floats]:
    """Scale and shift (2,), pixels, that bring landmarks (5, 2) onto the wanted ones."""
    source, target = landmarks - landmarks.mean(0), wanted - wanted.mean(0)
    scale = float(np.sqrt((target**2).sum() / max((source**2).sum(), 1e-6)))
    shift: Floats = wanted.mean(0) - scale * landmarks.mean(0)
    return scale, shift


def moved(picture: Bytes, scale: float, shift: Floats, side: int) -> Bytes:
    """A square (side, side, 3) of a picture (h, w, 3) scaled and shifted by pixels; edges are repeated."""
    return warped(picture, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), side)


def generate_file(
    *,
    run: Path,
    reference: Path,
    audio: Path,
    driving: Path | None = None,
    out: Path,
    seconds: float | None,
    seed: int,
    steps: int,
    face_pack: str,
    device: str,
    precision: Precision = "auto",
    settings: Sequence[str] = (),
) -> None:
    """Make `out` (mp4) of a picture and a sound file, the head moving by itself or like that of the `driving` video;
    raises `ValueError` with one line for what the user can mend."""
    from rich.progress import Progress

    if out.exists() and not out.is_file():  # a device would be replaced, /dev/null for the whole machine
        raise ValueError(f"--out {out}: not a file; expected the name of an mp4 to write")
    chosen = distributed.start_alone("generate", device, precision).device
    talker = Talker(run, chosen, steps=steps, settings=settings, bf16=takes_bf16(precision, chosen))
    picture = read_reference(reference, talker, face_pack)
    spoken = sound_chunks(audio, seconds)
    moves = None if driving is None else read_driving(driving, spoken.frames, face_pack)
    audio_encoder = make_audio(talker.recipe.audio).to(talker.device)
    with VideoWriter(out, talker.recipe.codec.size_px) as writer:
        rows = feature_rows(writer.listen(spoken), audio_encoder, talker.device)
        with Progress(transient=True) as progress:
            task = progress.add_task("frames", total=spoken.frames)
            for pictures in talker.talk(picture, rows, spoken.frames, seed, moves):
                writer.show(pictures)
                progress.advance(task, len(pictures))
    log.info("%s: %d frames, %.1f s", out, spoken.frames, spoken.frames / 25)
