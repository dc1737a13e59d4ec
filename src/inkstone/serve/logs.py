"""What the server writes about itself: one line an event, without prompts and keys, whatever callers put into their headers."""

import logging
import re
import sys
import traceback
from collections.abc import Iterable

MAX_FIELD_CHARACTERS = 200
MAX_LINE_CHARACTERS = 4000
NAME = "inkstone.serve"
_BEARER = re.compile(r"(?i)\b(bearer)\s+\S+|\bsk-[\w-]{8,}")


def log_to_stderr(*, keys: Iterable[str] = (), is_debug: bool = False) -> logging.Logger:
    """Return the server's log, which now goes to stderr; the web server's own warnings go the same way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(keys, is_debug=is_debug))
    for name, level in (
        (NAME, logging.DEBUG if is_debug else logging.INFO),
        ("uvicorn", logging.WARNING),
        ("asyncio", logging.WARNING),
    ):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
    return logging.getLogger(NAME)


class OneLine(logging.Formatter):
    """Time, level and message on one line: control characters are escaped, keys are blotted out, the rest is cut.

    Of an exception only its kind and place are shown, since its message may hold a prompt; `is_debug` shows all of it.
    """

    def __init__(self, keys: Iterable[str] = (), *, is_debug: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._keys, self._is_debug = sorted(keys, key=len, reverse=True), is_debug

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        text = f"{self.formatTime(record, self.datefmt)} {record.levelname.lower()} {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += " | " + self._describe(record.exc_info[1])
        for key in self._keys:
            text = text.replace(key, "***")
        return escape(_BEARER.sub(lambda found: f"{found[1] or ''} ***".strip(), text), MAX_LINE_CHARACTERS)

    def _describe(self, error: BaseException) -> str:
        if self._is_debug:
            return "".join(traceback.format_exception(error)).rstrip()
        places = [
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        return f"{type(error).__name__} at " + " < ".join(reversed(places[-8:]))


def escape(text: str, limit: int = MAX_FIELD_CHARACTERS) -> str:
    r"""Return the text on one line and without terminal codes: "a\nb" becomes "a\\nb"; what is longer than `limit` is cut."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)
