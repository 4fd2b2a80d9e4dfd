"""Frozen encoders: pictures to latents, sound to features at 25 fps, the reference to a vector.

Each has a form that learns nothing and needs no file (`dct`, `mel`, `thumbnail`) and one that reads the published
weights from a local directory through diffusers or transformers (`pip install .[train]`).
"""

import math
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manifests.records import SAMPLES_PER_FRAME
from mcdm.config import AudioConfig, CodecConfig, ImageConfig
from mcdm.precision import full_precision

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Codec(Protocol):
    """Pictures (n, 3, h, w) in [-1, 1] to latents (n, c, h / factor, w / factor), and back."""

    def encode(self, pictures: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


class DctCodec(nn.Module):
    """YCbCr, orthonormal block DCT, the lowest frequencies: 3/16 of the channels for each chroma, the rest for luma.

    Chosen over a small learned autoencoder for `tiny` and `small`: no training, no weights, the same in every run, and
    sharper at this size. Coefficients are scaled so that fine detail is not drowned by noise, and not as loud as form.
    """

    to_latents: Tensor
    to_pixels: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        side = config.factor
        at = torch.arange(side, dtype=torch.float64)
        dct = torch.cos(math.pi / side * (at[None] + 0.5) * at[:, None]) * math.sqrt(2 / side)
        dct[0] /= math.sqrt(2)
        order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda uv: (sum(uv), max(uv), uv))
        chroma = config.channels * 3 // 16
        luma = config.channels - 2 * chroma
        if luma > side * side:
            raise ValueError(f"a {side} x {side} transform has no {luma} luma frequencies")
        basis, gain = torch.zeros(config.channels, 3, side, side, dtype=torch.float64), torch.zeros(config.channels)
        for channel in range(config.channels):
            plane, k = (0, channel) if channel < luma else (1 + (channel - luma) // chroma, (channel - luma) % chroma)
            u, v = order[k]
            basis[channel, plane] = dct[u][:, None] * dct[v][None]
            gain[channel] = (1.6 if plane == 0 else 5.0) / side * (1.0 + 1.2 * (u + v)) ** (1.0 if u + v else 0.0)
        self.side = side
        # Colours, transform and scale are one linear map each way, of the pixels of a block
        level = gain.double()[:, None, None, None]
        there = torch.einsum("kpij,pc->kcij", basis * level, _YCC)
        back = torch.einsum("kpij,cp->cijk", basis / level, torch.linalg.inv(_YCC)).flatten(0, 2)
        self.register_buffer("to_latents", there.float(), persistent=False)
        self.register_buffer("to_pixels", back.float()[..., None, None], persistent=False)

    def encode(self, pictures: Tensor) -> Tensor:
        with full_precision(pictures.device):
            return F.conv2d(pictures.float(), self.to_latents, stride=self.side)

    def decode(self, latents: Tensor) -> Tensor:
        with full_precision(latents.device):
            return F.pixel_shuffle(F.conv2d(latents.float(), self.to_pixels), self.side).clamp(-1, 1)


_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64
)
"""BT.601, full range, as JPEG has it."""


