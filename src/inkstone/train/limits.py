"""How far a run is: the share used of whichever limit is nearest, so that a schedule works in steps, tokens, minutes or epochs."""

from dataclasses import dataclass

from inkstone.train.config import TrainSettings


@dataclass
class Spent:
    """What a run has used so far. `seconds` counts training alone: no evaluation, sampling or saving."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    epochs: float = 0.0


def share_used(train: TrainSettings, spent: Spent) -> tuple[float, str]:
    """Return (the largest share used of any limit, in [0, …); that limit's name)."""
    shares = {
        "max_steps": spent.steps / train.max_steps if train.max_steps else 0.0,
        "max_tokens": spent.tokens / train.max_tokens if train.max_tokens else 0.0,
        "max_minutes": spent.seconds / (60 * train.max_minutes) if train.max_minutes else 0.0,
        "max_epochs": spent.epochs / train.max_epochs if train.max_epochs else 0.0,
    }
    name = max(shares, key=lambda key: shares[key])
    return shares[name], name


def ramped_batch_size(train: TrainSettings, share: float) -> int:
    """Return the sequences of the next batch: from `ramp_from` of the full size, linearly, to all of it at `ramp_share` of the run."""
    if share >= train.ramp_share:
        return train.batch_size
    factor = train.ramp_from + (1 - train.ramp_from) * share / train.ramp_share
    return max(1, round(train.batch_size * factor))
