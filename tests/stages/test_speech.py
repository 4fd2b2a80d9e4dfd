"""Speech of clips through the real WhisperX: on random weights what does not depend on their meaning."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests import sample as sample_corpus
from manifests.codec import from_json
from manifests.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Clips, Speeches, Syncs, Video, Word
from manifests.sample.truth import Truth
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.recipes import sample
from pipeline.stage import Facts
from stages import weights
from stages.aligners import Aligners
from stages.registry import ALIGNERS, REGISTRY, WebFile
from stages.sound import audio_array
from stages.speech import Part, Transcribe, _placed, _words
from stages.transcript import placed, untimed
from stages.whisper import Said
from tests.command import ROOT
from tests.stages.measured import clip, put, sync
from tests.stages.tiny_whisper import make


@pytest.fixture(scope="module")
def random_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whisper"))


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Something that voice activity detection takes for a voice: a buzz through moving formants."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    pieces = []
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE_HZ:
        n = int(rng.uniform(0.08, 0.2) * SAMPLE_RATE_HZ)
        buzz = (np.cumsum(np.full(n, rng.uniform(100, 140) / SAMPLE_RATE_HZ)) % 1 < 0.1).astype(float)
        for hz in (rng.uniform(300, 800), rng.uniform(900, 2200), rng.uniform(2300, 3000)):
            radius = 0.97
            buzz = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * hz / SAMPLE_RATE_HZ), radius**2], buzz)
        pieces.append(buzz / np.abs(buzz).max() * np.hanning(n) * 9000)
    return np.concatenate(pieces)[: int(seconds * SAMPLE_RATE_HZ)].astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), np.int16)


def spoken(
    folder: Path, stage: Transcribe, sounds: list[np.ndarray], language: str | None = None, syncs: Syncs | None = None
) -> Speeches:
    """What the stage finds in clips of these sounds."""
    store = Store(str(folder))
    clips = []
    for number, sound in enumerate(sounds):
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as target:
            target.setnchannels(1)
            target.setsampwidth(2)
            target.setframerate(SAMPLE_RATE_HZ)
            target.writeframes(sound.tobytes())
        audio = put(store, f"{number}.wav", buffer.getvalue())
        clips.append(clip("v0", number, n_frames=len(sound) // SAMPLES_PER_FRAME, files=(audio, audio, audio)))
    video = Video(id="v0", url="file:///v0.mp4", language=language)
    with Bench(store, "speech-test", "v0") as bench:
        found = stage.open()(Facts([video, Clips(items=tuple(clips)), *([syncs] if syncs else [])]), bench)
    assert isinstance(found, Speeches)
    return found


def test_every_clip_is_measured_and_silence_is_a_reading(tmp_path: Path, random_whisper: Path):
    stage = Transcribe(model=str(random_whisper), align=False, beam=1)
    sounds = [np.concatenate([silence(4), babble(4), silence(2)]), silence(6), babble(32, seed=1)]
    talking, silent, long = spoken(tmp_path, stage, sounds, "de").items
    assert [one.key for one in (talking, silent, long)] == ["v0-0000", "v0-0001", "v0-0002"]
    assert 0.3 < talking.speech_share < 0.6
    assert all(3.5 < window.start_s < window.end_s < 8.7 for window in talking.windows)
    assert all(one.words and not one.aligned for one in (talking, long))
    for one in (talking, long):
        assert "".join(word.text for word in one.words) == "".join(one.text.split())
    assert (silent.speech_share, silent.speech_s, silent.snr_db, silent.text, silent.words) == (0.0, 0.0, None, "", ())
    assert silent.other_voice_share == 0
    assert (silent.language, silent.verdict, silent.windows, silent.avg_logprob) == ("", "unsure", (), 0.0)
    assert long.speech_share > 0.9
    assert len(long.windows) == stage.windows
    assert all(window.end_s - window.start_s <= stage.window_s for window in long.windows)
    # random weights: the hundred languages are about equally likely, and nothing may be made of them
    assert 0.005 < long.language_probability < 0.2
    assert long.verdict == "unsure"


def test_who_talks_over_a_clip_is_heard_unless_nobody_is_looked_for(tmp_path: Path, random_whisper: Path):
    one, other = (
        audio_array(ROOT / f"manifests/sample/corpus/{name}.mp4", start_s=0.0, end_s=5.0) for name in ("de-1", "ar-3")
    )
    for second_voice, expected in ((True, [0.0, pytest.approx(0.9, abs=0.1)]), (False, [None, None])):
        stage = Transcribe(model=str(random_whisper), align=False, beam=1, second_voice=second_voice)
        found = spoken(tmp_path / str(second_voice), stage, [one, one // 2 + other // 2]).items
        assert [clip.other_voice_share for clip in found] == expected


def test_pyannote_finds_the_same_voice(tmp_path: Path, random_whisper: Path):
    stage = Transcribe(model=str(random_whisper), align=False, beam=1, vad="pyannote")
    (silent,) = spoken(tmp_path, stage, [silence(6)]).items
    assert (silent.speech_share, silent.verdict) == (0.0, "")


def test_the_libraries_of_speech_tell_nobody_that_they_are_used():
    code = (
        "import stages.whisper, huggingface_hub.constants as hub; from pyannote.audio.telemetry import metrics;"
        " assert not metrics.is_metrics_enabled() and hub.HF_HUB_DISABLE_TELEMETRY"
    )
    ours = ("PYANNOTE_METRICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run([sys.executable, "-c", code], env=clean, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_batch_of_one_and_of_many_read_the_same(tmp_path: Path, random_whisper: Path):
    sounds = [babble(3, seed) for seed in range(3)]
    alone, together = (
        spoken(tmp_path, Transcribe(model=str(random_whisper), align=False, beam=1, batch=batch), sounds).items
        for batch in (1, 8)
    )
    assert [(one.text, one.language) for one in alone] == [(one.text, one.language) for one in together]


def test_languages_that_no_list_knows_are_heard_transcribed_and_judged(tmp_path: Path):
    model = make(tmp_path, languages=["en", "jw", "haw", "qqq"])
    stage = Transcribe(model=str(model), align=True, beam=1)
    found = spoken(tmp_path / "store", stage, [babble(4, seed) for seed in range(2)], "qqq-Latn").items
    assert {one.language for one in found} <= {"en", "jv", "haw", "qqq"}
    assert all(one.verdict in ("agree", "other", "unsure") and not one.aligned for one in found)


LATIN = [*"abcdefghijklmnopqrstuvwxyz'"]


def heard(text: str, language: str, *, start_s: float = 1.0) -> list[tuple[Part, Said]]:
    """A part of 3 s with words as Whisper places them, every tenth of a second."""
    pieces = [(f" {word}", n / 10, n / 10 + 0.1, 0.5) for n, word in enumerate(text.split())]
    words = placed(text, language, pieces) or untimed(text, language)
    return [(Part(start_s, start_s + 3.0, language), Said(text, -0.3, words))]


def timed(
    sound: np.ndarray, said: list[tuple[Part, Said]], aligners: Aligners | None, expected: str | None
) -> tuple[tuple[Word, ...], bool]:
    return _words(
        [(part, dataclasses.replace(line, placed=_placed(sound, part, line.text, aligners, expected)))
         for part, line in said]
    )  # fmt: skip


def test_words_have_the_times_of_the_aligner_of_the_expected_language_and_else_whispers_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    random_aligner(tmp_path / "align-pl", LATIN)
    sound, aligners = babble(5).astype(np.float32) / 32768, Aligners("cpu")
    polish = heard("To jest zdanie. Nog a!", "pl")
    words, aligned = timed(sound, polish, aligners, "pl-PL")
    assert aligned and [word.text for word in words] == ["To", "jest", "zdanie.", "Nog", "a!"]
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times) and all(1.0 <= time <= 4.0 for time in times)
    own = [1.0, 1.1, 1.2, 1.3, 1.4]
    for expected, used in (("de", aligners), (None, aligners), ("pl", None)):
        words, aligned = timed(sound, polish, used, expected)
        assert not aligned and [word.start_s for word in words] == own
    words, aligned = timed(sound, heard("To jest zdanie 10!", "pl"), aligners, "pl")
    assert not aligned and [word.start_s for word in words] == own[:4]
    words, aligned = timed(sound, heard("Это другие буквы", "pl"), aligners, "pl")
    assert not aligned and [word.text for word in words] == ["Это", "другие", "буквы"]


def test_in_languages_without_spaces_a_sentence_is_no_word(tmp_path, monkeypatch):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    random_aligner(tmp_path / "align-th", [*"สถานีรไฟ"])
    sound = babble(5).astype(np.float32) / 32768
    words, aligned = timed(sound, heard("สถานี รถไฟ", "th"), Aligners("cpu"), "th")
    assert aligned and [word.text for word in words] == ["ส", "ถ", "า", "นี", "ร", "ถ", "ไ", "ฟ"]
    assert all(1.0 <= word.start_s <= word.end_s <= 4.0 for word in words)


def test_torchaudio_s_aligners_are_read_from_the_file_that_was_fetched(tmp_path, monkeypatch):
    import torch
    import torchaudio
    from torchaudio.models import wav2vec2_model

    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)  # nothing is fetched
    bundle = torchaudio.pipelines.VOXPOPULI_ASR_BASE_10K_DE
    tiny = {**bundle._params, "encoder_embed_dim": 32, "encoder_num_layers": 1, "encoder_num_heads": 2}
    tiny |= {"encoder_ff_interm_features": 32, "extractor_conv_layer_config": [(32, 10, 5), (32, 8, 8), (32, 8, 8)]}
    monkeypatch.setattr(torchaudio.pipelines, "VOXPOPULI_ASR_BASE_10K_DE", dataclasses.replace(bundle, _params=tiny))
    published = wav2vec2_model(**{**tiny, "aux_num_out": 32 + len(bundle._remove_aux_axis)})
    torch.save(published.state_dict(), tmp_path / "align-de.pt")
    sound = babble(5).astype(np.float32) / 32768
    words = Aligners("cpu").words(sound, start_s=0.0, end_s=4.0, text="Guten Tag", language="de")
    assert words is not None and [word.text for word in words] == ["Guten", "Tag"] and words[1].start_s is not None


def test_the_torchaudio_files_in_the_registry_are_those_that_whisperx_takes():
    import torchaudio
    from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF, DEFAULT_ALIGN_MODELS_TORCH

    for language, name in ALIGNERS.items():
        entry = REGISTRY[name]
        if isinstance(entry, WebFile):
            bundle = getattr(torchaudio.pipelines, DEFAULT_ALIGN_MODELS_TORCH[language])
            assert entry.url.endswith(f"/{bundle._path}")
        elif language != "th":
            assert entry.repository == DEFAULT_ALIGN_MODELS_HF[language]


def test_a_folder_that_holds_no_aligner_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    (tmp_path / "align-pl").mkdir()
    (tmp_path / "align-pl" / "readme.txt").touch()
    with pytest.raises(weights.WeightsMissingError, match=r"align-pl.* is no aligner that whisperx reads") as caught:
        Aligners("cpu").words(np.zeros(16000, np.float32), start_s=0, end_s=1, text="to", language="pl")
    assert "\n" not in str(caught.value)


def test_the_aligners_of_the_expected_languages_are_wanted_before_a_run_and_all_are_in_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    stage = Transcribe()
    assert stage.models_for(["pl-PL", "sr", "zh-Hant", None, "und", "nl"]) == ("align-hr", "align-pl", "align-zh")
    assert Transcribe(align=False).models_for(["pl"]) == ()
    before = stage.identity()
    random_aligner(tmp_path / "align-pl", LATIN)
    assert stage.identity() == before and before["align-pl"] and "align-pl" not in Transcribe(align=False).identity()


def test_a_real_recogniser_says_when_each_word_is_heard(tmp_path: Path):
    corpus = Path(sample_corpus.__file__).parent / "corpus"
    truth = from_json((corpus / "truth.json").read_bytes(), Truth)
    chosen = [(v, s) for v in truth.videos if not v.flaw for s in v.segments if s.words and s.talks and not s.flaw][:4]
    sounds = [audio_array(corpus / v.path, start_s=s.start_s, end_s=s.end_s) for v, s in chosen]
    late = []
    for (_, segment), one in zip(chosen, spoken(tmp_path, sample().speech, sounds).items, strict=True):
        timed_words = [word for word in one.words if word.start_s is not None]
        assert not one.aligned and all(word.start_s < word.end_s for word in timed_words)
        said = {word.text: word.start_s - segment.start_s for word in segment.words}
        late += [word.start_s - said[word.text] for word in timed_words if word.text in said]
    assert len(late) >= 10 and abs(np.median(late)) < 0.1 and np.percentile(np.abs(late), 75) < 0.3


def random_aligner(folder: Path, letters: list[str], **config: Any) -> None:
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder.mkdir(parents=True)
    characters = ["[PAD]", "<s>", "</s>", "[UNK]", "|", *sorted(set(letters))]
    (folder / "vocab.json").write_text(json.dumps({c: number for number, c in enumerate(characters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]")
    Wav2Vec2Processor(feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    shape = Wav2Vec2Config(
        vocab_size=len(characters), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, pad_token_id=0, **config,
    )  # fmt: skip
    Wav2Vec2ForCTC(shape).save_pretrained(folder)


def test_nothing_is_printed(tmp_path: Path, random_whisper: Path, capfd: pytest.CaptureFixture[str]):
    spoken(tmp_path, Transcribe(model=str(random_whisper), align=False, beam=1), [babble(2), silence(2)])
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"vad": "webrtc"},
        {"onset": 1.0},
        {"sure": 0.3},
        {"mixed_share": 0.9},
        {"window_s": 40},
        {"part_s": 31},
        {"beam": 0},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValueError, match="speech: "):
        Transcribe(**wrong)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ValueError, match="no CTranslate2 Whisper"):
        Transcribe(model=str(tmp_path)).open()


def test_a_clip_out_of_sync_is_not_heard_where_that_is_asked_for(tmp_path: Path, random_whisper: Path):
    syncs = Syncs(items=(sync("v0-0000", confidence=0.5), sync("v0-0001"), sync("v0-0002", offset_frames=9)), model="m")
    stage = Transcribe(model=str(random_whisper), align=False, beam=1, spare=(("min_confidence", 3.0),))
    assert stage.inputs() == (Video, Clips, Syncs) and Transcribe().inputs() == (Video, Clips)
    heard = spoken(tmp_path, stage, [babble(3), babble(3, seed=1), babble(3, seed=2)], syncs=syncs)
    assert [one.key for one in heard.items] == ["v0-0001", "v0-0002"]


def test_a_sound_that_is_transcribed_as_it_was_heard_passes_the_encoder_once(tmp_path, random_whisper, monkeypatch):
    import ctranslate2

    passes = []

    def encode(model, features, **options):
        passes.append(features.shape[0])
        return plain(model, features, **options)

    plain = ctranslate2.models.Whisper.encode
    monkeypatch.setattr(ctranslate2.models.Whisper, "encode", encode)
    stage = Transcribe(model=str(random_whisper), align=False, beam=1, device="cpu")
    sounds = [np.concatenate([silence(1), babble(3), silence(1)]), babble(20, seed=1)]
    short, long = spoken(tmp_path / "once", stage, sounds).items
    assert len(short.windows) == 1 and len(long.windows) > 2
    assert sum(passes) == 1 + len(long.windows) + 1  # the long one's windows, and then all of it
    monkeypatch.setattr("stages.whisper._KEPT_BYTES", 0)
    passes.clear()
    again = spoken(tmp_path / "twice", stage, sounds).items
    assert sum(passes) == 2 + len(long.windows) + 1
    assert [one.text for one in again] == [short.text, long.text]
    assert [one.avg_logprob for one in again] == pytest.approx([short.avg_logprob, long.avg_logprob], abs=1e-4)


def test_only_what_no_aligner_places_passes_the_decoder_again_and_reads_as_it_did(tmp_path: Path, monkeypatch):
    import faster_whisper

    asked: list[int] = []

    def find_alignment(model, tokenizer, said, *given):
        asked.append(len(said))
        return plain(model, tokenizer, said, *given)

    def words(_: Aligners, sound: np.ndarray, **known: str) -> tuple[Word, ...] | None:
        return None if len(sound) in refused else placed(known["text"], "de", [(known["text"], 0.5, 1.0, 1.0)])

    plain = faster_whisper.WhisperModel.find_alignment
    monkeypatch.setattr(faster_whisper.WhisperModel, "find_alignment", find_alignment)
    monkeypatch.setattr(Aligners, "words", words)
    model = make(tmp_path, languages=["en", "pl", "de"], seed=3)  # of few seeds that say what has times: "!h!h..."
    sounds = [babble(seconds, seconds) for seconds in (2, 3, 4)]

    def run(expected: str, *, align: bool = True) -> Speeches:
        asked.clear()
        stage = Transcribe(model=str(model), align=align, beam=1, device="cpu")
        return spoken(tmp_path / "store", stage, sounds, expected)

    refused: set[int] = set()
    own = run("de", align=False).items  # which is what it hears
    assert asked == [3] and len({one.words[0].end_s for one in own}) == 3
    assert all(one.aligned and one.words[0].start_s == 0.5 for one in run("de").items) and asked == []
    assert [one.words for one in run("pl").items] == [one.words for one in own] and asked == [3]
    refused = {len(sounds[1])}
    first, second, _ = run("de").items
    assert asked == [1] and first.aligned and not second.aligned and second.words == own[1].words
