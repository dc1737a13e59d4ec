"""Stop anywhere, run the same command: the run is bit-equal to the uninterrupted one. And the proof that this test can fail."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inkstone.data.shards import write_prepared
from inkstone.text.tokenizer import build_char

STEPS = 60
COMPARED = ("step", "loss", "grad_norm", "lr", "accuracy", "tokens", "val_loss", "val_accuracy")
FLAGS = [
    "--model.num-layers", "1", "--model.width", "16", "--model.num-heads", "2", "--model.context", "16", "--model.dropout", "0.1",
    "--train.batch-size", "2", "--train.accumulate", "2", "--train.max-steps", str(STEPS), "--train.precision", "fp32", "--train.threads", "1",
    "--train.ema", "0.9", "--checkpoint.every", "7", "--eval.every", "20", "--eval.sample-tokens", "0", "--log.tensorboard", "false",
]  # fmt: skip
# The same command as a program, with a pause in each step so that a kill can fall anywhere; `sabotage` breaks the resume on purpose.
PROGRAM = """
import sys, time
import torch
from inkstone.train import loop
slow, sabotage = float(sys.argv[1]), sys.argv[2]
step = loop.Trainer._train_one_step
def slow_step(self, share):
    time.sleep(slow)
    return step(self, share)
loop.Trainer._train_one_step = slow_step
if sabotage == "rng":
    loop.restore_rng = lambda state: None
if sabotage == "loader":
    from inkstone.data.loader import Loader
    load = Loader.load_state
    def shifted(self, state):
        load(self, state)
        self.cursor = (self.cursor + 1) % self.rows_per_epoch
    Loader.load_state = shifted
if sabotage == "optimizer":
    from inkstone.optim.optimizers import OptimizerSet
    OptimizerSet.load_state_tensors = lambda self, tensors: None
from inkstone.cli.main import run
sys.exit(run(["pretrain", *sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prepared folder of several documents."""
    rng = random.Random(0)
    texts = ["".join(rng.choice("abcde ") for _ in range(rng.randrange(20, 60))) for _ in range(60)]
    return write_prepared(tmp_path_factory.mktemp("data") / "d", build_char(texts), {"train": texts[:50], "val": texts[50:]})


def start(data: Path, run: Path, *, slow: float = 0.0, sabotage: str = "", steps: int = STEPS) -> subprocess.Popen[bytes]:
    flags = [*FLAGS, "--train.max-steps", str(steps)]
    command = [sys.executable, "-c", PROGRAM, str(slow), sabotage, "--data", str(data), "--out", str(run), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr.decode()


def wait_for_step(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, finish(process)[1]
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b'"grad_norm"') >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")


def curve(run: Path) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: float(row[key]).hex() for key in COMPARED if key in row} for row in rows]


def weights_hash(run: Path) -> str:
    return json.loads((run / "final" / "MANIFEST.json").read_text())["files"]["model.safetensors"]["sha256"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    code, errors = finish(start(data, run))
    assert code == 0, errors
    return run


def interrupt_and_go_on(data: Path, run: Path, moments: list[int], *, sabotage: str = "") -> None:
    """Kill -9 after each of the moments (training steps seen so far in the file), then let the last life end."""
    for moment in moments:
        process = start(data, run, slow=0.02, sabotage=sabotage)
        wait_for_step(process, run, moment)
        time.sleep(random.Random(moment).uniform(0, 0.03))
        process.kill()
        process.wait()
    code, errors = finish(start(data, run, sabotage=sabotage))
    assert code == 0, errors


def test_five_kills_leave_the_curve_and_the_weights_bit_equal(data, whole, tmp_path):
    run = tmp_path / "run"
    moments = sorted(random.Random(20261123).sample(range(4, STEPS - 4), 5))
    interrupt_and_go_on(data, run, moments)
    assert curve(run) == curve(whole), f"kill moments {moments}"
    assert weights_hash(run) == weights_hash(whole)
    steps = [row["step"] for row in curve(run) if "grad_norm" in row]
    assert len(steps) == len(set(steps)) == STEPS


@pytest.mark.parametrize("sabotage", ["rng", "loader", "optimizer"])
def test_the_comparison_fails_when_the_resume_is_broken_on_purpose(data, whole, tmp_path, sabotage):
    run = tmp_path / "run"
    interrupt_and_go_on(data, run, [STEPS // 2], sabotage=sabotage)
    assert curve(run) != curve(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_exits_75_and_the_same_command_goes_on(data, whole, tmp_path, number):
    run = tmp_path / "run"
    process = start(data, run, slow=0.02)
    wait_for_step(process, run, 10)
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 75, errors
    assert "saved at step" in errors and "Traceback" not in errors
    assert not (run / "summary.json").exists()
    code, errors = finish(start(data, run))
    assert code == 0 and "going on from step" in errors
    assert curve(run) == curve(whole)


def test_a_second_interrupt_ends_at_once_with_130(data, tmp_path):
    run = tmp_path / "run"
    process = start(data, run, slow=3.0, steps=5)
    wait_for_step(process, run, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 3.0  # it did not wait for the step


def test_a_finished_run_is_left_alone_and_a_larger_limit_goes_on(data, whole, tmp_path):
    run = tmp_path / "run"
    assert finish(start(data, run, steps=10))[0] == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock")}
    code, errors = finish(start(data, run, steps=10))
    assert code == 0 and "already complete" in errors
    written = {path: path.stat().st_mtime_ns for path in before if path.name not in ("report.html", "README.md", "MANIFEST.json")}
    assert all(before[path] == time_ns for path, time_ns in written.items())
    code, errors = finish(start(data, run, steps=14))
    assert code == 0 and len({row["step"] for row in curve(run) if "grad_norm" in row}) == 14


def test_a_resume_with_other_settings_is_refused_and_names_them(data, tmp_path):
    run = tmp_path / "run"
    process = start(data, run, slow=0.02)
    wait_for_step(process, run, 8)
    process.kill()
    process.wait()
    flags = [*FLAGS, "--optim.lr", "0.001"]
    command = [sys.executable, "-m", "inkstone", "pretrain", "--data", str(data), "--out", str(run), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "optim.lr: was 0.005, now 0.001" in result.stderr


def test_two_processes_cannot_share_a_run(data, tmp_path):
    run = tmp_path / "run"
    process = start(data, run, slow=0.05)
    wait_for_step(process, run, 1)
    code, errors = finish(start(data, run))
    process.kill()
    process.wait()
    assert code == 2 and f"in use by process {process.pid}" in errors
