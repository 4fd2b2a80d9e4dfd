"""What Whisper is fed: the same as whisperx feeds it, for less."""

import ctranslate2
import numpy as np
import pytest
import torch
from whisperx.audio import log_mel_spectrogram

from manifests.records import SAMPLE_RATE_HZ
from stages.whisper import Recogniser
from tests.stages.tiny_whisper import make


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return Recogniser(
        make(tmp_path_factory.mktemp("whisper")),
        device="cpu", compute_type="float32", threads=1, beam=1, batch=2, vad="silero", onset=0.5, window_s=6.0,
        context_s=30.0,
    )  # fmt: skip


@pytest.mark.parametrize("seconds", [0.0, 0.005, 3.003, 29.97, 30.0, 31.0])
@pytest.mark.parametrize("loud", [0.0, 1e-4, 0.5])
def test_the_silence_after_a_sound_is_filled_in_as_it_would_be_computed(recogniser, seconds, loud):
    sound = (np.random.default_rng(0).normal(size=round(seconds * SAMPLE_RATE_HZ)) * loud).astype(np.float32)
    heard = sound[: 30 * SAMPLE_RATE_HZ]
    (mels,) = recogniser._mels([sound])
    wanted = log_mel_spectrogram(heard, n_mels=mels.shape[0], padding=30 * SAMPLE_RATE_HZ - len(heard))
    torch.testing.assert_close(mels, wanted, rtol=0, atol=1e-6)


def test_a_text_may_fill_all_the_room_that_the_model_has_and_says_so(recogniser, monkeypatch):
    def generate(model, encoded, prompts, **options):
        found = plain(model, encoded, prompts, **(options | {"suppress_tokens": [end]}))
        lengths.extend(len(prompt) + len(one.sequences_ids[0]) for prompt, one in zip(prompts, found, strict=True))
        return found

    plain, lengths = ctranslate2.models.Whisper.generate, []
    end = recogniser._tokenizer("th").eot
    monkeypatch.setattr(ctranslate2.models.Whisper, "generate", generate)
    (said,) = recogniser.transcribe([(np.zeros(SAMPLE_RATE_HZ, np.float32), "th", None)], lambda n, text: ())
    assert lengths == [448] and said.cut_off
