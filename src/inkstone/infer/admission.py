"""Who gets a cache slot, what is reused from it, whose prompt is read next: integers in, decisions out."""

import dataclasses
import math
from collections.abc import Sequence

MAX_RETRY_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class SlotState:
    """What a slot holds. `ids` are the tokens that whole prefill chunks wrote; `used_at` counts up, 0 = never used."""

    ids: tuple[int, ...] = ()
    is_free: bool = True
    used_at: int = 0


@dataclasses.dataclass(frozen=True)
class Placement:
    """A prompt goes into `slot`; its first `reused` tokens are there already, or are copied there from `source`."""

    slot: int
    source: int
    reused: int


def reusable_tokens(prompt: Sequence[int], ids: Sequence[int], chunk_tokens: int) -> int:
    """Return how many tokens of `prompt` the same positions of `ids` can stand for: whole chunks, and never the last token.

    The last token has to be read, for the state at its position is where the text goes on.

    >>> reusable_tokens([1, 2, 3, 4, 5], [1, 2, 3, 4, 9, 9], 2)
    4
    >>> reusable_tokens([1, 2, 3, 4], [1, 2, 3, 4], 2)
    2
    """
    most = min(len(prompt) - 1, len(ids)) // chunk_tokens * chunk_tokens
    same = 0
    while same < most and tuple(prompt[same : same + chunk_tokens]) == tuple(ids[same : same + chunk_tokens]):
        same += chunk_tokens
    return same


def best_source(prompt: Sequence[int], slots: Sequence[SlotState], chunk_tokens: int, *, have: int = 0) -> tuple[int, int] | None:
    """Return (slot, tokens) of the longest prefix that is longer than the `have` tokens at hand; of equals the first, else None."""
    lengths = [reusable_tokens(prompt, slot.ids, chunk_tokens) for slot in slots]
    longest = max(lengths, default=0)
    return (lengths.index(longest), longest) if longest > have else None


def place(prompt: Sequence[int], slots: Sequence[SlotState], chunk_tokens: int) -> Placement | None:
    """Return where a prompt goes, or None when no slot is free.

    It takes the free slot that was used longest ago. It stays in the slot that holds its prefix only where nothing is lost by
    that: where it goes on behind all that the slot holds, or where there is no other.
    """
    free = sorted((i for i, slot in enumerate(slots) if slot.is_free), key=lambda i: slots[i].used_at)
    if not free:
        return None
    best = best_source(prompt, slots, chunk_tokens)
    if best is None:
        return Placement(slot=free[0], source=free[0], reused=0)
    source, reused = best
    whole = [i for i in free if reused == len(slots[i].ids) == reusable_tokens(prompt, slots[i].ids, chunk_tokens)]
    others = [i for i in free if i != source]
    target = whole[0] if whole else others[0] if others else free[0]
    kept = target if reusable_tokens(prompt, slots[target].ids, chunk_tokens) == reused else source
    return Placement(slot=target, source=kept, reused=reused)


def waiting_for_others(reading: Sequence[tuple[Sequence[int], int]], chunk_tokens: int) -> list[bool]:
    """Return which of the prompts being read, given in turn as (prompt, tokens read), better wait: another reads what they can copy.

    The one that is furthest, of equals the first in turn, waits for nobody.

    >>> waiting_for_others([([1, 2, 3, 4, 5], 2), ([1, 2, 3, 4, 6], 0), ([1, 2, 9, 9], 0)], 2)
    [False, True, False]
    """

    def reads_for(i: int, j: int) -> bool:
        (prompt, have), (other, read) = reading[i], reading[j]
        return (read, -j) > (have, -i) and reusable_tokens(prompt, other, chunk_tokens) > read

    return [any(reads_for(i, j) for j in range(len(reading)) if j != i) for i in range(len(reading))]


def share_prefill(remaining: Sequence[int], *, chunk_tokens: int, budget_tokens: int) -> list[int]:
    """Return which of the prompts, given in turn by their unread tokens, get their next chunk read in this step.

    The first always does, so that a line whose served members go to its end starves nobody; behind it those that still fit.

    >>> share_prefill([4000, 100, 5, 9], chunk_tokens=128, budget_tokens=128)
    [0]
    >>> share_prefill([100, 4000, 5, 9], chunk_tokens=128, budget_tokens=128)
    [0, 2, 3]
    """
    served, left = [], budget_tokens
    for i, tokens in enumerate(remaining):
        cost = min(tokens, chunk_tokens)
        if i == 0 or cost <= left:
            served.append(i)
            left -= cost
    return served


def may_wait(*, num_waiting: int, num_free: int, max_waiting: int) -> bool:
    """Whether one more request may join: free slots take theirs at the next step, the others wait in a bounded line."""
    return num_waiting < num_free + max_waiting


def retry_after_seconds(*, num_waiting: int, num_slots: int, seconds_each: float) -> int:
    """Return when a refused request may come again: the time in which the line before it is served, 1 to 60 seconds.

    >>> retry_after_seconds(num_waiting=8, num_slots=4, seconds_each=1.2)
    3
    """
    return max(1, min(MAX_RETRY_SECONDS, math.ceil(seconds_each * num_waiting / num_slots)))
