"""Whether anybody is heard in a video at all: voice activity over its sound, for as long as it takes to be sure."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.records import SAMPLE_RATE_HZ
from pipeline.stage import Rejection
from stages.sound import audio

Samples = NDArray[np.float32]

WINDOW = 512
"""Samples of which Silero gives one probability."""

_CONTEXT = 64  # samples before a window that the network hears with it
_WINDOW_S = WINDOW / SAMPLE_RATE_HZ
_AT_ONCE = 31  # windows in memory, about a second: so long a voice is heard for longer than it has to be
_LEAST_SHARE = 0.8  # of the pictures' time: a sound that ends earlier may have been lost on the way to us


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How little voice leaves no clip that any policy could keep.

    Policies that ask for a voice want it in 30 % of a clip, and the shortest clip lasts 2 s, so somewhere in the sound
    there are 2 s with 0.6 s of it. Half of that will do here, at an onset well below that of `stages.speech`. Of 86
    real clips with sound the 81 in which somebody speaks or sings, over music too, hold 1.1 s and more in their best
    2 s; music alone (3) holds 0.0 s, Silero never says more than 0.13.
    """

    min_s: float = 0.3  # voice in the best `span_s` of a video that may go on; 0: nobody listens
    span_s: float = 2.0
    onset: float = 0.2  # probability from which a window counts as voice
    floor_dbfs: float = -70.0  # a sound with no sample above it is silence, whatever the network would make of it

    def __post_init__(self) -> None:
        if not 0 <= self.min_s <= self.span_s:
            raise ValueError(f"voice: need 0 <= min_s <= span_s, not {self.min_s} and {self.span_s}")
        if not 0 < self.onset < 1:
            raise ValueError(f"voice: onset must lie between 0 and 1, not {self.onset}")

    def open(self) -> "Listener":
        """Load the network, unless nobody listens."""
        return Listener(self, Silero() if self.min_s else None)


class Silero:
    """Silero's voice activity network, as it comes with faster-whisper, on one thread; remembers what came before."""

    def __init__(self) -> None:
        import onnxruntime

        # The file alone: the package would bring CTranslate2 into a worker that has no use for it.
        found = find_spec("faster_whisper")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("faster_whisper, which Silero's weights come with")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        path = Path(found.submodule_search_locations[0]) / "assets" / "silero_vad_v6.onnx"
        self._net: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.forget()

    def forget(self) -> None:
        """What comes next is the beginning of a sound."""
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._before = np.zeros(_CONTEXT, np.float32)

    def hear(self, samples: Samples) -> NDArray[np.float32]:
        """Probability of voice (n,) of each of the next n windows of a sound (n * 512,), -1..1, 16 kHz."""
        led = np.concatenate([self._before, samples])
        windows = np.lib.stride_tricks.sliding_window_view(led, _CONTEXT + WINDOW)[::WINDOW]
        found, self._h, self._c = self._net.run(
            None, {"input": np.ascontiguousarray(windows), "h": self._h, "c": self._c}
        )
        self._before = led[-_CONTEXT:]
        return np.asarray(found, np.float32).reshape(-1)


class Listener:
    """Listens to one video after another."""

    def __init__(self, config: Voice, net: Silero | None) -> None:
        self._config = config
        self._net = net
        self._floor = 32768 * 10 ** (config.floor_dbfs / 20)

    def missing(self, path: Path, duration_s: float, end_s: float | None = None) -> Rejection | None:
        """Why nobody can be talking in a file whose pictures last so long; None from the moment enough voice was heard.
        What comes after `end_s` is not heard.

        "silent": nothing is above the floor; "no_speech": something is, but no voice. None as well where there is
        doubt: no sound that can be decoded, or one that ends long before the pictures. Holds about a second of sound
        at a time. Raises `MediaError`.
        """
        if self._net is None:
            return None
        span = round(self._config.span_s / _WINDOW_S)
        recent = np.zeros(0, bool)  # of the last `span` windows, which were voice
        n_windows = n_voiced = most = peak = 0
        self._net.forget()
        for samples in _second_by_second(path, end_s):
            loud = int(np.abs(samples.astype(np.int32)).max())
            peak = max(peak, loud)
            voiced = self._voiced(samples, loud)
            recent = np.concatenate([recent, voiced])
            most = max(most, _most(recent, span))
            if most * _WINDOW_S >= self._config.min_s:
                return None
            recent = recent[-span:]
            n_windows, n_voiced = n_windows + len(voiced), n_voiced + int(voiced.sum())
        if n_windows * _WINDOW_S < _LEAST_SHARE * duration_s:
            return None
        measured: dict[str, float | str] = {
            "heard_s": round(n_windows * _WINDOW_S, 2),
            "loudest_dbfs": round(20 * float(np.log10(max(peak, 0.5) / 32768)), 1),
        }
        if peak <= self._floor:
            return Rejection("silent", measured)
        measured["speech_s"] = round(n_voiced * _WINDOW_S, 2)
        measured["most_speech_s"] = round(most * _WINDOW_S, 2)
        return Rejection("no_speech", measured)

    def _voiced(self, samples: NDArray[np.int16], loud: int) -> NDArray[np.bool_]:
        """Which of the windows of a piece of sound hold a voice. Silence costs nothing, and is forgotten."""
        assert self._net is not None
        if loud <= self._floor:
            self._net.forget()
            return np.zeros(len(samples) // WINDOW, bool)
        return self._net.hear(samples.astype(np.float32) / np.float32(32768)) >= self._config.onset


def _second_by_second(path: Path, end_s: float | None) -> Iterator[NDArray[np.int16]]:
    """Sound in pieces of whole windows; the last is filled up with zeros."""
    size = _AT_ONCE * WINDOW
    held: list[NDArray[np.int16]] = []
    n_held = 0
    for block in audio(path, end_s=end_s):
        held.append(block)
        n_held += len(block)
        if n_held < size:
            continue
        joined = np.concatenate(held)
        yield from joined[: n_held // size * size].reshape(-1, size)
        held, n_held = [joined[n_held // size * size :]], n_held % size
    if n_held:
        yield np.pad(np.concatenate(held), (0, -n_held % WINDOW))


def _most(voiced: NDArray[np.bool_], span: int) -> int:
    """The most voiced windows among any `span` in a row."""
    total = np.concatenate([[0], np.cumsum(voiced)])
    width = min(span, len(voiced))
    return int((total[width:] - total[: len(total) - width]).max())
