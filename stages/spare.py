"""What need not be measured any more: clips that already break a limit on what is known of them.

A stage that spares work is told limits by name and number, as `stages.policies` has them: it holds none of its own.
"""

import dataclasses
from typing import Any, TypeAlias

from stages.judge import UNMEASURED, Measured, candidates, readings
from stages.policies import Policy

Limits: TypeAlias = tuple[tuple[str, float], ...]
"""Names of a policy's limits and their values."""

BY_TRACK = (
    "min_duration_s", "min_face_px", "max_face_share", "min_inside_share", "min_detected_share", "min_detector_score",
    "max_yaw_deg", "max_pitch_deg", "max_roll_deg", "min_sharpness", "min_exposure", "max_exposure", "min_motion",
    "max_still_s", "max_filled_share", "max_other_faces",
)  # fmt: skip
"""Limits on what is known of a piece of a track before anything is cut."""

BY_SYNC = ("min_confidence", "max_distance", "max_offset_frames", "max_drift_frames")
"""Limits on what is known once lips and voice were compared."""

_OFF: dict[str, Any] = {f.name: None for f in dataclasses.fields(Policy) if f.name.startswith(("min_", "max_"))}
_NONE = Policy(name="spare", allow_other_language=True, allow_mixed_language=True, **_OFF)


def loosest(policy: Policy, names: tuple[str, ...]) -> Limits:
    """These limits of a policy, each as its most patient language has it; those that are off for one are left out.

    The language that decides is not known before a clip was heard.
    """
    found = []
    for name in names:
        values = [getattr(policy, name), *(one.value for one in policy.by_language if one.limit == name)]
        if None not in values:
            found.append((name, float(min(values) if name.startswith("min_") else max(values))))
    if any(one.limit == "min_detector_score" for one in policy.by_language):  # which decides what counts as a face
        found = [(name, value) for name, value in found if name != "max_other_faces"]
    return tuple(found)


def policy_of(limits: Limits, names: tuple[str, ...]) -> Policy:
    """A policy of these limits and no other. Raises `ValueError` for one that is not among `names`."""
    for name, _ in limits:
        if name not in names:
            raise ValueError(f"spare: no limit {name!r} here, only {', '.join(names)}")
    given: dict[str, Any] = dict(limits)
    return dataclasses.replace(_NONE, **given)


def useless(known: Measured, policy: Policy) -> frozenset[str]:
    """Keys of a video's clips, and pieces that may become one, that break a limit by what is known of them."""
    return frozenset(
        one.clip.key
        for one in candidates([known])
        if any(reading.margin < 0 and reading.value != UNMEASURED for reading in readings(one, policy))
    )
