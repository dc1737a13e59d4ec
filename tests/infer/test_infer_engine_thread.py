"""The engine's thread: everything runs in it, it sleeps when idle, and nobody waits for ever when it ends."""

import threading
import time

import pytest
import torch
from fake_runner import Ear, HashRunner, ask

from inkstone.infer.engine import Engine, EngineClosed
from inkstone.infer.engine_thread import EngineThread
from inkstone.text.tokenizer import Tokenizer, train_bpe

torch.set_num_threads(1)
PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)


class Gate(HashRunner):
    """A runner that computes only while its gate is open."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate = threading.Event()
        self.reached = threading.Event()

    def prefill(self, slot, ids, start):
        self.reached.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().prefill(slot, ids, start)


class LoudEar(Ear):
    """Tells when the last piece is there, and in which thread."""

    def __init__(self):
        super().__init__()
        self.done, self.threads = threading.Event(), set()

    def __call__(self, piece):
        super().__call__(piece)
        self.threads.add(threading.current_thread().name)
        if piece.is_last:
            self.done.set()


@pytest.fixture
def make(tokenizer):
    made = []

    def begin(runner=None, *, starts=True, **options):
        made.append(
            EngineThread(Engine(runner or HashRunner(tokenizer.vocab_size, num_slots=4, max_tokens=64), tokenizer, **options))
        )
        if starts:
            made[-1].start()
        return made[-1]

    yield begin
    for thread in made:
        if isinstance(thread.engine.runner, Gate):
            thread.engine.runner.gate.set()
        thread.stop()
        assert not thread.is_alive


REQUEST = ask([30, 31, 32, 33, 34, 35], temperature=1.0, max_tokens=20, ignore_end=True)


def test_many_threads_submit_and_each_hears_what_a_lone_request_hears(make, tokenizer):
    alone, expected = Engine(HashRunner(tokenizer.vocab_size, max_tokens=64), tokenizer), Ear()
    alone.submit(REQUEST, expected)
    while alone.step():
        pass
    thread, ears = make(), [LoudEar() for _ in range(24)]
    threads = [threading.Thread(target=thread.submit, args=(REQUEST, ear)) for ear in ears]
    for submitting in threads:
        submitting.start()
    for ear in ears:
        assert ear.done.wait(PATIENCE_SECONDS)
        assert (ear.ids, ear.text) == (expected.ids, expected.text)
        assert ear.threads == {"inkstone-engine"}
    for submitting in threads:
        submitting.join()


def test_an_idle_thread_takes_no_steps(make):
    thread, ear = make(), LoudEar()
    thread.submit(REQUEST, ear)
    assert ear.done.wait(PATIENCE_SECONDS) and thread.drain(PATIENCE_SECONDS)
    calls = []
    thread.engine.step = lambda: calls.append(1)
    time.sleep(0.05)
    assert not calls


def test_a_function_runs_in_the_engines_thread_between_steps_and_its_error_comes_back(make):
    thread = make()
    assert thread.call(lambda: threading.current_thread().name).result(PATIENCE_SECONDS) == "inkstone-engine"
    assert thread.call(divmod, 7, 2).result(PATIENCE_SECONDS) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        thread.call(divmod, 7, 0).result(PATIENCE_SECONDS)
    assert thread.is_alive


def test_draining_finishes_what_was_taken_and_refuses_the_rest(make, tokenizer):
    runner = Gate(tokenizer.vocab_size, num_slots=2, max_tokens=64)
    thread, ears = make(runner), [LoudEar() for _ in range(3)]
    for ear in ears:
        thread.submit(REQUEST, ear)
    assert runner.reached.wait(PATIENCE_SECONDS)
    assert not thread.drain(0.01)
    with pytest.raises(EngineClosed):
        thread.submit(REQUEST, Ear())
    with pytest.raises(EngineClosed):
        thread.call(divmod, 7, 2)
    runner.gate.set()
    assert thread.drain(PATIENCE_SECONDS)
    assert [ear.last.finish for ear in ears] == ["length"] * 3


def test_stopping_tells_all_who_still_wait(make, tokenizer):
    runner = Gate(tokenizer.vocab_size, num_slots=1, max_tokens=64)
    thread, ears = make(runner), [LoudEar() for _ in range(3)]
    for ear in ears:
        thread.submit(REQUEST, ear)
    assert runner.reached.wait(PATIENCE_SECONDS)
    future = thread.call(divmod, 7, 2)
    opening = threading.Timer(0.05, runner.gate.set)
    opening.start()
    thread.stop()
    opening.join()
    assert [isinstance(ear.last.error, EngineClosed) for ear in ears] == [True] * 3
    assert isinstance(future.exception(PATIENCE_SECONDS), EngineClosed)
    assert not thread.is_alive and thread.failure is None


def test_a_dead_engine_says_why_and_leaves_nobody_waiting(make):
    thread, ear = make(starts=False), LoudEar()

    def explode():
        raise RuntimeError("a bug")

    thread.engine.step = explode
    thread.submit(REQUEST, ear)
    future = thread.call(divmod, 7, 2)
    thread.start()
    assert ear.done.wait(PATIENCE_SECONDS) and isinstance(ear.last.error, EngineClosed)
    assert future.result(PATIENCE_SECONDS) == (3, 1)
    with pytest.raises(EngineClosed, match="failed"):
        thread.submit(REQUEST, Ear())
    assert str(thread.failure) == "a bug" and not thread.is_alive


def test_a_cancelled_ticket_frees_its_slot(make, tokenizer):
    thread, ear = make(HashRunner(tokenizer.vocab_size, num_slots=1, max_tokens=4096)), LoudEar()
    ticket = thread.submit(ask([30], temperature=1.0, max_tokens=4000, ignore_end=True), ear)
    ticket.cancel()
    assert ear.done.wait(PATIENCE_SECONDS) and ear.last.finish in ("cancelled", "length")
    assert thread.drain(PATIENCE_SECONDS) and thread.engine.stats().free_slots == 1