class SdCodec(nn.Module):
    """The VAE of Stable Diffusion 1.5 (diffusers' `AutoencoderKL`), its mean times 0.18215; a few pictures at a time:
    an activation of one of 512 px is 134 to 268 MB. A GPU encodes in float16, whose mantissa is that of the TF32 which
    it would take otherwise (bfloat16 has three bits fewer); it decodes as before, for decoders that overflow are known.
    """

    SCALE, AT_ONCE, NARROW = 0.18215, 8, ("cuda",)

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.vae = _published(AutoencoderKL, config.path, "codec.path")

    def encode(self, pictures: Tensor) -> Tensor:
        means = self._narrowly if pictures.device.type in self.NARROW else self._means
        return torch.cat([means(part) for part in torch.split(pictures, self.AT_ONCE)]) * self.SCALE

    def _means(self, pictures: Tensor) -> Tensor:
        means: Tensor = self.vae.encode(pictures).latent_dist.mean
        return means

    def _narrowly(self, pictures: Tensor) -> Tensor:
        """In float16; in float32 where that overflows, as with the VAE of SDXL: normalisation spreads it as NaN."""
        with torch.autocast(pictures.device.type, torch.float16):
            means = self._means(pictures).float()
        if means.isfinite().all():
            return means
        with torch.autocast(pictures.device.type, enabled=False):
            return self._means(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        parts = [self.vae.decode(part).sample for part in torch.split(latents / self.SCALE, self.AT_ONCE)]
        return torch.cat(parts).clamp(-1, 1)


class MelAudio(nn.Module):
    """16 kHz samples (640 F,) in [-1, 1] to log-mel features (F, 1, 128): 4 columns of 32 bands for every frame."""

    N_BANDS, COLUMNS, N_FFT = 32, 4, 512

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        if (config.width, config.vectors) != (self.N_BANDS * self.COLUMNS, 1):
            raise ValueError("mel features are 1 vector of 128 per frame")
        self.register_buffer("bands", mel_bands(self.N_BANDS, self.N_FFT), persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        hop = SAMPLES_PER_FRAME // self.COLUMNS
        frames = samples.shape[-1] // SAMPLES_PER_FRAME
        padded = F.pad(samples, (self.N_FFT // 2, self.N_FFT // 2))
        window = self.window
        assert isinstance(window, Tensor)
        spectrum = torch.stft(padded, self.N_FFT, hop, 400, window, center=False, return_complex=True).abs() ** 2
        mel = (self.bands @ spectrum[:, : frames * self.COLUMNS]).clamp(min=1e-7).log10()
        return ((mel + 4) / 2).T.reshape(frames, 1, self.N_BANDS * self.COLUMNS)


def mel_bands(count: int, n_fft: int, rate_hz: int = 16_000) -> Tensor:
    """Triangular filters (count, n_fft / 2 + 1) from 50 Hz to 7.6 kHz, evenly spaced in mel (HTK)."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges = 700 * (10 ** (torch.linspace(mel(50), mel(7600), count + 2) / 2595) - 1)
    hz = torch.linspace(0, rate_hz / 2, n_fft // 2 + 1)
    rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


class Wav2Vec2Audio(nn.Module):
    """Samples (640 F,) to wav2vec 2.0's last hidden layer (F, 2, width): 50 Hz, two vectors per frame."""

    VECTORS, MARGIN = 2, 40
    """Vector k hears 400 samples from 320 k on: with this many more on either side there are 2 F of them, and the
    middle of each is that of its half of a frame."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        from transformers import Wav2Vec2Model

        if config.vectors != self.VECTORS:
            raise ValueError(f"audio.vectors={config.vectors}: wav2vec 2.0 has {self.VECTORS} for a frame")
        self.model = _published(Wav2Vec2Model, config.path, "audio.path", spare=("masked_spec_embed",))
        width = self.model.config.hidden_size
        if width != config.width:
            raise ValueError(f"{config.path} has {width} features, the recipe says audio.width={config.width}")

    def forward(self, samples: Tensor) -> Tensor:
        return self.levelled(samples, float(samples.mean()), float(samples.std()))

    def levelled(self, samples: Tensor, mean: float, spread: float) -> Tensor:
        """The same for a piece of a longer sound, of that mean and standard deviation."""
        level = F.pad((samples - mean) / (spread + 1e-7), (self.MARGIN, self.MARGIN))
        hidden: Tensor = self.model(level[None]).last_hidden_state[0]
        return torch.unflatten(hidden, 0, (-1, self.VECTORS))


class Thumbnail(nn.Module):
    """Pictures (n, 3, h, w) in [-1, 1] to themselves at 8 x 8 px, flat: (n, 192)."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        if config.width != 192:
            raise ValueError("a thumbnail has 192 numbers")

    def forward(self, pictures: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(pictures, 8).flatten(1)


class ClipImage(nn.Module):
    """Pictures (n, 3, h, w) in [-1, 1] to CLIP's projected image embedding (n, width)."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        from transformers import CLIPVisionModelWithProjection

        self.model = _published(CLIPVisionModelWithProjection, config.path, "image.path")
        if self.model.config.projection_dim != config.width:
            raise ValueError(f"{config.path} gives {self.model.config.projection_dim} numbers, not {config.width}")
        self.side = self.model.config.image_size
        self.register_buffer("mean", torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None])
        self.register_buffer("std", torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None])

    def forward(self, pictures: Tensor) -> Tensor:
        small = F.interpolate(pictures, size=(self.side, self.side), mode="bicubic", antialias=True)
        embedded: Tensor = self.model(pixel_values=((small + 1) / 2 - self.mean) / self.std).image_embeds
        return embedded


def encode_pictures(codec: Codec, pictures: Tensor) -> Tensor:
    """Pictures (b, t, h, w, 3) uint8 to latents (b, t, c, h', w')."""
    flat = pictures.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = codec.encode(flat)
    return torch.unflatten(latents, 0, pictures.shape[:2])


def make_codec(config: CodecConfig) -> Any:
    """The codec, frozen. Raises `ValueError` where its directory is missing."""
    return freeze(DctCodec(config) if config.kind == "dct" else SdCodec(config))


def make_audio(config: AudioConfig) -> nn.Module:
    """The audio encoder, frozen. Raises `ValueError` where its directory is missing."""
    return freeze(MelAudio(config) if config.kind == "mel" else Wav2Vec2Audio(config))


def make_image(config: ImageConfig) -> nn.Module:
    """The image encoder, frozen. Raises `ValueError` where its directory is missing."""
    return freeze(Thumbnail(config) if config.kind == "thumbnail" else ClipImage(config))


def freeze(module: ModuleT) -> ModuleT:
    """Out of training for good: evaluation mode, no gradients."""
    return module.eval().requires_grad_(requires_grad=False)


def heard(features: Tensor, reach: int) -> Tensor:
    """Audio features (w + 2 reach, v, c) around a window to tokens of each of its frames: (w, v (2 reach + 1), c)."""
    return features.unfold(0, 2 * reach + 1, 1).permute(0, 3, 1, 2).flatten(1, 2)


def _published(kind: Any, path: str, name: str, spare: tuple[str, ...] = ()) -> Any:
    """A model of diffusers or transformers from a local directory; raises `ValueError` where a weight of it, but for
    `spare` ones, is not in there or of another shape: it would be random, and another in each process."""
    if not path or not Path(path).is_dir():
        raise ValueError(f"{name}: no directory {path!r}; give a local copy of the published weights")
    model, found = kind.from_pretrained(
        path, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    lacking = sorted({*map(str, found["missing_keys"]), *map(str, found["mismatched_keys"])} - {*spare})
    if lacking:
        what = f"{len(lacking)} weights of a {kind.__name__} are missing or of another shape, such as {lacking[0]}"
        raise ValueError(f"{name}={path}: {what}")
    return model
