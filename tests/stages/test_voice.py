"""Listening before watching: what is heard, when it stops, and that a video without a voice costs no picture."""

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.records import SAMPLE_RATE_HZ, Seen, Source
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection, semantic
from stages import voice
from stages.faces import Faces
from stages.glance import Glance
from stages.media import probe
from stages.voice import WINDOW, Listener, Silero, Voice
from stages.watch import Watch
from tests.benchmarks.counts import counted
from tests.media import Look, Sound, numbered_video, times_at
from tests.stages.test_speech import babble, silence

WINDOW_S = WINDOW / SAMPLE_RATE_HZ


class Scripted:
    """In the place of the network: window k of a sound is voice where `at` says so."""

    def __init__(self, at: set[int]) -> None:
        self._at = at

    def forget(self) -> None:
        self._next = 0

    def hear(self, samples: np.ndarray) -> np.ndarray:
        k = np.arange(self._next, self._next + len(samples) // WINDOW)
        self._next += len(k)
        return np.isin(k, list(self._at)).astype(np.float32)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Soft noise int16 (n,) at 16 kHz: something is heard, and nobody."""
    return (np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ)) * 300).astype(np.int16)


def film(path: Path, samples: np.ndarray | None, duration_s: float | None = None, **look) -> Path:
    """A small video, a picture a second, with this sound at 16 kHz."""
    length_s = duration_s or len(samples) / SAMPLE_RATE_HZ
    sound = None if samples is None else Sound(samples=samples, rate_hz=SAMPLE_RATE_HZ)
    return numbered_video(path, times_at(Fraction(1), length_s), sound=sound, look=Look(**look))


def missing(path: Path, config: Voice | None = None) -> Rejection | None:
    return (config or Voice()).open().missing(path, probe(path).duration_s)


@pytest.fixture(scope="module")
def work():
    return Watch(faces=Faces(pack="sample/faces")).open()


def watched(work, folder: Path, path: Path) -> tuple[Seen | Rejection, int]:
    """What the whole stage says, and how many pictures it decoded for that."""
    store, about = Store(str(folder / "store")), probe(path)
    source = Source(file=store.put_file(path, "in/aa"), duration_s=about.duration_s, video=about.video, audio=None)
    with counted() as counts, Bench(store, "watch", "aa") as bench:
        outcome = work(Facts([source]), bench)
    return outcome, sum(counts.decoded.values())


def test_probabilities_piece_by_piece_are_those_of_the_whole_sound():
    from faster_whisper.vad import get_vad_model

    sound = np.concatenate([noise(1.5), babble(3.0), noise(1.0)])
    sound = sound[: len(sound) // WINDOW * WINDOW].astype(np.float32) / 32768
    net = Silero()
    pieces = [net.hear(sound[k : k + 7 * WINDOW]) for k in range(0, len(sound), 7 * WINDOW)]
    whole = np.asarray(get_vad_model()(sound.copy())).reshape(-1)
    assert np.abs(np.concatenate(pieces) - whole)[:-1].max() < 1e-4  # whose last window is cut by a bug of that wrapper
    assert whole.max() > 0.9


def test_a_silent_film_is_rejected_without_one_picture_decoded(work, tmp_path):
    outcome, n_decoded = watched(work, tmp_path, film(tmp_path / "silent.mp4", silence(12)))
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, n_decoded) == ("silent", 0)
    assert outcome.measured["loudest_dbfs"] < -70
    assert outcome.measured["heard_s"] == pytest.approx(12, abs=0.2)


def test_a_film_of_noise_is_rejected_without_one_picture_decoded_with_what_was_heard(work, tmp_path):
    outcome, n_decoded = watched(work, tmp_path, film(tmp_path / "noise.mp4", noise(12)))
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, n_decoded) == ("no_speech", 0)
    assert set(outcome.measured) == {"heard_s", "loudest_dbfs", "speech_s", "most_speech_s"}
    assert -45 < outcome.measured["loudest_dbfs"] < -25


def test_a_film_whose_only_voice_is_in_its_last_seconds_passes(tmp_path):
    quiet = noise(60)
    assert missing(film(tmp_path / "quiet.mp4", quiet)).reason == "no_speech"
    assert missing(film(tmp_path / "last.mp4", np.concatenate([quiet, babble(1.5)]))) is None
    assert missing(film(tmp_path / "alone.mp4", np.concatenate([silence(60), babble(1.5)]))) is None


def test_a_voice_after_the_end_of_a_part_is_not_heard(tmp_path):
    path, listener = film(tmp_path / "late.mp4", np.concatenate([noise(20), babble(1.5)])), Voice().open()
    outcome = listener.missing(path, 20.0, end_s=20.0)
    assert outcome.reason == "no_speech"
    assert outcome.measured["heard_s"] == pytest.approx(20.0, abs=WINDOW_S)
    assert listener.missing(path, 21.5) is None


def test_nobody_listens_on_once_a_voice_was_heard(tmp_path, monkeypatch):
    heard = []

    def listening(path: Path, **span: float | None):
        for block in audio(path, **span):
            heard.append(len(block))
            yield block

    audio = voice.audio
    monkeypatch.setattr(voice, "audio", listening)
    assert missing(film(tmp_path / "talk.mp4", np.concatenate([babble(3), noise(60)]))) is None
    assert sum(heard) < 3 * SAMPLE_RATE_HZ


@pytest.mark.parametrize(
    ("at", "passes"),
    [
        ({300 + k for k in range(10)}, True),
        ({300 + k for k in range(9)}, False),
        ({300 + 6 * k for k in range(10)}, True),  # 0.32 s within 2 s, in single windows
        ({300 + 63 * k for k in range(10)}, False),  # as much, but never in the same 2 s
        (set(), False),
    ],
)
def test_it_takes_three_tenths_of_a_second_of_voice_within_two_seconds(tmp_path, at, passes):
    path = film(tmp_path / "noise.mp4", noise(40))
    listener = Listener(Voice(), Scripted(at))
    outcome = listener.missing(path, 40.0)
    assert listener.missing(path, 40.0) == outcome, "what one video said is forgotten before the next"
    if passes:
        assert outcome is None
    else:
        assert outcome.reason == "no_speech"
        assert outcome.measured["speech_s"] == pytest.approx(len(at) * WINDOW_S, abs=0.01)


def test_no_sound_or_half_of_it_is_a_doubt_and_no_silence(tmp_path):
    assert missing(film(tmp_path / "mute.mp4", None, 12)) is None
    assert missing(film(tmp_path / "half.mp4", silence(6), 12)) is None


def test_an_hour_of_sound_is_heard_in_the_memory_of_seconds(tmp_path, monkeypatch):
    def hours(path: Path, **span: float | None):
        block = noise(1.0)[:1024]
        for k in range(3600 * SAMPLE_RATE_HZ // 1024):
            yield block if k % 4096 < 256 else np.zeros(1024, np.int16)

    monkeypatch.setattr(voice, "audio", hours)
    listener = Voice().open()
    tracemalloc.start()
    outcome = listener.missing(tmp_path, 3600.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.reason == "no_speech"
    assert outcome.measured["heard_s"] == pytest.approx(3600, abs=1)
    assert peak < 4 << 20  # the hour is 115 MB as int16


def test_nobody_listens_when_told_so_and_the_key_is_that_of_before(tmp_path):
    off = Watch(voice=Voice(min_s=0.0), glance=Glance(max_gap_s=0.0))
    assert missing(film(tmp_path / "silent.mp4", silence(5)), off.voice) is None
    assert {"voice", "glance"} & set(semantic(off)) == set()
    assert {"voice", "glance"} <= set(semantic(Watch()))


@pytest.mark.parametrize("wrong", [{"min_s": -0.1}, {"min_s": 3.0}, {"onset": 0.0}, {"onset": 1.0}])
def test_senseless_limits_are_refused(wrong):
    with pytest.raises(ValueError, match="voice"):
        Voice(**wrong)
