"""Windows of synthetic speech that the sample recogniser learns from: many voices, spoiled as recordings are.

Everything is drawn from one seeded generator; the same seed gives the same windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ
from stages.sample.sentences import LANGUAGES, SENTENCES, WORDS
from stages.sample.voice import Speech, speak

UNSPACED = ("zh", "th")
"""Languages that write no spaces between words."""

_POOL = 3  # utterances kept per sentence; one of them is spoken anew, by somebody else, for every window
_BED_S = 60.0

Wave = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Sound (n,) float32 in -1..1 at 16 kHz, what is said in it, and the language of most of it ("" for no speech)."""

    samples: Wave
    text: str
    language: str


@dataclass(frozen=True)
class _Utterance:
    language: str
    sentence: str
    speech: Speech


def written(words: tuple[str, ...], language: str) -> str:
    """Words joined the way the language is written."""
    return ("" if language in UNSPACED else " ").join(words)


def windows(*, speakers: range, seed: int, limit_s: Iterator[float], spoiled: bool = True) -> Iterator[Window]:
    """Endless windows, each at most the next of `limit_s` seconds long, said by `speakers`."""
    chance = np.random.default_rng(seed)
    pool = [
        _utter(chance, language, sentence, speakers)
        for language in LANGUAGES
        for sentence in SENTENCES[language]
        for _ in range(_POOL)
    ]
    beds = _beds(chance)
    for limit in limit_s:
        slot = int(chance.integers(len(pool)))
        pool[slot] = _utter(chance, pool[slot].language, pool[slot].sentence, speakers)
        short = chance.random() < 0.2
        target_s = float(chance.uniform(1.5, limit / 2) if short else chance.uniform(limit / 2, limit))
        window = _compose(chance, pool, target_s, limit)
        yield _spoil(chance, window, beds) if spoiled else window


def _utter(chance: np.random.Generator, language: str, sentence: str, speakers: range) -> _Utterance:
    speaker = int(chance.integers(speakers.start, speakers.stop))
    rate = int(chance.integers(115, 211))
    return _Utterance(language, sentence, speak(sentence, language=language, speaker=speaker, rate_wpm=rate))


def _compose(chance: np.random.Generator, pool: list[_Utterance], target_s: float, limit_s: float) -> Window:
    """Utterances with pauses between them: of one language, sometimes two; sometimes none at all."""
    if chance.random() < 0.04:
        return Window(samples=np.zeros(int(target_s * SAMPLE_RATE_HZ), np.float32), text="", language="")
    per_language = len(pool) // len(LANGUAGES)
    languages = [int(chance.integers(len(LANGUAGES)))]
    if chance.random() < 0.12:
        languages.append(int(chance.integers(len(LANGUAGES))))
    pieces = [_silence(chance, 0.7)]
    texts: list[str] = []
    spoken_s = dict.fromkeys(LANGUAGES, 0.0)
    while True:
        # With two languages the second takes over at a random place, once.
        if len(languages) == 2 and texts and chance.random() < 0.4:
            languages = languages[1:]
        said = pool[languages[0] * per_language + int(chance.integers(per_language))]
        text, sound = _part(chance, said)
        length = sum(map(len, pieces)) + len(sound)
        if length > limit_s * SAMPLE_RATE_HZ or (texts and length > target_s * SAMPLE_RATE_HZ):
            if texts:
                break
            continue
        pieces += [sound, _silence(chance, 0.9)]
        texts.append(text)
        spoken_s[said.language] += len(sound) / SAMPLE_RATE_HZ
    samples = np.concatenate(pieces)[: int(limit_s * SAMPLE_RATE_HZ)]
    return Window(samples=samples, text=" ".join(texts), language=max(spoken_s, key=lambda key: spoken_s[key]))


def _silence(chance: np.random.Generator, most_s: float) -> Wave:
    return np.zeros(int(chance.uniform(0.03, most_s) * SAMPLE_RATE_HZ), np.float32)


