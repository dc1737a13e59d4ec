"""Stop strings in streamed text: what could be the beginning of one waits until it is one or is not."""

from collections.abc import Sequence

from inkstone.base.errors import RequestError


class StopMatcher:
    """Cuts a stream before the stop string that is complete first; of two complete at once, before the longer.

    What comes out does not depend on how the text is cut into pieces.

    >>> matcher = StopMatcher(["aab"])
    >>> matcher.push("aa"), matcher.push("ab")
    (('', False), ('a', True))
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises: RequestError when a stop string is empty, for it would stand before every text."""
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise RequestError("stop: expected a list of texts that are not empty")
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> tuple[str, bool]:
        """Return (what may be shown now, whether a stop string is complete). After a stop nothing comes any more."""
        if self.stopped:
            return "", True
        seen = self._held + text
        # The first occurrence of each stop string is also the one that ends first.
        found = [(start + len(stop), start) for stop in self._stops if (start := seen.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return seen[: min(found)[1]], True
        keep = self._num_held(seen)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep], False

    def flush(self) -> str:
        """Return what still waited: the text ended without a stop string. Nothing after a stop."""
        rest, self._held = self._held, ""
        return rest

    def _num_held(self, seen: str) -> int:
        """Return the length of the longest end of `seen` that begins a stop string."""
        for length in range(min(len(seen), self._longest - 1), 0, -1):
            if any(stop.startswith(seen[-length:]) for stop in self._stops):
                return length
        return 0
