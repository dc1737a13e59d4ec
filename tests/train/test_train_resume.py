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
import torch

from inkstone.base.errors import CheckpointError, ConfigError, DataError, Interrupted, ResourceError
from inkstone.base.settings import resolve
from inkstone.cli import main
from inkstone.data.loader import Loader
from inkstone.data.shards import write_prepared
from inkstone.optim.optimizers import OptimizerSet
from inkstone.text.tokenizer import build_char, train_bpe
from inkstone.train import loop
from inkstone.train.config import PretrainSettings
from inkstone.train.journal import METRICS, Journal
from inkstone.train.loop import Hooks
from inkstone.train.run import pretrain

torch.set_num_threads(1)
STEPS, EVERY = 60, 7  # a checkpoint every 7 steps
COMPARED = ("step", "loss", "grad_norm", "lr", "accuracy", "tokens", "val_loss", "val_accuracy")
FLAGS = [
    "--model.num-layers", "1", "--model.width", "16", "--model.num-heads", "2", "--model.context", "16", "--model.dropout", "0.1",
    "--train.batch-size", "2", "--train.accumulate", "2", "--train.max-steps", str(STEPS), "--train.precision", "fp32", "--train.threads", "1",
    "--train.ema", "0.9", "--checkpoint.every", str(EVERY), "--eval.every", "20", "--eval.sample-tokens", "0", "--log.tensorboard", "false",
]  # fmt: skip
OTHER = [*FLAGS, "--train.precision", "bf16", "--train.threads", "2", "--optim.kind", "adamw", "--train.packing", "fit",
         "--train.ema", "0", "--train.max-steps", "30", "--model.context", "32"]  # fmt: skip
# The same run as a program, with a pause in each step so that a kill can fall anywhere.
PROGRAM = """
import sys, time
from pathlib import Path
from inkstone.train import loop
slow, data, out, *flags = sys.argv[1:]
step = loop.Trainer._train_one_step
def slow_step(self, share):
    time.sleep(float(slow))
    return step(self, share)
loop.Trainer._train_one_step = slow_step
from inkstone.base.errors import InkstoneError
from inkstone.base.settings import resolve
from inkstone.train.config import PretrainSettings
from inkstone.train.run import pretrain
pairs = [(flags[i][2:], flags[i + 1]) for i in range(0, len(flags), 2)]
try:
    pretrain(resolve(PretrainSettings, flags=pairs), data=Path(data), out=Path(out))
except InkstoneError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
VERB = """
import sys, time
from inkstone.train import loop
step = loop.Trainer._train_one_step
def slow_step(self, share):
    time.sleep(float(sys.argv[1]))
    return step(self, share)
loop.Trainer._train_one_step = slow_step
from inkstone.cli.main import run
sys.exit(run(["pretrain", "--data", sys.argv[2], "--out", sys.argv[3], *sys.argv[4:]]))
"""


class Died(BaseException):
    """The end of a life within this process."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prepared folder of several documents."""
    rng = random.Random(0)
    texts = ["".join(rng.choice("abcde ") for _ in range(rng.randrange(20, 60))) for _ in range(60)]
    return write_prepared(tmp_path_factory.mktemp("data") / "d", build_char(texts), {"train": texts[:50], "val": texts[50:]})


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny prepared folder of conversations, in which only the replies are learned."""
    rng = random.Random(1)
    words = ["".join(rng.choice("abcde") for _ in range(3)) for _ in range(200)]
    turns = [
        [{"role": "user", "content": words[n]}, {"role": "assistant", "content": " ".join(words[n : n + 3])}] for n in range(80)
    ]
    return write_prepared(tmp_path_factory.mktemp("chats") / "d", train_bpe(words, 280), {"train": turns[:70], "val": turns[70:]})


def start(data: Path, run: Path, *more: str, slow: float = 0.0, flags=FLAGS, program=PROGRAM) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, str(slow), str(data), str(run), *flags, *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=240)
    return process.returncode, stderr.decode()


def train(data: Path, run: Path, *more: str, on_row=None, make_sample=None, **how):
    """The same run within this process."""
    flags = [*FLAGS, *more]
    settings = resolve(PretrainSettings, flags=[(name[2:], value) for name, value in zip(flags[::2], flags[1::2], strict=True)])
    return pretrain(settings, data=data, out=run, hooks=Hooks(on_row or (lambda row: None), make_sample), **how)


def at(step: int, act):
    """Return a hook that acts when the row of a training step was written."""
    return lambda row: act() if row["step"] == step and "grad_norm" in row else None


def die():
    raise Died


def signalling(number=signal.SIGTERM):
    return lambda *_: os.kill(os.getpid(), number)


def wait_for_step(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    deadline = time.monotonic() + 240  # on a machine with other work, too
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


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run, in a process of its own."""
    run = tmp_path_factory.mktemp("whole") / "run"
    code, errors = finish(start(data, run))
    assert code == 0, errors
    return run


