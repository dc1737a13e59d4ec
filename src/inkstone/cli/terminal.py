"""Reading from a person: messages of one or many lines on a terminal, or all of stdin where it is a pipe or a file."""

import contextlib
import select
import sys
from collections.abc import Callable

from inkstone.base.errors import ConfigError, RequestError
from inkstone.base.log import say

QUOTES = '"""'
_PASTE_SECONDS = 0.02  # lines that follow each other faster than this were pasted


def read_stdin() -> str:
    """Return stdin as text less its last line break. Raises: RequestError when it is not UTF-8, ConfigError when it is closed."""
    if sys.stdin is None or sys.stdin.closed:
        raise ConfigError("expected text on stdin, and stdin is closed — give --prompt TEXT, or open stdin")
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"stdin: expected UTF-8 text, found the byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


class MessageReader:
    """Messages from a terminal.

    A message is a line, the lines between two `\"\"\"`, or the lines of one paste. A line that `is_command` is always on its own.
    """

    def __init__(self, is_command: Callable[[str], bool]) -> None:
        self._is_command = is_command
        self._waiting: list[str] = []  # a command that was found behind a paste
        _edit_lines()

    def read(self) -> str:
        """Return the next message. Raises: EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""
        line = self._waiting.pop() if self._waiting else _read_line(">>> ")
        if self._is_command(line):
            return line.strip()
        if line.lstrip().startswith(QUOTES):
            return self._read_quoted(line.lstrip().removeprefix(QUOTES))
        lines = [line]
        while _is_pasting():
            line = _read_line("")
            if self._is_command(line):
                self._waiting.append(line)
                break
            lines.append(line)
        return "\n".join(lines).strip()

    def _read_quoted(self, line: str) -> str:
        lines = []
        while not line.rstrip().endswith(QUOTES):
            lines.append(line)
            line = _read_line("... ")
        return "\n".join([*lines, line.rstrip().removesuffix(QUOTES)]).strip("\n")


def _edit_lines() -> None:
    """Give input() line editing and history where the system has readline.

    In the C locale readline takes the bytes of Chinese for Meta keys, and everywhere it lists files at a (pasted) tab: both are off.
    """
    with contextlib.suppress(ImportError):
        import readline

        for line in ("set input-meta on", "set output-meta on", "set convert-meta off", "tab: self-insert"):
            readline.parse_and_bind(line)


def _read_line(prompt: str) -> str:
    """Return a typed line; the prompt goes to stderr where stdout is not the terminal. Bytes that are not UTF-8 become U+FFFD."""
    if not sys.stdout.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
        prompt = ""
    return input(prompt).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_pasting() -> bool:
    try:
        return bool(select.select([sys.stdin], [], [], _PASTE_SECONDS)[0])
    except (OSError, ValueError):  # a system where only sockets can be waited for
        return False


def hint(message: str) -> None:
    """Print a note in brackets to stderr: it is about the conversation, not part of it."""
    say(f"[{message}]")
