"""A grammar is tried in a process of its own first: the library's limits do not bound its time, and there it can be ended.

Run as a program, this module reads a grammar a line (as a JSON string) and answers each with a line: why it cannot be used, `""` when
it can. It compiles the grammar for a vocabulary of the 256 bytes and follows it along random texts. A grammar that takes longer than
`MAX_SECONDS` of processor time ends the process: a busy machine refuses no more than an idle one.
"""

import atexit
import concurrent.futures
import contextlib
import functools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import llguidance

MAX_SECONDS = 1.0
_WALK_SECONDS = 0.2
_WALK_BYTES = 200
_WAIT_SECONDS = 20.0  # on the clock: for a machine that gives the process no time
_END = 256  # the token after those of the bytes
TOO_LONG = f"it takes longer than {MAX_SECONDS:.0f} s to prepare — make it smaller or simpler"
CRASHED = "the library does not survive it — make it smaller or simpler"


def parser_limits() -> "llguidance.LLParserLimits":
    """Return what the library may spend: less memory than it does by default, and no source excerpts in its messages."""
    import llguidance

    return llguidance.LLParserLimits(max_lexer_states=100_000, verbose_errors=False)


class Trial:
    """The process that tries grammars: started when first needed, and anew after one that it did not survive. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def problem_of(self, grammar: str) -> str:
        """Return why a grammar cannot be used, in the library's words; "" when it can."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(grammar) + "\n")
                process.stdin.flush()
                answer = _read_line(process)
            except OSError:  # it was ended from outside
                answer = ""
            return json.loads(answer) if answer else self._end()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is not None and self._process.poll() is not None:  # ended from outside since the last grammar
            self._end()
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
            )
        return self._process

    def _end(self) -> str:
        """Leave no process; return what ended the last one."""
        process, self._process = self._process, None
        if process is None:
            return ""
        code = process.poll()
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()
        return TOO_LONG if code in (None, -signal.SIGKILL, -signal.SIGPROF) else CRASHED


@functools.cache
def shared_trial() -> Trial:
    """Return the one that every compiler of this process uses."""
    return Trial()


def _read_line(process: "subprocess.Popen[str]") -> str:
    """Return the next line, "" where the process ended first or had to be ended."""
    assert process.stdout is not None
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        line = pool.submit(process.stdout.readline)
        try:
            return line.result(_WAIT_SECONDS)
        except concurrent.futures.TimeoutError:
            process.kill()
            return ""


class _Bytes:
    """A vocabulary of single bytes and an end token, as the library wants to see it."""

    eos_token_id, bos_token_id = _END, None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (_END,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _serve(lines: Iterable[str]) -> None:
    import llguidance

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asks
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), n_vocab=_END + 1, eos_token=_END)
    for line in lines:
        _end_after(MAX_SECONDS)
        problem = _walk(llguidance.LLMatcher(tokenizer, json.loads(line), log_level=0, limits=parser_limits()))
        _end_after(0)
        sys.stdout.write(json.dumps(problem) + "\n")
        sys.stdout.flush()


def _walk(start: "llguidance.LLMatcher") -> str:
    """Return what keeps the grammar from being followed along random texts; "" where nothing does."""
    draw = random.Random(0)  # noqa: S311
    until = time.process_time() + _WALK_SECONDS
    matcher = start.deep_copy()
    for _ in range(_WALK_BYTES):
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        if matcher.is_error() or time.process_time() > until:
            break
        allowed = [byte for byte in range(_END) if mask >> byte & 1]
        if not allowed:
            matcher = start.deep_copy()
        else:
            matcher.consume_token(draw.choice(allowed))
    return matcher.get_error()


def _end_after(seconds: float) -> None:
    """Let the system end this process after so much processor time; 0 lifts the limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    _serve(sys.stdin)