def kill_at(data: Path, run: Path, moments: list[int], flags=FLAGS) -> None:
    """Kill -9 after each of the moments (training steps seen so far in the file), then let the last life end."""
    for moment in moments:
        process = start(data, run, slow=0.02, flags=flags)
        wait_for_step(process, run, moment)
        time.sleep(random.Random(moment).uniform(0, 0.03))
        process.kill()
        process.wait()
    code, errors = finish(start(data, run, flags=flags))
    assert code == 0, errors


def test_five_kills_leave_the_curve_and_the_weights_bit_equal(data, whole, tmp_path):
    run = tmp_path / "run"
    moments = [2, *sorted(random.Random(20261123).sample(range(EVERY + 1, STEPS - 4), 4))]  # the first before any checkpoint
    kill_at(data, run, moments)
    assert curve(run) == curve(whole), f"kill moments {moments}"
    assert weights_hash(run) == weights_hash(whole)
    steps = [row["step"] for row in curve(run) if "grad_norm" in row]
    assert len(steps) == len(set(steps)) == STEPS


def test_so_it_is_with_bf16_two_threads_adamw_and_fitted_conversations(chats, tmp_path):
    code, errors = finish(start(chats, tmp_path / "whole", flags=OTHER))
    assert code == 0, errors
    kill_at(chats, tmp_path / "run", [17], flags=OTHER)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert weights_hash(tmp_path / "run") == weights_hash(tmp_path / "whole")


@pytest.mark.parametrize("limit", [["--train.max-tokens", "3200"], ["--train.max-epochs", "1.5"]], ids=lambda limit: limit[0])
def test_limits_in_tokens_and_epochs_go_on_bit_equal_too(limit, data, tmp_path):
    limit = ["--train.max-steps", "0", *limit]
    train(data, tmp_path / "whole", *limit)
    with pytest.raises(Died):
        train(data, tmp_path / "run", *limit, on_row=at(11, die))
    train(data, tmp_path / "run", *limit)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert weights_hash(tmp_path / "run") == weights_hash(tmp_path / "whole")


SABOTAGE = {
    "nothing": lambda patch: None,
    "rng": lambda patch: patch.setattr(loop, "restore_rng", lambda state: None),
    "loader": lambda patch: patch.setattr(Loader, "load_state", shifted),
    "optimizer": lambda patch: patch.setattr(OptimizerSet, "load_state_tensors", lambda self, tensors: None),
}
LOAD_STATE = Loader.load_state


def shifted(self, state):
    LOAD_STATE(self, state)
    self.cursor = (self.cursor + 1) % self.rows_per_epoch


