"""Schedules: laws over the family table, literal values, and torch.optim.lr_scheduler as an oracle."""

import math
from itertools import pairwise
from typing import get_args

import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.settings import Settings, resolve, setting, to_toml
from inkstone.optim.schedule_config import ScheduleKind, ScheduleSettings, schedule_problems
from inkstone.optim.schedules import SCHEDULES, factor

STEPS = 200
WARMUPS = [0.0, 0.1, 1.0, 20.0]


def curve(settings: ScheduleSettings, steps: int = STEPS) -> list[float]:
    return [factor(settings, progress=step / steps, step=step) for step in range(steps + 1)]


def test_the_table_and_the_setting_name_the_same_schedules():
    assert set(SCHEDULES) == set(get_args(ScheduleKind))


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", WARMUPS)
def test_the_factor_stays_between_zero_and_one_and_reaches_the_peak(kind, warmup):
    values = curve(ScheduleSettings(kind=kind, warmup=warmup))
    assert all(0.0 <= value <= 1.0 for value in values)
    assert max(values) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", WARMUPS)
def test_it_rises_in_the_warmup_and_never_rises_after_it(kind, warmup):
    values = curve(ScheduleSettings(kind=kind, warmup=warmup))
    end = int(warmup * STEPS) if warmup < 1 else int(warmup)
    assert all(a < b for a, b in pairwise(values[: end + 1]))
    assert values[end] == pytest.approx(1.0)
    assert all(a >= b - 1e-12 for a, b in pairwise(values[end:]))


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.1, 20.0])
def test_it_is_continuous_at_the_warmup_end_when_the_limit_is_in_minutes(kind, warmup):
    """Uneven steps: progress is the square root of the share of steps, as when the machine gets busier."""
    steps = 20_000
    settings = ScheduleSettings(kind=kind, warmup=warmup if warmup < 1 else 2000.0, every=1.0)
    values = [factor(settings, progress=math.sqrt(step / steps), step=step) for step in range(steps // 5)]
    peak = values.index(max(values))
    assert max(values) == pytest.approx(1.0, abs=1e-3)
    assert abs(values[peak + 1] - values[peak]) < 4e-3
    assert abs(values[peak - 1] - values[peak]) < 4e-3


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", WARMUPS)
def test_final_is_the_end_or_the_floor(kind, warmup):
    values = curve(ScheduleSettings(kind=kind, warmup=warmup, final=0.25, gamma=0.1))
    after = values[int(max(warmup, warmup * STEPS if warmup < 1 else 0)) :]
    assert min(after) >= 0.25
    if kind in ("linear", "cosine", "wsd", "step", "multi_step", "exponential"):
        assert after[-1] == pytest.approx(0.25)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_progress_beyond_the_limit_is_the_limit(kind):
    settings = ScheduleSettings(kind=kind, warmup=0.0)
    assert factor(settings, progress=1.5, step=10) == factor(settings, progress=1.0, step=10)
    assert factor(settings, progress=-0.5, step=10) == factor(settings, progress=0.0, step=10)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("warmup", WARMUPS)
def test_a_run_of_one_step_works(kind, warmup):
    settings = ScheduleSettings(kind=kind, warmup=warmup)
    assert 0.0 <= factor(settings, progress=0.0, step=0) <= 1.0
    assert 0.0 <= factor(settings, progress=1.0, step=1) <= 1.0


@pytest.mark.parametrize(
    ("changes", "progress", "step", "expected"),
    [
        ({"kind": "constant"}, 0.9, 90, 1.0),
        ({"kind": "constant", "warmup": 4.0}, 0.0, 0, 0.2),
        ({"kind": "constant", "warmup": 4.0}, 0.03, 3, 0.8),
        ({"kind": "constant", "warmup": 0.1}, 0.05, 5, 0.5),
        ({"kind": "linear"}, 0.0, 0, 1.0),
        ({"kind": "linear"}, 0.25, 25, 0.75),
        ({"kind": "linear", "final": 0.2}, 0.5, 50, 0.6),
        ({"kind": "linear", "warmup": 0.2}, 0.6, 60, 0.5),
        ({"kind": "linear", "warmup": 20.0}, 0.6, 60, 0.5),
        ({"kind": "cosine"}, 0.5, 50, 0.5),
        ({"kind": "cosine"}, 1 / 3, 33, 0.75),
        ({"kind": "cosine", "final": 0.1}, 1.0, 100, 0.1),
        ({"kind": "step", "every": 0.1, "gamma": 0.5}, 0.3, 30, 0.125),
        ({"kind": "step", "every": 0.1, "gamma": 0.5}, 0.299, 29, 0.25),
        ({"kind": "multi_step"}, 0.49, 49, 1.0),
        ({"kind": "multi_step"}, 0.5, 50, 0.1),
        ({"kind": "multi_step"}, 0.75, 75, 0.01),
        ({"kind": "exponential", "every": 0.5, "gamma": 0.25}, 0.25, 25, 0.5),
        ({"kind": "inverse_root", "warmup": 100.0}, 0.4, 400, 0.5),
        ({"kind": "inverse_root", "warmup": 0.1}, 0.4, 400, 0.5),
        ({"kind": "inverse_root"}, 0.4, 24, 0.2),
        ({"kind": "wsd"}, 0.6, 60, 1.0),
        ({"kind": "wsd"}, 0.8, 80, 0.5),
        ({"kind": "wsd"}, 1.0, 100, 0.0),
    ],
)
def test_literal_values(changes, progress, step, expected):
    settings = ScheduleSettings(**{"warmup": 0.0} | changes)
    assert factor(settings, progress=progress, step=step) == pytest.approx(expected, abs=1e-12)


def torch_curve(make) -> list[float]:
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    values = []
    for _ in range(STEPS):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize(
    ("changes", "make"),
    [
        ({"kind": "linear"}, lambda lib, opt: lib.LinearLR(opt, 1.0, 0.0, STEPS)),
        ({"kind": "linear", "final": 0.3}, lambda lib, opt: lib.LinearLR(opt, 1.0, 0.3, STEPS)),
        ({"kind": "cosine"}, lambda lib, opt: lib.CosineAnnealingLR(opt, STEPS)),
        ({"kind": "cosine", "final": 0.1}, lambda lib, opt: lib.CosineAnnealingLR(opt, STEPS, eta_min=0.1)),
        ({"kind": "step", "every": 0.15, "gamma": 0.5}, lambda lib, opt: lib.StepLR(opt, 30, 0.5)),
        ({"kind": "multi_step", "milestones": [0.1, 0.7], "gamma": 0.3}, lambda lib, opt: lib.MultiStepLR(opt, [20, 140], 0.3)),
        ({"kind": "exponential", "every": 0.5, "gamma": 0.5}, lambda lib, opt: lib.ExponentialLR(opt, 0.5**0.01)),
        (
            {"kind": "cosine", "warmup": 20.0},
            lambda lib, opt: lib.SequentialLR(
                opt, [lib.LinearLR(opt, 1 / 21, 1.0, 20), lib.CosineAnnealingLR(opt, STEPS - 20)], [20]
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_equals_torch(changes, make):
    assert curve(ScheduleSettings(**{"warmup": 0.0} | changes))[:STEPS] == pytest.approx(torch_curve(make), abs=1e-9)


class Root(Settings):
    schedule: ScheduleSettings = setting(ScheduleSettings(), "the schedule")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([("schedule.kind", "cosin")], "schedule.kind"),
        ([("schedule.final", "1.5")], "schedule.final"),
        ([("schedule.warmup", "-1")], "schedule.warmup"),
        ([("schedule.warmup", "nan")], "schedule.warmup"),
        ([("schedule.warmup", "2.5")], "whole number of steps"),
        ([("schedule.gamma", "0")], "schedule.gamma"),
        ([("schedule.milestones", "[0.7, 0.5]")], "rising"),
        ([("schedule.milestones", "[100, 200]")], "between 0 and 1"),
        ([("schedule.kind", "wsd"), ("schedule.warmup", "0.7")], "at most 0.6"),
        ([("schedule.kind", "multi_step"), ("schedule.warmup", "0.6")], "before the warm-up ends"),
    ],
)
def test_impossible_schedules_are_config_errors(flags, words):
    with pytest.raises(ConfigError, match=r"schedule") as caught:
        resolve(Root, flags=flags)
    assert words in str(caught.value)


def test_a_warmup_as_long_as_the_run_is_a_problem_where_that_is_known():
    settings = ScheduleSettings(warmup=100)
    assert schedule_problems(settings, total_steps=101) == []
    assert schedule_problems(settings, total_steps=None) == []
    (problem,) = schedule_problems(settings, total_steps=100)
    assert "100 steps of warm-up" in problem
    assert schedule_problems(ScheduleSettings(), total_steps=5) == []


def test_a_decay_that_begins_inside_the_warmup_is_a_problem():
    settings = ScheduleSettings(kind="wsd", warmup=70, decay_share=0.4)
    (problem,) = schedule_problems(settings, total_steps=100)
    assert "at most 60" in problem
    assert schedule_problems(settings, total_steps=200) == []


def test_the_settings_survive_toml(tmp_path):
    root = Root(schedule=ScheduleSettings(kind="multi_step", milestones=(0.2, 0.9), warmup=0.1))
    (tmp_path / "r.toml").write_text(to_toml(root))
    assert resolve(Root, recipe=tmp_path / "r.toml") == root
