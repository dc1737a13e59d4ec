"""Programs that are measured, each in a process of its own that answers questions and is stopped dead while others are asked.

The two sides talk in lines of JSON; whatever else a program prints goes to stderr. Suspending says more than waiting: the thread pools
of OpenMP spin for a while after their work, and would take the cores from the program that is measured next.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

SETTLE_SECONDS = 0.3  # for pools that spin: Intel's wait 0.2 s by default before they sleep
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A process made by `command`, suspended except while it answers."""

    def __init__(self, name: str, command: list[str], *, threads: int) -> None:
        self.name = name
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self._system = psutil.Process(self._process.pid)
        self.about = self._read()  # what it says once it is ready
        self._rest()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return the answer. Raises: RuntimeError when the process fails."""
        self._system.resume()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._rest()
        return answer

    def cpu_seconds(self) -> float:
        """Return what the process has computed so far."""
        times = self._system.cpu_times()
        return times.user + times.system

    def close(self) -> None:
        """End the process."""
        self._system.resume()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        """Return the worker."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}: its last words stand above")
        return json.loads(line)

    def _rest(self) -> None:
        time.sleep(SETTLE_SECONDS)
        self._system.suspend()


def ask_alone(worker: Worker, workers: list[Worker], **question: Any) -> tuple[dict[str, Any], float]:
    """Return an answer, and how many cores the other workers kept busy meanwhile: 0, or the figures are worth nothing."""
    others = [other for other in workers if other is not worker]
    before, start = sum(other.cpu_seconds() for other in others), time.perf_counter()
    answer = worker.ask(**question)
    return answer, (sum(other.cpu_seconds() for other in others) - before) / (time.perf_counter() - start)


def answer_questions(about: dict[str, Any], answer: Callable[..., dict[str, Any]], channel: int) -> None:
    """Be a worker: say what `about` is, then answer a line with a line until there are no more. `channel` is from `take_stdout`."""
    with os.fdopen(channel, "w") as out:
        print(json.dumps(about), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(**json.loads(line))), file=out, flush=True)


def take_stdout() -> int:
    """Return a descriptor of stdout for answers alone, and send everything else that is printed, by C code too, to stderr."""
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def worker_command(script: str, *arguments: str) -> list[str]:
    """Return the command of a script that lies beside this file."""
    return [sys.executable, str(Path(__file__).with_name(script)), *arguments]
