"""A script made into a video file and its truth: speech spoken, people rendered, picture and sound encoded."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from manifests.records import RATE_HZ, SAMPLE_RATE_HZ
from manifests.sample.motion import Motion, pick, still, talk
from manifests.sample.person import person
from manifests.sample.render import Face, Seat, render, render_empty, seat
from manifests.sample.scene import Scene, scene
from manifests.sample.truth import Segment, SpokenWord, VideoTruth
from stages.sample.script import Hardness, Script, Take, speaker_of
from stages.sample.sentences import SENTENCES
from stages.sample.voice import speak

Floats = NDArray[Any]
Image = NDArray[np.uint8]

AUDIO_RATE_HZ = 48_000
_LEAD_S = 0.45  # of silence around the speech of a scene, so that a shifted sound is still whole
_SWITCH = {"en": "fr", "de": "en", "zh": "en", "fr": "de", "hr": "de", "ru": "en", "pl": "en"}


@dataclass(frozen=True)
class Heard:
    """The sound of one scene: samples (n,) float32 in -1..1 at 16 kHz, and what is said when (seconds of the scene)."""

    samples: Floats
    phonemes: tuple[tuple[str, float, float], ...]
    words: tuple[SpokenWord, ...]
    text: str

    @property
    def length_s(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class _Shot:
    """A stretch of one camera angle: its frames come from `frames`; `seen` collects the faces frame by frame."""

    start_frame: int
    n_frames: int
    seats: tuple[Seat, ...]
    where: Scene
    take: Take


def film(script: Script, folder: Path, hardness: Hardness) -> VideoTruth:
    """Make `{name}.mp4` in `folder`."""
    rng = np.random.default_rng([script.seed, 0xF11])
    shots, sounds, at = [], [], 0
    for take in script.takes:
        heard = _speech(rng, take)
        n = round(heard.length_s * float(script.rate_hz))
        made = _shots(script, take, heard, at, n, hardness)
        shots += made
        sounds.append((at / float(script.rate_hz), take, _audible(rng, take, heard)))
        at += n
    total_s = at / float(script.rate_hz)
    sound = _mix(rng, sounds, total_s, hardness)
    path = folder / f"{script.name}.mp4"
    faces: list[list[tuple[Face, ...]]] = [[] for _ in shots]
    rate = script.rate_hz
    with_sound = None if script.flaw == "no_audio" else sound
    pictures = _thinned(_pictures(shots, faces), {shot.start_frame for shot in shots}, hardness, rng)
    encode(path, pictures, (script.width, script.height), rate, with_sound, hardness)
    for _ in range(hardness.generations - 1):
        encode_again(path, path, (script.width, script.height), rate, hardness)
    if script.flaw == "truncated":
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * 0.62)])
    segments = [s for shot, seen in zip(shots, faces, strict=True) for s in _segments(script, shot, seen, sounds)]
    return VideoTruth(
        path=path.name,
        tagged_language=script.language,
        duration_s=total_s,
        rate_hz=float(rate),
        width_px=script.width,
        height_px=script.height,
        cuts_s=tuple(shot.start_frame / float(rate) for shot in shots[1:]),
        segments=tuple(segments),
        flaw=script.flaw,
    )


def _speech(rng: np.random.Generator, take: Take) -> Heard:
    """Sentences with pauses for about the length that the take wants."""
    return _say(rng, take.language, speaker_of(take.person), take.length_s, switch=take.flaw == "code_switch")


def _say(rng: np.random.Generator, language: str, speaker: int, length_s: float, *, switch: bool = False) -> Heard:
    samples: list[Floats] = [np.zeros(round(_LEAD_S * SAMPLE_RATE_HZ), np.float32)]
    phonemes: list[tuple[str, float, float]] = []
    words: list[SpokenWord] = []
    said: list[str] = []
    order = [int(i) for i in rng.permutation(len(SENTENCES[language]))]
    at = _LEAD_S
    while at < length_s - 1.2 and order:
        tongue = _SWITCH.get(language, "en") if switch and len(said) % 2 else language
        index = order.pop()
        text = SENTENCES[tongue][index % len(SENTENCES[tongue])]
        speech = speak(text, language=tongue, speaker=speaker)
        samples += [speech.samples.astype(np.float32) / 32768]
        phonemes += [(p.name, p.start_s + at, p.end_s + at) for p in speech.phonemes]
        words += [SpokenWord(text=w, start_s=a + at, end_s=b + at) for w, a, b in speech.words]
        said.append(text)
        pause = float(rng.uniform(0.12, 0.35))
        samples.append(np.zeros(round(pause * SAMPLE_RATE_HZ), np.float32))
        at = sum(len(s) for s in samples) / SAMPLE_RATE_HZ
    samples.append(np.zeros(round(_LEAD_S * SAMPLE_RATE_HZ), np.float32))
    joint = "" if language in WORDS_JOINED else " "
    return Heard(np.concatenate(samples), tuple(phonemes), tuple(words), joint.join(said))


WORDS_JOINED = ("zh", "th")
"""Languages written without spaces."""


def _audible(rng: np.random.Generator, take: Take, heard: Heard) -> Heard:
    """What is heard in a scene whose lips say `heard`."""
    if take.flaw == "silent_talker":
        return replace(heard, samples=np.zeros_like(heard.samples), words=(), text="")
    if take.flaw == "other_voice":
        voice = _say(rng, take.language, speaker_of(take.other), take.length_s)
        n = len(heard.samples)
        samples = np.zeros(n, np.float32)
        samples[: min(n, len(voice.samples))] = voice.samples[:n]
        words = tuple(w for w in voice.words if w.end_s < heard.length_s)
        return replace(voice, samples=samples, words=words)
    moved = round(take.offset_frames * SAMPLE_RATE_HZ / RATE_HZ)
    if moved == 0:
        return heard
    shift_s = take.offset_frames / RATE_HZ
    words = tuple(replace(w, start_s=w.start_s + shift_s, end_s=w.end_s + shift_s) for w in heard.words)
    return replace(heard, samples=np.roll(heard.samples, moved), words=words)


def _mix(
    rng: np.random.Generator, sounds: list[tuple[float, Take, Heard]], total_s: float, hardness: Hardness
) -> Floats:
    """The whole sound track at 48 kHz: speech, the hiss of a room, and what hardness adds."""
    n = round(total_s * AUDIO_RATE_HZ)
    track: Floats = np.zeros(n, np.float32)
    for start_s, _, heard in sounds:
        fine = resample_poly(heard.samples, AUDIO_RATE_HZ // SAMPLE_RATE_HZ, 1).astype(np.float32)
        first = round(start_s * AUDIO_RATE_HZ)
        part = fine[: n - first]
        track[first : first + len(part)] += part
    level = 0.08
    hiss: Floats = rng.normal(size=n).astype(np.float32)
    hiss = np.convolve(hiss, np.ones(6, np.float32) / 6, mode="same")
    track = 0.85 * track + (0.0008 + level * hardness.noise) * hiss
    if hardness.music:
        track = track + level * hardness.music * _music(rng, n)
    return np.clip(track, -1, 1).astype(np.float32)


def _music(rng: np.random.Generator, n: int) -> Floats:
    t = np.arange(n) / AUDIO_RATE_HZ
    notes = 220 * 2 ** (rng.integers(0, 13, size=int(t[-1] / 0.4) + 2) / 12)
    note = notes[(t / 0.4).astype(int)]
    phase = 2 * np.pi * np.cumsum(note) / AUDIO_RATE_HZ
    envelope = np.exp(-4 * ((t / 0.4) % 1))
    played: Floats = (2.0 * envelope * (np.sin(phase) + 0.4 * np.sin(2 * phase))).astype(np.float32)
    return played


def _shots(script: Script, take: Take, heard: Heard, at: int, n: int, hardness: Hardness) -> list[_Shot]:
    """The camera angles of one take."""
    rate = float(script.rate_hz)
    loud = _loudness(heard.samples, n, rate)
    said = () if take.flaw == "no_face" else heard.phonemes
    motion = talk(said, n, take.seed, rate_hz=rate, yaw_deg=take.yaw_deg, loudness=loud)
    if take.flaw == "still_face":
        motion = still(motion, n // 3)
    where = _where(script, take, take.seed, hardness)
    bounds = [round(n * k / take.angles) for k in range(take.angles + 1)]
    shots = []
    for k, (first, last) in enumerate(pairwise(bounds)):
        angle = where if k == 0 else _where(script, take, take.seed + 7919 * k, hardness)
        part = pick(motion, np.arange(first, last))
        turned = replace(part, yaw=part.yaw + np.float32(18.0 * k * (-1 if take.yaw_deg > 0 else 1)))
        seats = _seats(script, take, turned, angle, rate)
        shots.append(_Shot(at + first, last - first, seats, angle, take))
    return shots


def _seats(script: Script, take: Take, motion: Motion, where: Scene, rate: float) -> tuple[Seat, ...]:
    if script.flaw == "no_face":
        return ()
    one = seat(person(take.person), motion, where)
    if take.flaw != "listener":
        return (one,)
    listening = talk((), len(motion), take.seed + 1, rate_hz=rate, yaw_deg=-8.0)
    swap = take.seed % 2
    left, right = (0.25, where.centre[1]), (0.75, where.centre[1])
    other = Seat(person(take.other), listening, left if swap else right, where.head_px)
    return (replace(one, centre=right if swap else left), other)


def _where(script: Script, take: Take, seed: int, hardness: Hardness) -> Scene:
    head_px = {"tiny_face": 0.11 * script.height, "listener": 0.36 * script.height}.get(take.flaw)
    if head_px is not None:
        head_px = min(head_px, 0.30 * script.width)
    made = scene(seed, script.width, script.height, head_px=head_px)
    calm = replace(made, zoom=0.0, shake=0.0) if take.flaw == "still_face" else made
    blur = script.height / 42 if take.flaw == "blur" else calm.blur
    return replace(calm, blur=blur, grain=calm.grain + hardness.grain)


def _loudness(samples: Floats, n: int, rate: float) -> Floats:
    """Level of the voice per frame, 0..1."""
    edges = (np.arange(n + 1) / rate * SAMPLE_RATE_HZ).astype(int)
    power = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    edges = np.minimum(edges, len(samples))
    level = np.sqrt(np.diff(power[edges]) / np.maximum(1, np.diff(edges)))
    return np.asarray(np.clip(level / (np.percentile(level, 95) + 1e-6), 0, 1), np.float32)


def _pictures(shots: list[_Shot], faces: list[list[tuple[Face, ...]]]) -> Iterator[Image]:
    for shot, seen in zip(shots, faces, strict=True):
        if not shot.seats:
            yield from render_empty(replace(shot.where, shake=2.0, zoom=0.05), shot.n_frames)
            continue
        for frame, found in render(shot.seats, shot.where):
            seen.append(found)
            yield frame


def _thinned(
    pictures: Iterator[Image], firsts: set[int], hardness: Hardness, rng: np.random.Generator
) -> Iterator[tuple[int, Image]]:
    """Numbered frames, some left out, but no first one of a shot: the cuts of the truth can be seen."""
    for number, picture in enumerate(pictures):
        if number in firsts or rng.random() >= hardness.variable_rate:
            yield number, picture


def encode_again(source: Path, target: Path, size: tuple[int, int], rate_hz: Fraction, hardness: Hardness) -> None:
    """Decode and encode once more, every frame at its time; `target` may be `source`."""
    sound = None
    with av.open(str(source)) as f:
        if f.streams.audio:
            sound = np.concatenate([frame.to_ndarray()[0] for frame in f.decode(audio=0)]).astype(np.float32)
    partial = target.with_suffix(".part.mp4")
    with av.open(str(source)) as f:
        numbered = (
            (round(frame.time * rate_hz), frame.to_ndarray(format="rgb24", width=size[0], height=size[1]))
            for frame in f.decode(video=0)
            if frame.time is not None
        )
        encode(partial, numbered, size, rate_hz, sound, hardness)
    partial.replace(target)


def encode(
    path: Path,
    pictures: Iterator[tuple[int, Image]],
    size: tuple[int, int],
    rate_hz: Fraction,
    sound: Floats | None,
    hardness: Hardness,
) -> None:
    """Frames with their numbers as H.264, and AAC, in MP4, the index in front; equal inputs give equal bytes."""
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as target:
        video = target.add_stream("libx264", rate=rate_hz)
        video.codec_context.width, video.codec_context.height = size
        video.codec_context.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.flags |= av.codec.context.Flags.bitexact.value
        # Without the last, x264's macroblock tree reads past the edge of some sizes (854 x 480, 360 x 640): no two
        # encodes of the same pictures agree.
        video.options = {
            "preset": "fast",
            "crf": str(hardness.crf),
            "g": str(round(4 * rate_hz)),
            "x264-params": "cpu-independent=1",
        }
        audio = None
        if sound is not None:
            audio = target.add_stream("aac", rate=AUDIO_RATE_HZ)
            audio.codec_context.layout, audio.codec_context.bit_rate = "mono", 40_000
            audio.codec_context.flags |= av.codec.context.Flags.bitexact.value
        for number, picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate_hz
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if audio is not None and sound is not None:
            for at in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[at : at + 1024][None], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = AUDIO_RATE_HZ, at, Fraction(1, AUDIO_RATE_HZ)
                target.mux(audio.encode(block))
            target.mux(audio.encode(None))


def _segments(
    script: Script, shot: _Shot, seen: list[tuple[Face, ...]], sounds: list[tuple[float, Take, Heard]]
) -> list[Segment]:
    rate = float(script.rate_hz)
    start_s, end_s = shot.start_frame / rate, (shot.start_frame + shot.n_frames) / rate
    base_s, take, heard = next(s for s in sounds if s[1] is shot.take)
    inside = [w for w in heard.words if start_s - 0.02 <= base_s + w.start_s and base_s + w.end_s <= end_s + 0.02]
    words = tuple(replace(w, start_s=w.start_s + base_s, end_s=w.end_s + base_s) for w in inside)
    whole = len(inside) == len(heard.words)
    joint = "" if take.language in WORDS_JOINED else " "
    said = Segment(
        start_s=start_s,
        end_s=end_s,
        person=-1,
        box=(0.0, 0.0, 0.0, 0.0),
        yaw_deg=0.0,
        talks=False,
        language=take.language if heard.text else "",
        text=heard.text if whole else joint.join(w.text for w in words),
        words=words,
        audio_offset_frames=take.offset_frames,
        flaw=take.flaw or script.flaw,
        should_keep=_wanted(script, take),
    )
    if not seen:
        return [replace(said, should_keep=False)]
    found = []
    for number, who in enumerate(shot.seats):
        boxes = np.array([faces[number].box for faces in seen])
        left, top, right, bottom = (float(v) for v in np.median(boxes, axis=0))
        yaws = np.array([faces[number].yaw_deg for faces in seen])
        listens = number > 0
        talker = take.flaw == "listener" and not listens
        found.append(
            replace(
                said,
                person=who.person.seed,
                box=(left, top, right, bottom),
                yaw_deg=float(np.median(np.abs(yaws))),
                talks=not listens and take.flaw != "still_face",
                flaw="" if talker else said.flaw,
                should_keep=True if talker else said.should_keep,
            )
        )
    return found


def _wanted(script: Script, take: Take) -> bool | None:
    if script.flaw in ("duplicate", "truncated"):
        return None
    if script.flaw:
        return False
    return take.flaw in ("", "small_shift", "cut_in_speech")
