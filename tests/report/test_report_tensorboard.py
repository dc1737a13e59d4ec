import subprocess
import sys

import pytest

from inkstone.report.tensorboard import TensorBoardWriter, tag


def test_importing_the_module_does_not_import_torch():
    code = "import sys, inkstone.report.tensorboard, inkstone.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tags_tell_training_from_validation():
    assert tag("loss") == "train/loss" and tag("val_bits_per_byte") == "val/bits_per_byte"


def test_records_come_back_from_the_event_file(tmp_path):
    pytest.importorskip("tensorboard")
    writer = TensorBoardWriter(tmp_path)
    writer.write({"step": 1, "loss": 2.5, "bad": float("nan"), "flag": True, "note": "x"})
    writer.write({"step": 2, "val_loss": 2.0, "sample": {"prompt": "从前", "text": "有<b>山</b>"}})
    writer.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "val/loss"]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.5)]
    assert [name for name in events.Tags()["tensors"] if name.startswith("sample/从前")]


def test_a_log_that_nobody_closes_is_written_at_exit(tmp_path):
    pytest.importorskip("tensorboard")
    code = f"from inkstone.report.tensorboard import TensorBoardWriter as W; w = W({str(tmp_path)!r}); w.write({{'step': 1, 'loss': 2.5}})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [2.5]


def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path):
    pytest.importorskip("tensorboard")
    first = TensorBoardWriter(tmp_path)
    for step in (1, 2, 3):
        first.write({"step": step, "loss": float(step)})
    first.close()
    second = TensorBoardWriter(tmp_path, resume_step=1)
    second.write({"step": 2, "loss": 20.0})
    second.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 20.0)]
