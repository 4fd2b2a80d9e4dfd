"""Forced alignment through the real whisperx: what a text, a pause and a quiet sound do to the times of words."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch

from manifests.records import Word
from pipeline.recipes import build
from stages.aligners import LEAST_GB, Aligners, _said
from stages.registry import ALIGNERS, REGISTRY
from stages.weights import WeightsMissingError
from tests.stages.test_speech import babble, random_aligner

FRAMES_PER_S = 50
ANY = {
    "en": "abcdefghijklmnopqrstuvwxyz'", "fr": "abcdefghijklmnopqrstuvwxyzàâçéèêëîïôùûüœ'",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя", "th": "กดทนมคำรับีบุ", "zh": "什么不是吗好我们北京",
}  # fmt: skip


def sound(seconds: float) -> np.ndarray:
    return babble(seconds).astype(np.float32) / 32768


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "You did what?!"),
        ("en", "Really?? Yes!! It is, i.e. so... No."),
        ("fr", "Quoi ?! C'est pas vrai ! Mais si..."),
        ("ru", "Ну... да. Конечно?!"),
        ("zh", "什么?!不是吗!!"),
        ("zh", "什么？ 我们!北京。好"),
        ("th", "ดี! มาก! ครับ"),
        ("en", "\u0130s it a\u00a0% or\tso? - \u266a"),
    ],
)
def test_no_mark_in_a_text_costs_it_the_aligner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language, text):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    random_aligner(tmp_path / "align-any", [*ANY[language]])
    monkeypatch.setitem(ALIGNERS, language, "align-any")
    monkeypatch.setitem(REGISTRY, "align-any", REGISTRY["align-pl"])
    words = Aligners("cpu").words(sound(8), start_s=1.0, end_s=8.0, text=text, language=language)
    assert words is not None and "".join(word.text for word in words) == "".join(text.split())
    times = [time for word in words if is_said(word) for time in (word.start_s, word.end_s)]
    assert times == sorted(times) and all(1.0 <= time <= 8.0 for time in times)


def is_said(word: Word) -> bool:
    return any(letter.isalnum() for letter in word.text)


class Emitting(torch.nn.Module):
    """An aligner that hears each letter in one frame, at the times given."""

    def __init__(self, letters: str, heard: list[tuple[float, str]], seconds: float) -> None:
        super().__init__()
        self.known = {one: number for number, one in enumerate(("[pad]", "|", *sorted(set(letters))))}
        likely = torch.full((round(seconds * FRAMES_PER_S), len(self.known)), 1e-6)
        likely[:, 0] = 1.0
        for time_s, letter in heard:
            row = likely[round(time_s * FRAMES_PER_S)]
            row[0], row[self.known[letter]] = 0.05, 0.95
        self.logits = torch.log(likely / likely.sum(1, keepdim=True))[None]

    def forward(self, given: torch.Tensor, **lengths: None) -> types.SimpleNamespace | tuple[torch.Tensor, None]:
        self.given = given[0].numpy()
        return (self.logits, None) if lengths else types.SimpleNamespace(logits=self.logits)


@pytest.mark.parametrize("db", [0, -20])
def test_an_aligner_in_transformers_form_hears_every_voice_at_one_level_and_torchaudio_s_as_it_is(db: int):
    aligners, quiet = Aligners("cpu"), sound(5) * np.float32(10 ** (db / 20)) + np.float32(0.001)
    network = Emitting("tak", [(1.0, "t"), (1.2, "a"), (1.4, "k")], 4.0)
    for kind in ("huggingface", "torchaudio"):
        aligners._loaded["pl"] = network, {"dictionary": network.known, "type": kind, "language": "pl"}
        words = aligners.words(quiet, start_s=0.5, end_s=4.5, text="Tak.", language="pl")
        assert words is not None and words[0].start_s == pytest.approx(1.5, abs=0.03)
        if kind == "torchaudio":
            assert np.array_equal(network.given, quiet[8000:72000])
        else:
            loud = sound(5)[8000:72000]
            assert network.given == pytest.approx((loud - loud.mean()) / loud.std(), abs=0.05)


@pytest.mark.parametrize("bar_s", [(1.44,), (4.92,), (1.44, 4.92), ()])
@pytest.mark.parametrize("text", ["Dobrze. Tak.", "Dobrze, tak", "Dobrze tak", "Dobrze?! - Tak!!"])
def test_a_word_before_a_pause_ends_with_its_voice(text: str, bar_s: tuple[float, ...]):
    heard = [(1.0 + 0.08 * n, letter) for n, letter in enumerate("dobrze")]  # the last at 1.4 s
    heard += [(5.0 + 0.08 * n, letter) for n, letter in enumerate("tak")]
    network = Emitting("dobrzetak", [*heard, *((time_s, "|") for time_s in bar_s)], 10.0)
    aligners = Aligners("cpu")
    aligners._loaded["pl"] = network, {"dictionary": network.known, "type": "huggingface", "language": "pl"}
    words = aligners.words(sound(12), start_s=1.5, end_s=11.5, text=text, language="pl")
    assert words is not None
    first, second = (word for word in words if is_said(word))
    assert (first.start_s, second.start_s) == pytest.approx((2.5, 6.5), abs=0.03)
    assert 2.9 < first.end_s <= 3.21 and 6.65 < second.end_s <= 6.97


def test_a_chinese_character_before_a_pause_lasts_half_a_second_at_most():
    network = Emitting("你好再见", [(1.0, "你"), (1.2, "好"), (5.0, "再"), (5.2, "见")], 8.0)
    aligners = Aligners("cpu")
    aligners._loaded["zh"] = network, {"dictionary": network.known, "type": "huggingface", "language": "zh"}
    words = aligners.words(sound(8), start_s=0.0, end_s=8.0, text="你好。再见", language="zh")
    assert words is not None and [word.text for word in words] == ["你", "好。", "再", "见"]
    assert [word.end_s for word in words] == pytest.approx([1.2, 1.7, 5.2, 5.22], abs=0.03)
    assert all(0.9 < word.score <= 1 for word in words), "as sure as the aligner is"


NUMBER = "neunzehnhundertvierundachtzig"


@pytest.mark.parametrize("number", ["1984", "\u0661\u0669\u0668\u0664", "19\u00bd", NUMBER])
def test_a_text_with_digits_is_none_for_an_aligner_and_a_number_in_letters_is(number: str):
    said = ((0.5, "im"), (1.0, NUMBER), (5.0, "war"))
    heard = [(start_s + 0.08 * n, letter) for start_s, word in said for n, letter in enumerate(word)]
    network = Emitting("imwar" + NUMBER, heard, 8.0)
    aligners = Aligners("cpu")
    aligners._loaded["de"] = network, {"dictionary": network.known, "type": "torchaudio", "language": "de"}
    words = aligners.words(sound(8), start_s=0.0, end_s=8.0, text=f"Im {number} war", language="de")
    if number == NUMBER:
        assert words is not None and [word.start_s for word in words] == pytest.approx([0.5, 1.0, 5.0], abs=0.05)
    else:
        assert words is None


def test_a_chinese_digit_is_a_syllable_that_an_aligner_places():
    said = [(1.0, "我"), (1.2, "有"), (1.4, "十"), (1.6, "五"), (3.0, "年")]
    network = Emitting("我有十五年", said, 5.0)
    aligners = Aligners("cpu")
    aligners._loaded["zh"] = network, {"dictionary": network.known, "type": "huggingface", "language": "zh"}
    words = aligners.words(sound(5), start_s=0.0, end_s=5.0, text="我有15年", language="zh")
    assert words is not None and [word.text for word in words] == ["我", "有", "15", "年"]
    assert [word.start_s for word in words] == pytest.approx([1.0, 1.2, 1.4, 3.0], abs=0.03)


def test_an_aligner_is_given_no_mark_that_is_its_blank_or_that_it_does_not_know():
    torchaudio_s, other = {"-": 0, "|": 1, "'": 2}, {"[pad]": 0, "-": 1, "|": 2, ".": 3}
    said = {name: "".join(letter for _, letter in _said(' "I\'m well - so-so." ', known))
            for name, known in (("torchaudio", torchaudio_s), ("other", other))}  # fmt: skip
    assert said == {"torchaudio": "i'm well soso", "other": "im well - so-so"}


@pytest.mark.parametrize(
    ("language", "holds", "said"),
    [("de", b"<html>", "load key"), ("de", b"", "Ran out of input"), ("pl", None, "no file named pytorch_model.bin")],
)
def test_weights_that_are_no_aligner_are_named_with_what_is_wrong(language, holds, said, tmp_path, monkeypatch):
    monkeypatch.setenv("TFW_MODELS", str(tmp_path))
    if holds is None:
        random_aligner(tmp_path / "align-pl", [*ANY["en"]])
        (tmp_path / "align-pl" / "model.safetensors").unlink()
    else:
        (tmp_path / "align-de.pt").write_bytes(holds)
    with pytest.raises(WeightsMissingError, match=f"align-{language}: .* is no aligner that .*{said}") as caught:
        Aligners("cpu").words(sound(1), start_s=0, end_s=1, text="so", language=language)
    assert "\n" not in str(caught.value)


def loads(monkeypatch: pytest.MonkeyPatch, most_gb: float, languages: list[str]) -> list[str]:
    """Which aligners are loaded for texts in these languages; no two at a time ever take more than `most_gb`."""
    made, aligners = [], Aligners("cpu", most_gb)

    def load(language: str, device: str) -> tuple[None, dict[str, tuple[str, ...]]]:
        kept_gb = sum(REGISTRY[ALIGNERS[one]].size_mb for one in aligners._loaded) / 1000
        assert not kept_gb or kept_gb + REGISTRY[ALIGNERS[language]].size_mb / 1000 <= most_gb
        made.append(language)
        return None, {"dictionary": ()}

    monkeypatch.setattr("stages.aligners._load", load)
    for language in languages:
        assert aligners.words(sound(1), start_s=0, end_s=1, text="x", language=language) is None
    return made


def test_aligners_stay_while_all_have_room_and_else_the_one_used_last_goes_last(monkeypatch: pytest.MonkeyPatch):
    every = sorted(ALIGNERS)
    assert loads(monkeypatch, 10.0, every * 3) == every
    assert loads(monkeypatch, LEAST_GB, ["de", "en", "es", "fr"] * 3) == ["de", "en", "es", "fr"]
    assert loads(monkeypatch, LEAST_GB, ["pl", "ru", "pl", "th", "pl", "ru"]) == ["pl", "ru", "th", "ru"]
    assert loads(monkeypatch, LEAST_GB, ["zh", "zh", "de", "ru", "zh"]) == ["zh", "de", "ru", "zh"]
    assert loads(monkeypatch, 0.1, ["zh", "zh", "de"]) == ["zh", "de"]


def test_aligners_take_what_a_worker_s_share_of_its_gpu_leaves_beside_whisper(monkeypatch: pytest.MonkeyPatch):
    speech = build("own").speech
    all_gb = sum(REGISTRY[name].size_mb for name in ALIGNERS.values()) / 1000
    for card_gb in (None, 8.0, 24.0, 40.0, 80.0):
        monkeypatch.setattr("stages.speech.gpu_memory_gb", lambda card_gb=card_gb: card_gb)
        room_gb = speech._aligners_gb("cuda")
        share_gb = max(speech.resources.gpu_memory_gb, speech.resources.gpus * (card_gb or 0.0))
        assert LEAST_GB <= room_gb <= max(LEAST_GB, share_gb - 3.1), "beside the weights of large-v3"
        assert (room_gb >= all_gb) == (card_gb == 80.0) and speech._aligners_gb("cpu") == LEAST_GB
        assert (room_gb > LEAST_GB + 0.01) == ((card_gb or 0.0) >= 24.0)
