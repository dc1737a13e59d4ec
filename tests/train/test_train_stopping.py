"""Reasons to stop: signals, once and twice, and a metric that no longer improves."""

import json
import os
import signal
import threading

import pytest

from inkstone.train.config import EarlyStopSettings
from inkstone.train.stopping import BestMetric, StopRequest


def best(metric="val_accuracy", **how):
    return BestMetric(EarlyStopSettings(metric=metric, **how))


def offers(tracker, *values):
    return [tracker.offer({tracker.settings.metric: value}, step) for step, value in enumerate(values, 1)]


def test_accuracy_should_rise_and_losses_should_fall():
    assert offers(best(), 0.1, 0.2, 0.2, 0.15, 0.3) == [True, True, False, False, True]
    for metric in ("val_loss", "val_bits_per_byte"):
        assert offers(best(metric), 3.0, 2.0, 2.0, 2.5, 1.0) == [True, True, False, False, True]


def test_the_best_keeps_its_value_and_step():
    tracker = best("val_loss")
    offers(tracker, 3.0, 1.0, 2.0)
    assert (tracker.value, tracker.step, tracker.stale) == (1.0, 2, 1)


def test_an_improvement_must_be_larger_than_min_delta():
    assert offers(best("val_loss", min_delta=0.5), 3.0, 2.5, 2.4, 1.9) == [True, False, True, False]


@pytest.mark.parametrize(("patience", "ends_at"), [(1, 3), (2, 4), (0, None)])
def test_patience_runs_out_after_so_many_evaluations(patience, ends_at):
    tracker = best("val_loss", patience=patience)
    ended = []
    for step, value in enumerate((2.0, 1.0, 1.0, 1.5, 1.1), 1):
        tracker.offer({"val_loss": value}, step)
        ended += [step] if tracker.is_exhausted else []
    assert ended[:1] == ([] if ends_at is None else [ends_at])


def test_patience_begins_anew_with_each_improvement():
    tracker = best("val_loss", patience=2)
    offers(tracker, 3.0, 4.0, 2.0, 4.0)
    assert not tracker.is_exhausted


def test_nan_is_never_an_improvement_and_does_not_stay():
    tracker = best("val_loss")
    assert offers(tracker, float("nan"), 2.0, float("nan"), 1.0) == [False, True, False, True]
    assert offers(best(), float("nan"), 0.1) == [False, True]


def test_a_state_comes_back_through_json():
    for values in ([], [0.1], [0.2, 0.1, 0.1]):
        tracker, other = best(patience=2), best(patience=2)
        offers(tracker, *values)
        other.load_state(json.loads(json.dumps(tracker.state(), allow_nan=False)))
        assert other.state() == tracker.state()
        assert other.is_exhausted == tracker.is_exhausted
        assert offers(other, 0.15) == offers(tracker, 0.15)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request(number, capsys):
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), number)
        assert stop.name == signal.Signals(number).name
    assert "the same command goes on" in capsys.readouterr().err


def test_the_request_names_the_command_that_goes_on(capsys):
    stop = StopRequest("the same command without --overwrite")
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert "the same command without --overwrite goes on later" in capsys.readouterr().err


def test_the_second_interrupt_ends_at_once_with_130():
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as leaving:
            os.kill(os.getpid(), signal.SIGINT)
    assert leaving.value.code == 130


def test_a_second_sigterm_does_not_break_off_the_saving():
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.name == "SIGTERM"


def test_work_that_need_not_be_finished_is_broken_off():
    stop = StopRequest()
    with stop.listening():
        with pytest.raises(KeyboardInterrupt), stop.interrupting():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGTERM)  # outside the block it is only noted


def test_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest().listening():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_off_the_main_thread_nothing_changes():
    seen = []

    def work():
        with StopRequest().listening():
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
