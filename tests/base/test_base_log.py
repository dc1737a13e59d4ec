"""What is said goes to stderr in any encoding, and a stderr that is gone is not an error."""

import io
import sys

import pytest

from inkstone.base import log


class Closed(io.TextIOBase):
    encoding = "utf-8"

    def write(self, text):
        raise BrokenPipeError


def test_a_line_goes_to_stderr_only(capsys):
    log.say("砚")
    log.warn("careful")
    assert capsys.readouterr() == ("", "砚\nwarning: careful\n")


def test_an_ascii_terminal_gets_question_marks(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    log.say("a砚b")
    assert stream.buffer.getvalue() == b"a?b\n"


@pytest.mark.parametrize("stderr", [Closed(), None], ids=["broken pipe", "closed"])
def test_a_stderr_that_is_gone_is_not_an_error(stderr, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr)
    log.say("a")
    with log.progress("work", 10) as shown:
        shown.update(5)


def test_progress_off_a_terminal_is_a_plain_line_every_few_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    with log.progress("train", 10) as shown:
        for now[0] in (1.0, 4.9, 5.0, 9.9, 10.0):
            shown.update(now[0], f"at {now[0]}")
    assert capsys.readouterr().err.splitlines() == ["train:  50% at 5.0", "train: 100% at 10.0"]