def _part(chance: np.random.Generator, said: _Utterance) -> tuple[str, Wave]:
    """The utterance without its silent ends, at a random speed; sometimes only some of its words, cut between two."""
    words, text = said.speech.words, said.sentence
    start_s, end_s = words[0][1], words[-1][2]
    whole = WORDS.get(text, tuple(text.split()) if said.language not in UNSPACED else tuple(text))
    countable = len(whole) == len(words) or (said.language == "zh" and len(whole) == len(words) + 1)
    if countable and len(words) > 2 and chance.random() < 0.25:
        first = int(chance.integers(0, len(words) - 1)) if chance.random() < 0.5 else 0
        last = int(chance.integers(first + 1, len(words))) if not first else len(words)
        start_s, end_s = words[first][1], words[last - 1][2]
        text = written(whole[first:last] + (whole[len(words) :] if last == len(words) else ()), said.language)
    sound = said.speech.samples[int(start_s * SAMPLE_RATE_HZ) : int((end_s + 0.05) * SAMPLE_RATE_HZ)]
    speed = chance.uniform(0.92, 1.09)
    places = np.arange(0, len(sound) - 1, speed)
    gain = 10 ** (chance.uniform(-4, 4) / 20) / 32768
    return text, (np.interp(places, np.arange(len(sound)), sound) * gain).astype(np.float32)


def _beds(chance: np.random.Generator) -> tuple[Wave, Wave, Wave]:
    """A minute each of hiss, of rumble, and of chords with decaying notes; root mean square 1."""
    n = int(_BED_S * SAMPLE_RATE_HZ)
    hiss = chance.standard_normal(n)
    spectrum = np.fft.rfft(chance.standard_normal(n))
    rumble = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), n)
    music = np.zeros(n)
    for start in range(0, n - SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // 2):
        length = min(2 * SAMPLE_RATE_HZ, n - start)
        t = np.arange(length) / SAMPLE_RATE_HZ
        root_hz = 110 * 2 ** (chance.integers(0, 24) / 12)
        for ratio in (1.0, 1.26, 1.5, 2.0, 3.0):
            music[start : start + length] += np.sin(2 * np.pi * root_hz * ratio * t) * np.exp(-2 * t) / ratio
    hissing, rumbling, playing = ((bed / np.sqrt(np.mean(bed**2))).astype(np.float32) for bed in (hiss, rumble, music))
    return hissing, rumbling, playing


def _spoil(chance: np.random.Generator, window: Window, beds: tuple[Wave, Wave, Wave]) -> Window:
    """A room, a microphone, a codec's low-pass, noise and music, and a level."""
    samples = window.samples
    n = len(samples)
    level = float(np.sqrt(np.mean(samples**2))) if window.text else 0.05
    if chance.random() < 0.6:
        samples = _through_room_and_codec(chance, samples)
    for bed, share, low_db, high_db in ((beds[0], 0.5, 12, 40), (beds[1], 0.5, 5, 30), (beds[2], 0.3, 6, 25)):
        if chance.random() < share:
            start = int(chance.integers(0, len(bed) - n))
            samples = samples + bed[start : start + n] * (level * 10 ** (-chance.uniform(low_db, high_db) / 20))
    peak = float(np.abs(samples).max()) or 1.0
    samples = (samples * (10 ** (chance.uniform(-26, -0.5) / 20) / peak)).astype(np.float32)
    return Window(samples=samples, text=window.text, language=window.language)


def _through_room_and_codec(chance: np.random.Generator, samples: Wave) -> Wave:
    """One pass in the frequency domain: decaying echoes, a random tilt and a low-pass at 3.4 to 8 kHz."""
    from scipy.fft import next_fast_len

    n = len(samples)
    tail = int(0.3 * SAMPLE_RATE_HZ)
    size = int(next_fast_len(n + tail, real=True))
    response = np.zeros(tail)
    response[0] = 1.0
    if chance.random() < 0.5:
        decay_s = chance.uniform(0.02, 0.1)
        echoes = chance.standard_normal(tail) * np.exp(-np.arange(tail) / SAMPLE_RATE_HZ / decay_s)
        response += echoes * chance.uniform(0.02, 0.12)
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    tilt_db = chance.uniform(-8, 8) * (hz / 4000 - 1)
    low_pass = 1 / (1 + (hz / chance.uniform(3400, 9000)) ** 16)
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(response, size) * 10 ** (tilt_db / 20) * low_pass
    return np.fft.irfft(spectrum, size)[:n].astype(np.float32)