@pytest.mark.parametrize("what", SABOTAGE)
def test_the_comparison_fails_when_the_resume_is_broken_on_purpose(data, whole, tmp_path, what, monkeypatch):
    run = tmp_path / "run"
    with pytest.raises(Died):
        train(data, run, on_row=at(STEPS // 2, die))
    SABOTAGE[what](monkeypatch)
    train(data, run)
    assert (curve(run) == curve(whole)) is (what == "nothing")


# Signals


def test_sigterm_saves_exits_75_and_the_same_command_goes_on(data, whole, tmp_path):
    run = tmp_path / "run"
    process = start(data, run, slow=0.02, program=VERB)
    wait_for_step(process, run, 10)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 75, errors
    assert "saved at step" in errors and "the same command goes on" in errors and "Traceback" not in errors
    assert not (run / "summary.json").exists()
    train(data, run)
    assert curve(run) == curve(whole)


@pytest.mark.parametrize("step", [1, 20, 34])
def test_an_interrupt_saves_also_where_an_evaluation_is_due_and_goes_on(data, whole, tmp_path, step, capsys):
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"saved at step {step} in"):
        train(data, run, on_row=at(step, signalling(signal.SIGINT)))
    assert [row for row in curve(run) if "val_loss" in row and row["step"] == float(step).hex()] == []  # it did not wait for it
    train(data, run)
    assert f"going on from step {step}" in capsys.readouterr().err
    assert curve(run) == curve(whole)


def test_an_evaluation_that_a_signal_breaks_off_is_made_again(data, whole, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="saved at step 20"):
        train(
            data, run, "--eval.sample-tokens", "4", make_sample=lambda model, step: signalling()() if step == 20 else {"text": ""}
        )
    assert not any("val_loss" in row and row["step"] == float(20).hex() for row in curve(run))
    with pytest.raises(Died):  # and once more when it is lost after it was written
        train(data, run, on_row=lambda row: die() if row["step"] == 20 and "val_loss" in row else None)
    train(data, run)
    assert [row for row in curve(run) if len(row) > 1] == curve(whole)
    assert weights_hash(run) == weights_hash(whole)


def test_a_signal_while_the_best_is_saved_waits_until_the_evaluation_is_whole(data, whole, tmp_path, monkeypatch):
    run, save = tmp_path / "run", loop.save_model

    def save_slowly(folder, *rest):
        if (run / "best").exists() and folder.name == "best":
            signalling()()
        save(folder, *rest)

    monkeypatch.setattr(loop, "save_model", save_slowly)
    with pytest.raises(Interrupted):
        train(data, run)
    monkeypatch.undo()
    last = curve(run)[-1]
    assert "val_loss" in last
    assert json.loads((run / "checkpoints" / f"step_{checkpoints(run)[-1]:06d}" / "state.json").read_text())["best"]["step"] > 0
    train(data, run)
    assert curve(run) == curve(whole)


def test_with_overwrite_the_message_names_the_command_without_it(data, tmp_path, capsys):
    with pytest.raises(Interrupted, match="the same command without --overwrite goes on"):
        train(data, tmp_path / "run", on_row=at(3, signalling()), overwrite=True)
    assert "the same command without --overwrite goes on later" in capsys.readouterr().err


def test_what_could_not_be_saved_is_not_called_saved(data, tmp_path, monkeypatch):
    def full(*_, **__):
        raise ResourceError("the disk is full")

    monkeypatch.setattr(loop.CheckpointStore, "save", full)
    with pytest.raises(ResourceError) as failure:
        train(data, tmp_path / "run", on_row=at(3, signalling()))
    assert "step 3 could not be saved: the same command goes on from the beginning" in str(failure.value)


def test_a_second_interrupt_ends_at_once_with_130(data, tmp_path):
    run = tmp_path / "run"
    process = start(data, run, slow=3.0)
    wait_for_step(process, run, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 3.0  # it did not wait for the step


# Full disks


def test_rows_that_the_disk_did_not_take_are_in_the_checkpoint(data, whole, tmp_path, monkeypatch):
    run, write = tmp_path / "run", Journal.write

    def refuse(self, row):
        if row["step"] == 31:
            raise ResourceError(f"the disk is full while writing {METRICS}")
        write(self, row)

    monkeypatch.setattr(Journal, "write", refuse)
    with pytest.raises(ResourceError, match=METRICS):
        train(data, run)
    monkeypatch.undo()
    assert checkpoints(run)[-1] == 31
    with pytest.raises(Died):
        train(data, run, on_row=at(33, die))
    train(data, run)
    assert curve(run) == curve(whole)


def test_a_best_that_cannot_be_saved_does_not_end_the_run_before_the_third_time(data, tmp_path, monkeypatch, capsys):
    save, refused = loop.save_model, [1, 2]

    def sometimes(folder, *rest):
        if folder.name == "best" and refused and refused.pop():
            raise ResourceError("the disk is full")
        save(folder, *rest)

    monkeypatch.setattr(loop, "save_model", sometimes)
    figures = train(data, tmp_path / "run", "--checkpoint.every", "100")
    assert figures["best_step"] >= 40 and (tmp_path / "run" / "best").is_dir()
    assert capsys.readouterr().err.count("best model not saved") == 2
    refused += [1] * 9
    with pytest.raises(ResourceError):
        train(data, tmp_path / "other", "--checkpoint.every", "100")


# Folders and other commands


def test_a_finished_run_is_left_alone_and_a_larger_limit_goes_on(data, tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["pretrain", "--data", str(data), "--out", str(run), *FLAGS, "--train.max-steps"]
    assert main.run([*argv, "10"]) == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock")}
    capsys.readouterr()
    assert main.run([*argv, "10"]) == 0
    assert "already complete" in capsys.readouterr().err
    written = {path: path.stat().st_mtime_ns for path in before if path.name not in ("report.html", "README.md", "MANIFEST.json")}
    assert all(before[path] == time_ns for path, time_ns in written.items())
    assert main.run([*argv, "14"]) == 0
    assert len({row["step"] for row in curve(run) if "grad_norm" in row}) == 14


def test_a_larger_limit_does_not_evaluate_the_same_step_twice(data, tmp_path):
    run = tmp_path / "run"
    for steps in ("10", "37"):
        train(data, run, "--eval.every", "0", "--train.max-steps", steps)
    evaluated = [row["step"] for row in curve(run) if "val_loss" in row]
    assert len(evaluated) == len(set(evaluated))


def test_a_resume_with_other_settings_is_refused_and_names_them(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Died):
        train(data, run, on_row=at(8, die))
    with pytest.raises(ConfigError, match=r"optim\.lr: was 0\.005, now 0\.001"):
        train(data, run, "--optim.lr", "0.001")


def test_a_checkpoint_of_another_version_is_a_checkpoint_error(data, tmp_path, monkeypatch):
    state = loop.Trainer.state
    monkeypatch.setattr(loop.Trainer, "state", lambda self: {k: v for k, v in state(self).items() if k != "num_skipped"})
    with pytest.raises(Died):
        train(data, tmp_path / "run", on_row=at(8, die))
    with pytest.raises(CheckpointError, match="num_skipped"):
        train(data, tmp_path / "run")


def test_a_checkpoint_of_another_model_is_a_checkpoint_error(data, tmp_path, monkeypatch):
    with pytest.raises(Died):
        train(data, tmp_path / "run", on_row=at(8, die))
    monkeypatch.setattr("inkstone.train.run.check_resume", lambda *_: None)
    with pytest.raises(CheckpointError, match="another model"):
        train(data, tmp_path / "run", "--model.width", "8")


def test_the_manifest_says_by_which_config_the_checkpoint_was_made(data, tmp_path):
    import hashlib

    run = tmp_path / "run"
    train(data, run, "--train.max-steps", "2")
    manifest = json.loads((run / "checkpoints" / "step_000002" / "MANIFEST.json").read_text())
    assert manifest["config_sha256"] == hashlib.sha256((run / "config.toml").read_bytes()).hexdigest()


def test_two_processes_cannot_share_a_run(data, tmp_path):
    run = tmp_path / "run"
    process = start(data, run, slow=0.05)
    wait_for_step(process, run, 1)
    with pytest.raises(ConfigError, match=f"in use by process {process.pid}"):
        train(data, run)
    process.kill()
    process.wait()


# Steps without an update


def test_every_step_without_an_update_counts_also_in_a_later_life(data, tmp_path, monkeypatch):
    """Far more than a window's worth, some of them overflows of float16 that are no refusals."""
    run, call = tmp_path / "run", loop.TrainStep.__call__

    def skip(self, batches, lr_factor):
        result = call(self, batches, lr_factor)
        return result if int(batches[0].tokens_BT.sum()) % 3 else loop.StepResult(result.loss, 0.0, 1.0, 1, applied=False)

    monkeypatch.setattr(loop.TrainStep, "__call__", skip)
    with pytest.raises(Died):
        train(data, run, on_row=at(30, die))
    figures = train(data, run)
    rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    assert figures["skipped_steps"] == sum(row.get("skipped", False) for row in rows) > 0


def test_a_context_longer_than_the_data_leaves_what_was_there(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, "--train.max-steps", "2")
    before = sorted(path.name for path in run.rglob("*"))
    with pytest.raises(DataError):
        train(data, run, "--model.context", "100000", overwrite=True)
    assert sorted(path.name for path in run.rglob("*")) == before
