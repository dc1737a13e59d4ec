"""Predicting and measuring training speed: sane numbers, bounded work; never how fast."""

import pytest
import torch

from inkstone import machine
from inkstone.nn.config import ModelConfig
from inkstone.nn.cost import STATE_PER_PARAM, flops_per_token
from inkstone.optim.config import OptimSettings
from inkstone.optim.optimizers import OPTIMIZERS
from inkstone.train import speed
from inkstone.train.speed import EFFICIENCY, Speed, measurable_rows, measure_speed, predict_speed

torch.set_num_threads(1)
TINY = ModelConfig(preset="modern", num_layers=1, num_heads=2, width=16, vocab_size=32, context=8)


def test_the_cost_model_knows_every_optimizer():
    assert set(STATE_PER_PARAM) == set(OPTIMIZERS)


def test_a_prediction_is_the_products_speed_over_the_flops(monkeypatch):
    monkeypatch.setattr(machine, "product_speeds", lambda: {"fp32": 1e9, "bf16": 4e9})
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    found = predict_speed(TINY, precision="fp32").tokens_per_second
    assert found == pytest.approx(EFFICIENCY["fp32"] * 2e9 / flops_per_token(TINY))
    assert predict_speed(TINY, precision="bf16").tokens_per_second > found


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_real_steps_are_timed_with_every_optimizer(kind, precision):
    found = measure_speed(TINY, OptimSettings(kind=kind), batch_size=2, precision=precision, seconds=0.1)
    assert found.steps >= 1
    assert 0 < found.low <= found.tokens_per_second <= found.high


def count_rows(monkeypatch, row_seconds: float) -> list[int]:
    """Let a step of n rows take n times `row_seconds` of a simulated clock, and return the rows of every step."""
    rows, clock = [], [0.0]

    def step(num: int) -> float:
        rows.append(num)
        clock[0] += num * row_seconds
        return num * row_seconds

    monkeypatch.setattr(speed, "_training_step", lambda *_, **__: step)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    return rows


@pytest.mark.parametrize(("row_seconds", "expected"), [(0.01, 64), (0.1, 39), (1.0, 3), (60.0, 1)])
def test_a_busy_machine_gets_fewer_rows_a_step(row_seconds, expected, monkeypatch):
    rows = count_rows(monkeypatch, row_seconds)
    found = measure_speed(TINY, OptimSettings(), batch_size=64, precision="fp32", seconds=20)
    assert rows[0] == 1
    assert rows[-1] == expected
    assert found.tokens_per_second == pytest.approx(TINY.context / row_seconds)
    assert sum(rows) * row_seconds <= max(20 + expected * row_seconds, 5 * row_seconds)


def test_a_measurement_ends_after_enough_steps(monkeypatch):
    rows = count_rows(monkeypatch, 1e-6)
    measure_speed(TINY, OptimSettings(), batch_size=1, precision="fp32", seconds=60)
    assert len(rows) == speed.WARMUP_STEPS + speed.MAX_STEPS


@pytest.mark.parametrize(("tokens_per_second", "rows"), [(1e9, 64), (80.0, 20), (1.0, 0)])
def test_the_rows_of_a_timed_step_follow_the_prediction(tokens_per_second, rows):
    predicted = Speed(tokens_per_second=tokens_per_second, steps=0, low=0, high=0)
    assert measurable_rows(TINY, predicted, batch_size=64, seconds=10.1) == rows


def test_a_model_that_takes_longer_to_build_is_not_measured():
    large = ModelConfig(preset="gpt3-175b", vocab_size=50257)
    assert measurable_rows(large, Speed(1e9, 0, 0, 0), batch_size=1, seconds=20) == 0
