"""What Whisper is fed: the same as whisperx feeds it, for less."""

from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
import whisperx.asr
from faster_whisper.tokenizer import Tokenizer
from whisperx.audio import log_mel_spectrogram

from manifests import sample
from manifests.codec import from_json
from manifests.records import SAMPLE_RATE_HZ
from manifests.sample.truth import Truth
from pipeline.stage import MemoryFullError
from stages import weights
from stages.sound import audio_array
from stages.speech import Transcribe
from stages.whisper import Recogniser
from tests.stages.tiny_whisper import make


def opened(folder: Path, *, beam: int = 1, context_s: float = 30.0) -> Recogniser:
    return Recogniser(
        folder,
        device="cpu", compute_type="float32", threads=1, beam=beam, batch=2, vad="silero", onset=0.5,
        window_s=min(6.0, context_s), context_s=context_s,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return opened(make(tmp_path_factory.mktemp("whisper")))


def test_a_model_of_128_bands_is_given_them_without_the_file_that_says_so(tmp_path: Path):
    folder = make(tmp_path, bands=128)
    (folder / "preprocessor_config.json").unlink()
    ((probabilities, _),) = opened(folder).listen([np.zeros(SAMPLE_RATE_HZ, np.float32)], [False])
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-3)


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


def test_a_text_and_how_sure_it_is_are_what_whisperx_has_of_the_same_sound():
    recogniser, corpus = opened(weights.path("sample/whisper"), beam=5, context_s=4.0), Path(sample.__file__).parent
    videos = from_json((corpus / "corpus" / "truth.json").read_bytes(), Truth).videos
    video, part = next((one, s) for one in videos for s in one.segments if s.talks and not (one.flaw or s.flaw))
    heard = audio_array(corpus / "corpus" / video.path, start_s=part.start_s, end_s=part.start_s + 3.0)
    sound, whisper = heard.astype(np.float32) / 32768, recogniser._whisper
    (ours,) = recogniser.transcribe([(sound, part.language, None)], lambda n, text: ())
    tokenizer = Tokenizer(whisper.hf_tokenizer, True, task="transcribe", language=part.language)
    theirs = whisper.generate_segment_batched(recogniser._mels([sound]), tokenizer, recogniser._pipeline.options)
    assert ours.text == theirs["text"][0].strip() != ""
    assert ours.avg_logprob == pytest.approx(theirs["avg_logprob"][0], abs=1e-4)


def test_what_is_computed_in_bfloat16_is_kept_and_decoded_too(recogniser, monkeypatch):
    def read():
        heard = recogniser.listen(sounds, [True, False])
        given = [(sound, "de", kept) for sound, (_, kept) in zip(sounds, heard, strict=True)]
        again = [(sound, "de", None) for sound in sounds]
        # of the second the decoder is asked once more, for its words: a row of a batch
        said = [one for some in (given, again) for one in recogniser.transcribe(some, lambda n, _: None if n else ())]
        return heard[0][1], [one.avg_logprob for one in said], [bool(one.words) for one in said]

    def encode(*given, **options):
        return plain(*given, **options).to(ctranslate2.DataType.bfloat16)

    plain = ctranslate2.models.Whisper.encode
    rng = np.random.default_rng(0)
    sounds = [rng.normal(size=seconds * SAMPLE_RATE_HZ).astype(np.float32) * 0.1 for seconds in (2, 3)]
    kept, logprobs, words = read()
    monkeypatch.setattr(ctranslate2.models.Whisper, "encode", encode)
    coarse, coarse_logprobs, coarse_words = read()
    np.testing.assert_allclose(coarse, kept, rtol=2**-8)
    assert coarse_logprobs == pytest.approx(logprobs, abs=1e-3)
    assert coarse_words == words == [False, True] * 2


OLD_DRIVER = "the provided PTX was compiled with an unsupported toolchain."
WANTS_570 = r"CTranslate2 cannot use the GPU: its driver is too old, .* 570 or later here \(.*\)$"


class TestGpuInName:
    """A Whisper for a GPU that works on the processor, by the packaged weights."""

    @pytest.fixture(autouse=True)
    def in_name(self, monkeypatch):
        def load(folder, device, **options):
            return plain(folder, "cpu", **(options | {"compute_type": "float32"}))

        plain = whisperx.asr.load_model
        monkeypatch.setattr(whisperx.asr, "load_model", load)

    def open(self, monkeypatch, device, error=None):
        """Open the stage on the device, whose encoder raises an error: how often it was asked."""

        def encode(model, mels):
            asked.append(mels)
            if error:
                raise error
            return plain(model, mels)

        plain, asked = whisperx.asr.WhisperModel.encode, []
        monkeypatch.setattr(whisperx.asr.WhisperModel, "encode", encode)
        monkeypatch.setattr("stages.speech.torch_device", lambda *_: device)
        Transcribe(
            model="sample/whisper", align=False, second_voice=False, window_s=3.0, part_s=3.0, context_s=4.0
        ).open()
        return len(asked)

    @pytest.mark.parametrize(
        ("kind", "said", "line"),
        [
            (ValueError, f"CUDA failed with error {OLD_DRIVER}", WANTS_570),
            (ValueError, f"parallel_for failed: cudaErrorUnsupportedPtxVersion: {OLD_DRIVER}", WANTS_570),
            (ValueError, "cuBLAS failed with status CUBLAS_STATUS_ARCH_MISMATCH\nat x.cc", "GPU: .*ARCH_MISMATCH$"),
            (MemoryFullError, "CUDA failed with error out of memory", "GPU: CUDA failed with error out of memory$"),
        ],
    )
    def test_a_gpu_that_cannot_encode_is_met_when_a_worker_opens_and_told_in_one_line(
        self, monkeypatch, kind, said, line
    ):
        with pytest.raises(kind, match=line) as refused:
            self.open(monkeypatch, "cuda", RuntimeError(said))
        assert "\n" not in str(refused.value)

    def test_a_gpu_encodes_once_before_there_is_a_video_and_a_processor_never(self, monkeypatch):
        assert self.open(monkeypatch, "cuda") == 1
        monkeypatch.undo()
        assert self.open(monkeypatch, "cpu") == 0
