"""What a learning-rate schedule can be told. No torch here, so that help pages are fast."""

from typing import Literal

import pydantic

from inkstone.base.quantity import format_count
from inkstone.base.settings import Settings, setting

ScheduleKind = Literal["constant", "linear", "cosine", "step", "multi_step", "exponential", "inverse_root", "wsd"]
DEFAULT_WARMUP_STEPS = 20.0


class ScheduleSettings(Settings):
    """One schedule. Shares are shares of the run's limit, whatever its unit: steps, tokens, minutes or epochs."""

    kind: ScheduleKind = setting("cosine", "constant, linear, cosine, step, multi_step, exponential, inverse_root or wsd")
    warmup: float = setting(
        DEFAULT_WARMUP_STEPS, "linear warm-up: a share of the limit if below 1, else a number of steps", ge=0, le=1e9
    )
    final: float = setting(
        0.0, "lowest factor, as a share of the peak: the end of linear, cosine and wsd, the floor of the others", ge=0, le=1
    )
    decay_share: float = setting(0.4, "wsd: the last share of the limit, in which the factor falls to `final`", gt=0, le=1)
    gamma: float = setting(0.1, "step, multi_step, exponential: multiply by this at each drop", gt=0, le=1)
    every: float = setting(0.3, "step, exponential: share of the limit from one drop to the next", gt=0, le=1)
    milestones: tuple[float, ...] = setting((0.5, 0.75), "multi_step: shares of the limit at which the factor drops")

    @pydantic.model_validator(mode="after")
    def _check(self) -> "ScheduleSettings":
        problems = []
        if 1 < self.warmup != int(self.warmup):
            problems.append(f"warmup {self.warmup} is neither a share below 1 nor a whole number of steps")
        if any(not 0 < share < 1 for share in self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            problems.append(f"milestones {list(self.milestones)} are not rising shares between 0 and 1, such as [0.5, 0.75]")
        if self.kind == "wsd" and self.warmup < 1 and self.warmup + self.decay_share > 1:
            most = round(1 - self.decay_share, 6)
            problems.append(
                f"warmup {self.warmup} + decay_share {self.decay_share} is more than the whole run (warmup at most {most})"
            )
        if self.kind == "multi_step" and self.warmup < 1 and self.milestones and self.milestones[0] < self.warmup:
            problems.append(f"milestone {self.milestones[0]} comes before the warm-up ends at {self.warmup}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def schedule_problems(settings: ScheduleSettings, *, total_steps: int | None) -> list[str]:
    """Return what is wrong with a schedule for a run of this many steps; `None` where the limit has another unit.

    The default warm-up is not a mistake of the user: a shorter run merely ends inside it.
    """
    if total_steps is None or settings.warmup < 1 or settings.warmup == DEFAULT_WARMUP_STEPS:
        return []
    if settings.warmup >= total_steps:
        found = f"schedule.warmup: {format_count(settings.warmup)} steps of warm-up do not fit into a run of {total_steps} steps"
        return [f"{found} — use fewer, or a share such as 0.1"]
    decay_start = (1 - settings.decay_share) * total_steps
    if settings.kind == "wsd" and settings.warmup > decay_start:
        found = f"schedule.warmup: {format_count(settings.warmup)} steps end after the decay begins at step {decay_start:.0f}"
        return [f"{found} — use at most {decay_start:.0f}, or a smaller schedule.decay_share"]
    return []
