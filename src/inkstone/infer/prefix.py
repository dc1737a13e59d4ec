"""The cache slots of a runner: who has which, and which prompts' beginnings still stand in them."""

import dataclasses
from collections.abc import Sequence

from inkstone.infer.admission import Placement, SlotState, best_source, place
from inkstone.infer.runner import Runner


class SlotTable:
    """Guards the slots. A finished sequence's tokens stay until its slot is needed; the slot unused for longest goes first.

    Only positions that whole prefill chunks wrote are reused: their bits do not depend on how they came about. Those that decoding
    wrote one at a time may differ in the last bit from those of a prefill, and a reply must not depend on who was here before.
    """

    def __init__(self, runner: Runner, *, reuses: bool = True) -> None:
        self._runner, self.reuses = runner, reuses
        self._slots = [SlotState() for _ in range(runner.num_slots)]
        self._now = 0

    @property
    def num_free(self) -> int:
        """How many slots have no live sequence."""
        return sum(slot.is_free for slot in self._slots)

    @property
    def num_cached(self) -> int:
        """How many positions, over all slots, a new prompt could reuse."""
        return sum(len(slot.ids) for slot in self._slots)

    def take(self, prompt: Sequence[int], *, reuses: bool = True) -> tuple[int, int] | None:
        """Return (slot, tokens of the prompt that are in it already), or None when no slot is free; a failed copy takes none."""
        slots = self._slots if reuses else [dataclasses.replace(slot, ids=()) for slot in self._slots]
        placement = place(prompt, slots, self._runner.chunk_tokens)
        if placement is None:
            return None
        self._now += 1
        target = placement.slot
        self._slots[target] = SlotState(ids=self._slots[target].ids, is_free=False, used_at=self._now)
        try:
            self._reuse(prompt, placement)
        except Exception:
            self.release(target)
            raise
        return target, placement.reused

    def extend(self, slot: int, prompt: Sequence[int], have: int) -> int:
        """Return how many tokens a slot with `have` of a prompt's tokens has, after copying what others read in the meantime."""
        best = best_source(prompt, self._slots, self._runner.chunk_tokens, have=have)
        if best is None:
            return have
        self._reuse(prompt, Placement(slot=slot, source=best[0], reused=best[1]))
        return best[1]

    def wrote(self, slot: int, ids: Sequence[int], start: int) -> None:
        """Remember that a prefill wrote `ids` at the positions start …; a chunk that is not whole is not for others."""
        if self.reuses and len(ids) == self._runner.chunk_tokens:
            self._slots[slot] = dataclasses.replace(self._slots[slot], ids=self._slots[slot].ids[:start] + tuple(ids))

    def release(self, slot: int) -> None:
        """Make a slot free again; its prompt's beginning stays known."""
        self._now += 1
        self._slots[slot] = dataclasses.replace(self._slots[slot], is_free=True, used_at=self._now)

    def forget(self, slot: int) -> None:
        """Let nobody reuse what a slot holds: a failure left it in doubt."""
        self._slots[slot] = dataclasses.replace(self._slots[slot], ids=())

    def _reuse(self, prompt: Sequence[int], placement: Placement) -> None:
        slot, reused = placement.slot, placement.reused
        if placement.source != slot and reused:
            self.forget(slot)  # until the copy is whole
            self._runner.copy(placement.source, slot, reused)
        self._slots[slot] = dataclasses.replace(self._slots[slot], ids=tuple(prompt[:reused]))
