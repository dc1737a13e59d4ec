"""`inkstone serve` as a child of this process, for measuring and for tests."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inkstone.base.errors import ResourceError
from inkstone.serve.load import Address

NAME = "measured"  # of the model
_READY = re.compile(r"^.*ready at http://([^\s/]+):([0-9]+)", re.MULTILINE)
_START_SECONDS = 300.0
_END_SECONDS = 20.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Child:
    """A server that is ready: where it listens, and its process."""

    address: Address
    pid: int


@contextlib.contextmanager
def serving(model: Path, flags: Sequence[str] = (), *, variables: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Serve a model at a free port of this machine, as `NAME`, until the block ends; `variables` are added to the environment.

    Raises: ResourceError with the server's last words when it does not get ready.
    """
    command = [sys.executable, "-m", "inkstone", "serve", str(model), "--name", NAME, "--port", "0", "--no-ui", *flags]
    with tempfile.TemporaryFile("w+") as log:  # not a pipe, which would stop the server when nobody reads
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | dict(variables or {}))
        try:
            yield Child(_wait_until_ready(process, log.fileno()), process.pid)
        finally:
            _end(process)


def _wait_until_ready(process: subprocess.Popen, log: int) -> Address:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        written = os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")
        if found := _READY.search(written):
            return found[1].strip("[]"), int(found[2])
        if process.poll() is not None:
            break
        time.sleep(_LOOK_SECONDS)
    raise ResourceError(f"the server did not get ready; its last words: {written.strip()[-1000:]}")


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
