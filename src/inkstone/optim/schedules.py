"""FAMILY of learning-rate schedules: pure functions from how far a run is to a factor of the peak rate.

Progress is the share of the limit that is used, so the same schedule serves a run of so many steps, tokens, minutes or epochs.
A new schedule is a function here, a row in SCHEDULES and a name in `ScheduleKind`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from inkstone.base.family import Family
from inkstone.optim.schedule_config import ScheduleSettings

_ROUNDING = 1e-9  # so that the third drop of every=0.1 falls at 0.3, though 0.3 / 0.1 = 2.9999999999999996


@dataclass(frozen=True)
class Place:
    """Where a run is: share of the whole, share of what follows the warm-up, the warm-up's share, and updates done."""

    progress: float
    after_warmup: float
    warmup_share: float
    step: int


def factor(settings: ScheduleSettings, *, progress: float, step: int) -> float:
    """Return what to multiply the peak learning rate with, in [0, 1].

    `progress` is clipped to [0, 1]; `step` counts the updates that are done (0 for the first one). With a warm-up in steps its
    share of the run is estimated as warmup x progress / step: exact when the limit is in steps, and continuous at the warm-up's end
    for every other unit.
    """
    progress = min(max(progress, 0.0), 1.0)
    if settings.warmup < 1:
        if progress < settings.warmup:
            return progress / settings.warmup
        warmup_share = settings.warmup
    else:
        if step < settings.warmup:
            return (step + 1) / (settings.warmup + 1)
        warmup_share = settings.warmup * progress / step
    after = 1.0 if progress >= 1 else (progress - warmup_share) / (1 - warmup_share)
    shape = SCHEDULES[settings.kind](settings, Place(progress, after, warmup_share, step))
    return max(settings.final, min(shape, 1.0))


def _constant(settings: ScheduleSettings, place: Place) -> float:
    return 1.0


def _linear(settings: ScheduleSettings, place: Place) -> float:
    return 1.0 - (1.0 - settings.final) * place.after_warmup


def _cosine(settings: ScheduleSettings, place: Place) -> float:
    """Half a cosine. Source: Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts."""
    return settings.final + (1.0 - settings.final) * (1.0 + math.cos(math.pi * place.after_warmup)) / 2.0


def _step(settings: ScheduleSettings, place: Place) -> float:
    return settings.gamma ** math.floor(place.progress / settings.every + _ROUNDING)


def _multi_step(settings: ScheduleSettings, place: Place) -> float:
    return settings.gamma ** sum(place.progress + _ROUNDING >= share for share in settings.milestones)


def _exponential(settings: ScheduleSettings, place: Place) -> float:
    """The smooth form of `step`: by gamma in every `every` of the run, counted from the warm-up's end."""
    return settings.gamma ** ((place.progress - place.warmup_share) / settings.every)


def _inverse_root(settings: ScheduleSettings, place: Place) -> float:
    """1 / sqrt(step), equal to 1 at the warm-up's end. Source: Vaswani et al. 2017, equation 3."""
    if settings.warmup == 0:
        return 1.0 / math.sqrt(place.step + 1)
    return math.sqrt(place.warmup_share / place.progress) if place.progress > 0 else 1.0


def _wsd(settings: ScheduleSettings, place: Place) -> float:
    """Warm-up, stable, linear decay. Source: Hu et al. 2024 (MiniCPM), section 4; Haegele et al. 2024 for the linear end."""
    into_decay = (place.progress - (1.0 - settings.decay_share)) / settings.decay_share
    return 1.0 - (1.0 - settings.final) * max(into_decay, 0.0)


SCHEDULES: Family[Callable[[ScheduleSettings, Place], float]] = Family(
    "schedule",
    {
        "constant": _constant,
        "linear": _linear,
        "cosine": _cosine,
        "step": _step,
        "multi_step": _multi_step,
        "exponential": _exponential,
        "inverse_root": _inverse_root,
        "wsd": _wsd,
    },
)
