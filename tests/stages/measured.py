"""Made-up measurements, and the small real files that they speak of."""

import dataclasses
import hashlib
import io
import wave
import zlib

import av
import numpy as np

from manifests.codec import to_plain
from manifests.records import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    AudioStream,
    Clip,
    Clips,
    Identities,
    Identity,
    Ref,
    Seen,
    Source,
    Speech,
    Speeches,
    Sync,
    Syncs,
    Track,
    Video,
    VideoStream,
    Word,
)
from manifests.store import Store
from pipeline.ledger import Ledger, Outcome
from stages.judge import STAGES, Measured

NO_FILE = Ref("nowhere", 1, "0" * 64)


GOOD_FACE = {
    "detected_share": 1.0, "face_px": 220.0, "face_share": 0.4, "score": 0.9, "yaw_deg": 5.0, "pitch_deg": 4.0,
    "roll_deg": 2.0, "yaw_p95_deg": 12.0, "sharpness": 150.0, "exposure": 120.0, "inside_share": 1.0, "motion": 3.0,
}  # fmt: skip


def track(number=0, **known):
    return Track(number=number, **({"scene": 0, "start_frame": 0, "end_frame": 250} | GOOD_FACE | known))


def sync(key, confidence=7.0, offset_frames=0, drift=0.0):
    return Sync(
        key=key, offset_frames=offset_frames, confidence=confidence, distance=6.5, distances=(9.0, 6.5, 9.0),
        curve_offset_frames=(offset_frames,), curve_confidence=(confidence,), curve_hop_s=1.0,
        drift_frames_per_min=drift, drift_least_frames_per_min=drift,
    )  # fmt: skip


def word(text, start_s):
    return Word(text=text, start_s=start_s, end_s=start_s + 0.3, score=0.9)


def speech(key, **known):
    good = {
        "speech_share": 0.8, "speech_s": 2.0, "snr_db": 25.0, "other_voice_share": 0.0,
        "language": "de", "language_probability": 0.95, "verdict": "agree",
        "windows": (), "text": "Guten Tag", "words": (word("Guten", 0.1), word("Tag", 0.5)),
        "avg_logprob": -0.3, "aligned": True,
    }  # fmt: skip
    return Speech(key=key, **(good | known))


