"""Published encoders from local directories in their own formats, with small random weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mcdm.config import AudioConfig, CodecConfig, ImageConfig
from mcdm.encoders import heard, make_audio, make_codec, make_image, mel_bands
from mcdm.sound import feature_rows

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


def sd_codec(folder):
    """A small VAE with the blocks of Stable Diffusion's, and the codec that reads it."""
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    vae.save_pretrained(folder)
    return vae, make_codec(CodecConfig(kind="sd", size_px=64, factor=8, channels=4, path=str(folder)))


def test_the_vae_of_stable_diffusion_loads_from_a_directory(tmp_path):
    vae, codec = sd_codec(tmp_path)
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = codec.encode(pictures)
    assert latents.shape == (2, 4, 8, 8) and codec.decode(latents).shape == (2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(latents, vae.eval().encode(pictures).latent_dist.mean * 0.18215, atol=1e-5)
    assert not any(p.requires_grad for p in codec.parameters())
    seen: list[int] = []
    codec.vae.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    codec.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    many = torch.rand(19, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = codec.encode(many)
        assert torch.allclose(latents[10:12], codec.encode(many[10:12]), atol=1e-5)
        assert codec.decode(latents).shape == many.shape
    assert max(seen) == 8 and sum(seen) == 19 + 2 + 19, "a few at a time: a picture of 512 px is hundreds of megabytes"


def test_a_gpu_encodes_in_float16_and_again_in_float32_what_overflows(tmp_path):
    """Shown on a processor that is told to do as a GPU."""
    _, codec = sd_codec(tmp_path)
    pictures, computed = torch.rand(2, 3, 64, 64) * 2 - 1, []
    codec.vae.encoder.conv_out.register_forward_hook(lambda _, given, answer: computed.append(answer.dtype))
    with torch.no_grad():
        exact = codec.encode(pictures)
        codec.NARROW = ("cpu",)
        latents = codec.encode(pictures)
        assert computed == [torch.float32, torch.float16] and latents.dtype == torch.float32
        assert (latents - exact).abs().max() < 0.02 * exact.std() and not torch.equal(latents, exact)
        codec.vae.encoder.conv_in.weight *= 1e6
        with torch.autocast("cpu", torch.bfloat16):  # as around a step of training
            latents = codec.encode(pictures)
        assert computed[2:] == [torch.float16, torch.float32]
        del codec.NARROW
        assert torch.equal(latents, codec.encode(pictures)) and latents.isfinite().all()


_SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def wav2vec2(folder, **given):
    """A small wav2vec 2.0, and the encoder that reads it."""
    config = transformers.Wav2Vec2Config(
        **{**_SMALL, **given}, conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2
    )
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    return make_audio(AudioConfig(kind="wav2vec2", width=16, vectors=2, path=str(folder)))


def clip_tower(folder):
    """A small CLIP vision tower with its projection, and the encoder that reads it."""
    config = transformers.CLIPVisionConfig(**_SMALL, image_size=32, patch_size=16, projection_dim=12)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return make_image(ImageConfig(kind="clip", width=12, path=str(folder)))


def test_wav2vec_2_gives_two_vectors_per_frame(tmp_path):
    audio = wav2vec2(tmp_path)
    with torch.no_grad():
        features = audio(torch.randn(640 * 30))
    assert features.shape == (30, 2, 16)
    assert heard(features, 2).shape == (26, 10, 16)
    with pytest.raises(ValueError, match="has 16 features, the recipe says"):
        make_audio(AudioConfig(kind="wav2vec2", width=768, vectors=2, path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"audio\.vectors=1: wav2vec 2\.0 has 2 for a frame"):
        make_audio(AudioConfig(kind="wav2vec2", width=16, vectors=1, path=str(tmp_path)))


def test_the_middle_of_a_vector_of_wav2vec_2_is_that_of_its_half_of_a_frame(tmp_path):
    audio = wav2vec2(tmp_path, num_hidden_layers=0, feat_extract_norm="layer")
    samples = torch.randn(640 * 12).requires_grad_()
    features = audio.model.feature_extractor(torch.nn.functional.pad(samples, (audio.MARGIN,) * 2)[None])[0].T
    assert len(features) == 24
    (gradient,) = torch.autograd.grad(features[11].sum(), samples)
    heard_samples = gradient.nonzero().flatten()
    assert (int(heard_samples[0]), int(heard_samples[-1])) == (320 * 11 - 40, 320 * 11 + 359)


def test_pieces_of_a_stream_give_what_the_whole_sound_gives_in_their_places(tmp_path):
    """Without attention and with norms of single moments, so that a vector depends on what is near it alone."""
    audio = wav2vec2(tmp_path, num_hidden_layers=0, feat_extract_norm="layer")
    samples = torch.randn(640 * 600)
    rows = torch.stack(list(feature_rows(iter([samples.numpy()]), audio, torch.device("cpu"))))
    with torch.no_grad():
        assert torch.allclose(rows, audio(samples), atol=1e-4)


def test_pieces_of_a_stream_meet_at_one_level(tmp_path):
    """Loud, then quiet: a piece that were levelled by itself would be as loud as the one before it."""
    audio = wav2vec2(tmp_path)
    samples = torch.randn(640 * 600) * torch.where(torch.arange(640 * 600) < 640 * 250, 0.5, 0.001)
    heard_levels = []
    levelled = audio.levelled
    audio.levelled = lambda piece, mean, spread: heard_levels.append(spread) or levelled(piece, mean, spread)
    rows = torch.stack(list(feature_rows(iter(samples.numpy().reshape(-1, 16_000)), audio, torch.device("cpu"))))
    assert rows.shape == (600, 2, 16) and len(heard_levels) > 1
    assert heard_levels[-1] == pytest.approx(float(samples.std()), rel=1e-4)
    assert min(heard_levels) > 0.2, "never that of the quiet part alone"
    with torch.no_grad():
        short = samples[: 640 * 100]
        alone = torch.stack(list(feature_rows(iter([short.numpy()]), audio, torch.device("cpu"))))
        assert torch.allclose(alone, audio(short), atol=1e-4)


def test_a_pause_at_the_end_of_a_stream_is_heard_as_a_pause(tmp_path):
    """The published base model levels its first layer over all that it hears at once."""
    audio = wav2vec2(tmp_path)
    assert audio.model.config.feat_extract_norm == "group"
    samples = torch.randn(640 * 310) * torch.where(torch.arange(640 * 310) < 640 * 250, 0.5, 0.0005)
    rows = torch.stack(list(feature_rows(iter([samples.numpy()]), audio, torch.device("cpu"))))
    with torch.no_grad():
        assert torch.allclose(rows[250:], audio(samples)[250:], atol=1e-4)


def test_clip_gives_its_projected_embedding(tmp_path):
    image = clip_tower(tmp_path)
    assert image(torch.rand(3, 3, 64, 64) * 2 - 1).shape == (3, 12)


def test_a_directory_that_lacks_weights_is_refused_and_none_is_made_up(tmp_path):
    config = transformers.CLIPVisionConfig(**_SMALL, image_size=32, patch_size=16, projection_dim=12)
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"^image\.path=.*clip: 1 weights .* such as visual_projection\.weight"):
        make_image(ImageConfig(kind="clip", width=12, path=str(tmp_path / "clip")))
    wav2vec2(tmp_path / "sound")
    sd_codec(tmp_path / "vae")

    def changed(file, name, value=None):
        weights = load_file(file)
        del weights[name]
        save_file(weights if value is None else weights | {name: value}, file, {"format": "pt"})

    sound, vae = tmp_path / "sound" / "model.safetensors", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    audio = AudioConfig(kind="wav2vec2", width=16, vectors=2, path=str(tmp_path / "sound"))
    changed(sound, "masked_spec_embed")
    make_audio(audio)  # used in training alone, and not in all that is published
    changed(sound, "encoder.layer_norm.bias")
    with pytest.raises(ValueError, match=r"^audio\.path=.*sound: 1 weights .* such as encoder\.layer_norm\.bias"):
        make_audio(audio)
    changed(vae, "quant_conv.bias", torch.zeros(3))
    with pytest.raises(ValueError, match=r"^codec\.path=.*vae: 1 weights .* such as .*quant_conv\.bias"):
        make_codec(CodecConfig(kind="sd", size_px=64, factor=8, channels=4, path=str(tmp_path / "vae")))


@pytest.mark.parametrize(
    ("make", "config", "name"),
    [
        (make_codec, CodecConfig(kind="sd", size_px=512, factor=8, channels=4), "codec.path"),
        (make_audio, AudioConfig(kind="wav2vec2", width=768, vectors=2, path="nowhere"), "audio.path"),
        (make_image, ImageConfig(kind="clip", width=768), "image.path"),
    ],
)
def test_a_missing_directory_is_named_by_its_setting(make, config, name):
    with pytest.raises(ValueError, match=f"{name}: no directory"):
        make(config)


def test_heard_frames_are_those_on_either_side():
    features = torch.arange(7.0)[:, None, None]
    assert heard(features, 2)[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]


def test_mel_bands_cover_the_speech_range_and_hear_a_tone_in_one_place():
    bands = mel_bands(32, 512)
    assert bands.shape == (32, 257) and (bands.sum(1) > 0).all()
    audio = make_audio(AudioConfig(kind="mel", width=128, vectors=1))
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(640 * 10) / 16_000)
    columns = audio(tone)[5, 0].view(4, 32)
    assert columns.argmax(1).unique().numel() == 1
    assert int(columns.argmax(1)[0]) == int(bands[:, 32].argmax())
