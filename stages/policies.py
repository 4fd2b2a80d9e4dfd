"""What a data set wants, as data: thresholds by name. A policy knows no model; `stages.judge` knows no threshold.

A limit of `None` switches its rule off. Sources of the numbers: [LS] LatentSync's preprocessing, [TV] TalkVid,
[SV] SpeakerVid-5M, [SN] syncnet_python, [EM] Emilia-pipe, [HA] Hallo's data notes, [WH] Whisper's own decoding, [P]
MCDM's paper, which states the steps and a 30 s cap but no threshold; [own] chosen here.
"""

import dataclasses
from dataclasses import dataclass

from stages.language import subtag


@dataclass(frozen=True)
class ForLanguage:
    """One limit that differs for one language (BCP-47 primary subtag): SyncNet reads some languages lower."""

    language: str
    limit: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Limits for one clip, and how the kept ones are split. All of it can be changed by name: `policy.max_yaw_deg=30`.

    The defaults are those of `paper`. Raises `ValueError` for a limit by language that names no limit.
    """

    name: str = "paper"

    min_duration_s: float | None = 3.0  # [TV][SV] clips of 3 to 30 s and 3 to 14 s; the paper's mean is 27.8 s
    min_face_px: float | None = 100.0  # [SN][LS] min face 100 px
    max_face_share: float | None = 0.9  # [own] of the frame's height: above it chin or forehead leave the picture
    min_inside_share: float | None = 0.98  # [P] "incomplete" faces go; [TV] completeness 100 on sampled frames
    min_detected_share: float | None = 0.9  # [own] a track that is mostly bridged gaps is a guess
    # [own] SCRFD's own floor is 0.5; of 29 real clips of people who talk the medians lie between 0.67 and 0.89
    # (SCRFD-500M and 2.5G), of their shorter tracks from 0.64 on.
    min_detector_score: float | None = 0.6
    max_yaw_deg: float | None = 45.0  # [HA] asks 30; the 95th centile instead of the mean needs more room
    max_pitch_deg: float | None = 35.0  # [own]
    max_roll_deg: float | None = 35.0  # [own]
    min_sharpness: float | None = 20.0  # [own] variance of the Laplacian of the aligned face, as stages.quality has it
    # [own] Real faces of 118 px and more, coded at crf 30, read 58 and more; about 250 px enlarged 6 times, 28 to 50.
    min_effective_face_px: float | None = 45.0
    min_exposure: float | None = 20.0  # [SV] luminance 10 to 210; dark skin in a dim room, well seen, reads below 30
    max_exposure: float | None = 225.0  # [SV], with room for pale skin in daylight
    min_motion: float | None = 0.4  # [own] a still picture under a voice moves by coding noise alone
    # [own] As `still_s` reads: 0.8 drops every freeze of 1.44 s and, as the looks fall, some of 1.04 s and more. All 28
    # real clips of people who talk read 0 s; silent ones 0.64, at crf 36 1.28.
    max_still_s: float | None = 0.8
    # [own] Of the crop's area, over the source's edge: sets of tight crops (VoxCeleb) would lose nearly all.
    max_filled_share: float | None = None
    max_other_faces: int | None = 0  # [P] "multiple faces" go: those inside the crop that are not doubtful themselves

    min_speech_share: float | None = 0.3  # [own] more pause than speech teaches no lip motion
    # [own] Of the voice over music and noise, as `stages.noise` reads it. The paper asks for none.
    min_snr_db: float | None = None
    # [own] Of others than the clip's main voice, as `stages.voices` reads it. The paper asks for none.
    max_other_voice_share: float | None = None
    allow_other_language: bool = False  # [own] a wrong label is worse than a missing clip
    allow_mixed_language: bool = False
    allow_unsure_language: bool = True  # accents mislead language identification; unsure is not wrong
    min_avg_logprob: float | None = -1.5  # [SV] transcripts below it are not trusted
    # [WH] As `stages.transcript.repetition` reads: loops, of which the recogniser is sure. The sample world reads 1.6.
    max_repetition: float | None = 2.4
    # [own] Letters of the text, as `stages.transcript.n_letters` counts, for each second with a voice: below it most of
    # what is said is missing. The sample world reads 6 and more (Chinese from 8 on), slow readers about 5.
    min_letters_per_voice_s: float | None = 3.0
    max_credits: int | None = 0  # [own] makers of subtitles in the text: Whisper learned from them, and invents them

    min_confidence: float | None = 3.0  # [LS] keep at 3 and above
    max_distance: float | None = None  # [own] says nothing that confidence does not say
    max_offset_frames: int | None = 1  # nothing is shifted, so what ships is within 40 ms
    shift_audio: bool = False  # move the sound by the offset found, without re-encoding, before it is shipped
    max_jump_frames: int | None = 2  # [own] of a part of the clip against the whole; steady clips read at most 1
    # [own] Over the clip, at least: a 0.1 % clock error makes 0.75 in 30 s. Steady sample clips read at most 0.26, one
    # through another detector's crops 1.28; of a drift of 3 to 5.8 frames put into them nine in ten read more.
    max_drift_frames: float | None = 1.5
    one_speaker: bool = True  # of faces seen at once, keep the one whose lips match best

    # [own] Of any of eight faces to the most typical one. With MobileFaceNet 34 real clips of one person read 0.41 and
    # more (0.52 within the limit of yaw), of 13,272 mixtures of two people three above 0.35, 12 dissolves below 0.12.
    min_identity_cosine: float | None = 0.35
    # [own] Of the crop, within lines of text, as `stages.scene_text` reads it. The paper asks for none.
    max_text_share: float | None = None
    licences: tuple[str, ...] | None = None  # any of these, case-blind, must occur in the licence; None: any licence

    # [own] Share of differing bits of the picture hashes; a copy is close in both. Over 68 real clips: re-encoded,
    # scaled, brightened, mirrored and trimmed copies lie below 0.11, copies cropped by 10 % below 0.24 (95 of 100),
    # other footage above 0.29.
    max_picture_distance: float | None = 0.25
    max_sound_distance: float | None = 0.25  # measured in stages.fingerprint: copies below 0.17, others above 0.36

    same_person_cosine: float = 0.42  # [own] between mean faces of two tracks (ArcFace-type)
    val_share: float = 0.05
    test_share: float = 0.05
    by_language: tuple[ForLanguage, ...] = ()

    def __post_init__(self) -> None:
        known = {f.name for f in dataclasses.fields(self) if f.name.startswith(("min_", "max_"))}
        for exception in self.by_language:
            if exception.limit not in known:
                raise ValueError(
                    f"policy {self.name}: no limit {exception.limit!r} for language {exception.language!r}, "
                    f"only {', '.join(sorted(known))}"
                )
        if not 0 <= self.val_share + self.test_share < 1 or min(self.val_share, self.test_share) < 0:
            raise ValueError(f"policy {self.name}: val_share and test_share must leave room for train")

    def limit(self, name: str, language: str) -> float | None:
        """The limit for clips of a language (its primary subtag in today's spelling decides), or for all."""
        for exception in self.by_language:
            if exception.limit == name and subtag(exception.language) == subtag(language):
                return exception.value
        value: float | None = getattr(self, name)
        return value


# Mandarin is read 1 to 2 lower by SyncNet, which was trained on English broadcasts (LatentSync issue 91,
# wav2lip_288x288 issue 119); nobody publishes a figure: a start, until it is calibrated on clips known to be in sync.
_MANDARIN = (ForLanguage("zh", "min_confidence", 2.0),)

PAPER = Policy(name="paper", by_language=_MANDARIN)

LATENTSYNC = Policy(
    name="latentsync",
    min_duration_s=5.0,  # [LS] README: 5 to 10 s segments
    min_face_px=100.0,  # [LS]
    min_detected_share=0.99,  # [LS] a single missed frame drops the clip
    # [LS] asks S3FD for 0.9, of a softmax, which none of 29 real talking faces reads with SCRFD: the default stays.
    min_effective_face_px=None,  # [LS] what was enlarged passes
    max_yaw_deg=None,  # [LS] looks at no pose
    max_pitch_deg=None,
    max_roll_deg=None,
    min_exposure=None,
    max_exposure=None,
    min_motion=None,  # [LS] frozen clips pass
    max_still_s=None,
    min_speech_share=None,  # [LS] looks at no speech and no language
    allow_other_language=True,
    allow_mixed_language=True,
    min_avg_logprob=None,
    max_repetition=None,
    min_letters_per_voice_s=None,
    max_credits=None,
    min_confidence=3.0,  # [LS]
    max_offset_frames=6,  # [LS]
    shift_audio=True,  # [LS] by -itsoffset and stream copy
    max_jump_frames=None,  # [LS] reads one offset for the whole clip
    max_drift_frames=None,
    one_speaker=False,
    min_identity_cosine=None,
    max_picture_distance=None,  # [LS] has no deduplication
    max_sound_distance=None,
)

STRICT = Policy(
    name="strict",
    min_duration_s=5.0,  # [LS]
    min_face_px=160.0,  # [own] a 512 px crop of it is enlarged at most twice
    max_face_share=0.8,
    min_inside_share=1.0,  # [TV] completeness 100
    min_detected_share=0.98,
    max_yaw_deg=30.0,  # [HA] yaw below 30
    max_pitch_deg=20.0,
    max_roll_deg=20.0,
    min_sharpness=60.0,
    min_effective_face_px=60.0,
    min_exposure=45.0,
    max_exposure=210.0,  # [SV]
    min_motion=0.6,
    max_filled_share=0.15,  # [own] more shows: hair or chin as a row of stripes
    min_speech_share=0.6,
    # [own] A music bed as loud as the voice reads 2, one 10 dB below it 9; 25 of 29 real clips of people who talk read
    # 11 and more, the other four 3 to 9.
    min_snr_db=10.0,
    # [own] All 39 real clips of one voice read 0. Of pairs of voices 62 % read more that take turns of 2 s, all that
    # are heard at once and as loud, and 85 % with one 6 dB below the other.
    max_other_voice_share=0.1,
    allow_unsure_language=False,  # [EM] language probability above 0.8, which the verdict "agree" asks for
    min_avg_logprob=-1.0,  # [SV] the high-quality subset
    min_confidence=5.0,  # [own] wav2lip_288x288 issue 52 asks 6 to 9 and keeps 1 to 2 % of AVSpeech
    max_offset_frames=1,
    max_drift_frames=1.0,
    min_identity_cosine=0.5,  # [own] real clips within its limit of yaw read 0.59 and more
    # [own] Of subtitles with letters of 16 to 76 px of 512, in five scripts, 98 % read more; of 91 real videos two do,
    # and both show text.
    max_text_share=0.01,
    by_language=(ForLanguage("zh", "min_confidence", 3.5),),
)

SAMPLE = Policy(
    name="sample",
    min_face_px=60.0,  # the sample world is drawn small, so that it is made in seconds
    max_yaw_deg=55.0,  # of heads that turn by 30 degrees, the 95th centile reads up to 50: a small net's landmarks
    min_avg_logprob=None,  # the small recogniser's probabilities are not Whisper's
    min_confidence=1.2,  # people who talk are read at 2 and above, other voices and stills below 0.5
    same_person_cosine=0.6,  # one view of a rendered person and another: 0.75; of two people: 1 in 50 above 0.6
)

POLICIES = {policy.name: policy for policy in (PAPER, LATENTSYNC, STRICT, SAMPLE)}