def random_hash(name, digits):
    return hashlib.shake_256(name.encode()).hexdigest(digits // 2)


def face(person, *, noise=0.0, seed=0, width=64):
    mean = np.random.default_rng(person).normal(size=width)
    mean /= np.linalg.norm(mean)
    noisy = mean + noise * np.random.default_rng((person, seed)).normal(size=width) / np.sqrt(width)
    return tuple((noisy / np.linalg.norm(noisy)).tolist())


def identity(key, person=None, **known):
    good = {
        "face": face(zlib.crc32(key.encode()) if person is None else person), "spread": 0.8,
        "picture_hash": random_hash("picture" + key, 128), "sound_hash": random_hash("sound" + key, 256),
        "text_share": 0.0,
    }  # fmt: skip
    return Identity(key=key, **(good | known))


def source(file=NO_FILE, **known):
    return Source(
        file=file, duration_s=60.0, video=VideoStream(width_px=1280, height_px=720, rate_hz=25.0, codec="h264"),
        audio=AudioStream(rate_hz=44100, channels=2, codec="aac"), **known,
    )  # fmt: skip


def clip(video, number=0, *, track=0, start_s=0.0, n_frames=100, files=(NO_FILE,) * 3, **known):
    good = {
        "size_px": 64, "contiguous_with_prev": False, "others_in_view": (), "still_s": 0.0, "filled_share": 0.0,
        "effective_face_px": 220.0, **GOOD_FACE,
    }  # fmt: skip
    return Clip(
        key=f"{video}-{number:04d}", number=number, track=track, start_s=start_s, end_s=start_s + n_frames / 25,
        n_frames=n_frames, video=files[0], audio=files[1], arrays=files[2], **(good | known),
    )  # fmt: skip


def measured(
    video="v0", clips=None, tracks=None, syncs=None, speeches=None, identities=None, language="de", channel="",
    person=None, **known,
):  # fmt: skip
    """One good video with one clip, where nothing else is said. Clips of a track that is given are all of it."""
    clips = (clip(video),) if clips is None else clips
    for of in tracks or ():
        read = {name: getattr(of, name) for name in GOOD_FACE}
        clips = tuple(dataclasses.replace(one, **read) if one.track == of.number else one for one in clips)
    return Measured(
        video=Video(id=video, url=f"file:///{video}.mp4", language=language, channel=channel, licence="CC BY 4.0"),
        source=source(),
        seen=Seen(
            n_frames=1500, cuts=(), tracks=tracks or tuple(track(n) for n in sorted({one.track for one in clips})),
            arrays=NO_FILE, faces_share=1.0, decoded_s=60.0,
        ),
        clips=Clips(items=clips),
        syncs=Syncs(items=syncs or tuple(sync(one.key) for one in clips), model="made up"),
        speeches=Speeches(items=speeches or tuple(speech(one.key) for one in clips), model="made up"),
        identities=Identities(items=identities or tuple(identity(one.key, person) for one in clips), model="made up"),
        **known,
    )  # fmt: skip


def remember(store, names, one):
    """Leave in the ledger what a run would have of a video that passed the stages of these names, each with its key."""
    for stage, key in names.items():
        body = to_plain(getattr(one, STAGES[stage]))
        Ledger(store).write(key, one.video.id, Outcome(status="ok", body=body))


def mp4_bytes(n_frames, *, size_px=64, seed=0, sound=True):
    """A real H.264 clip at 25 fps; a grey square wanders over a coloured ground."""
    buffer = io.BytesIO()
    colour = np.random.default_rng(seed).integers(40, 215, 3)
    with av.open(buffer, "w", format="mp4") as target:
        video = target.add_stream("libx264", rate=25, options={"preset": "ultrafast", "x264-params": "threads=1"})
        video.width = video.height = size_px
        video.pix_fmt = "yuv420p"
        audio = target.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono") if sound else None
        for n in range(n_frames):
            picture = np.full((size_px, size_px, 3), colour, np.uint8)
            at = (n * 2 + seed * 7) % (size_px - 16)
            picture[24:40, at : at + 16] = 128
            target.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        target.mux(video.encode(None))
        if audio is not None:
            wave_ = tone(n_frames)[None]
            for n in range(0, wave_.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(wave_[:, n : n + 1024], "s16", "mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, n
                target.mux(audio.encode(frame))
            target.mux(audio.encode(None))
    return buffer.getvalue()


def tone(n_frames):
    """Silence with one click at a fifth of the clip."""
    sound = np.zeros(n_frames * SAMPLES_PER_FRAME, np.int16)
    sound[len(sound) // 5 :][:160] = 12_000
    return sound


def wav_bytes(n_frames):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE_HZ)
        target.writeframes(tone(n_frames).tobytes())
    return buffer.getvalue()


def npz_bytes(n_frames, seed=0):
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    np.savez(
        buffer,
        box=rng.random((n_frames, 5), np.float32),
        lmk=rng.random((n_frames, 5, 2), np.float32),
        pose=rng.random((n_frames, 3), np.float32),
        crop=rng.random((n_frames, 4), np.float32),
    )
    return buffer.getvalue()


def put(store: Store, path, data):
    store.put(path, data)
    return Ref(path, len(data), hashlib.sha256(data).hexdigest())


def stored_clip(store, video, number=0, *, n_frames=20, seed=0, **known):
    """A clip whose three files are real and lie in the store."""
    where = f"blobs/clip-test/{video[:2]}/{video}/{number:04d}"
    files = (
        put(store, f"{where}.mp4", mp4_bytes(n_frames, seed=seed)),
        put(store, f"{where}.wav", wav_bytes(n_frames)),
        put(store, f"{where}.npz", npz_bytes(n_frames, seed)),
    )
    return clip(video, number, n_frames=n_frames, files=files, **known)
