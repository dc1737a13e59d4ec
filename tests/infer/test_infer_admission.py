"""The policy with integers: laws that hold for all slots and prompts, and the examples behind them."""

from fake_runner import HashRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.infer.admission import (
    MAX_RETRY_SECONDS,
    SlotState,
    best_source,
    may_wait,
    place,
    retry_after_seconds,
    reusable_tokens,
    share_prefill,
    waiting_for_others,
)
from inkstone.infer.prefix import SlotTable

CHUNKS = st.integers(1, 4)
IDS = st.lists(st.integers(0, 2), max_size=12)
PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@st.composite
def slot_tables(draw):
    chunk = draw(CHUNKS)
    made = []
    for used_at in draw(st.permutations(range(draw(st.integers(1, 5))))):
        ids = draw(IDS)
        made.append(SlotState(ids=tuple(ids[: len(ids) // chunk * chunk]), is_free=draw(st.booleans()), used_at=used_at))
    return made, chunk


@given(PROMPTS, IDS, CHUNKS)
def test_what_is_reusable_is_the_longest_common_prefix_in_whole_chunks_without_the_last_token(prompt, ids, chunk):
    common = 0
    while common < min(len(prompt), len(ids)) and prompt[common] == ids[common]:
        common += 1
    assert reusable_tokens(prompt, ids, chunk) == min(common, len(prompt) - 1) // chunk * chunk


@given(PROMPTS, slot_tables())
def test_a_prompt_gets_a_free_slot_with_the_longest_prefix_that_stands_anywhere(prompt, table):
    slots, chunk = table
    placement = place(prompt, slots, chunk)
    if placement is None:
        assert not any(slot.is_free for slot in slots)
        return
    assert slots[placement.slot].is_free
    assert placement.reused == max(reusable_tokens(prompt, slot.ids, chunk) for slot in slots)
    assert placement.reused == reusable_tokens(prompt, slots[placement.source].ids, chunk) or placement.reused == 0
    best = best_source(prompt, slots, chunk)
    assert (best is None) == (placement.reused == 0)


@given(PROMPTS, slot_tables())
def test_a_longer_text_is_only_written_over_when_its_slot_was_unused_for_longest_or_is_the_only_other(prompt, table):
    slots, chunk = table
    placement = place(prompt, slots, chunk)
    free = [i for i, slot in enumerate(slots) if slot.is_free]
    if placement is not None and len(slots[placement.slot].ids) > placement.reused:
        older = [i for i in free if slots[i].used_at < slots[placement.slot].used_at]
        assert all(i == placement.source for i in older)


def test_a_conversation_goes_on_in_its_own_slot_and_a_stranger_takes_the_one_unused_for_longest():
    slots = [SlotState((1, 2, 3, 4), True, 5), SlotState((7, 8), True, 2), SlotState((9, 9), True, 9)]
    assert place([1, 2, 3, 4, 5], slots, 2) == place([1, 2, 3, 4, 5, 6, 7], slots, 2)
    stays, moves, new = place([1, 2, 3, 4, 5], slots, 2), place([1, 2, 6, 6, 6], slots, 2), place([5, 5, 5], slots, 2)
    assert (stays.slot, stays.source, stays.reused) == (0, 0, 4)
    assert (moves.slot, moves.source, moves.reused) == (1, 0, 2)  # the longer text of slot 0 stays for who comes back to it
    assert (new.slot, new.reused) == (1, 0)


def test_the_prefix_of_a_live_slot_is_copied_and_the_only_free_slot_is_taken_whatever_it_holds():
    slots = [SlotState((1, 2, 3, 4), False, 1), SlotState((1, 2, 8, 8), True, 2)]
    copied = place([1, 2, 3, 4, 5], slots, 2)
    assert (copied.slot, copied.source, copied.reused) == (1, 0, 4)
    kept = place([1, 2, 9, 9], slots, 2)
    assert (kept.slot, kept.source, kept.reused) == (1, 1, 2)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.integers(1, 64))
def test_a_step_reads_within_its_budget_and_always_for_the_first_in_turn(remaining, chunk):
    served = share_prefill(remaining, chunk_tokens=chunk, budget_tokens=chunk)
    assert served[0] == 0 and served == sorted(set(served))
    assert sum(min(remaining[i], chunk) for i in served) <= chunk


@settings(max_examples=50)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(1, 64))
def test_in_a_line_whose_served_go_to_the_end_nobody_waits_longer_than_the_line(remaining, chunk):
    line = [[i, tokens, 0] for i, tokens in enumerate(remaining)]  # who, unread, steps since the last turn
    while line:
        served = set(share_prefill([tokens for _, tokens, _ in line], chunk_tokens=chunk, budget_tokens=chunk))
        for i, entry in enumerate(line):
            entry[2] = 0 if i in served else entry[2] + 1
            entry[1] -= min(entry[1], chunk) if i in served else 0
            assert entry[2] < len(remaining)
        line = [e for i, e in enumerate(line) if i not in served] + [e for i, e in enumerate(line) if i in served]
        line = [entry for entry in line if entry[1]]


@given(st.lists(st.tuples(PROMPTS, st.integers(0, 3)), min_size=1, max_size=6), CHUNKS)
def test_somebody_always_reads_and_who_waits_can_copy_later(entries, chunk):
    reading = [(prompt, min(num * chunk, (len(prompt) - 1) // chunk * chunk)) for prompt, num in entries]
    waits = waiting_for_others(reading, chunk)
    assert not all(waits)
    for (prompt, have), is_waiting in zip(reading, waits, strict=True):
        can_copy = any(reusable_tokens(prompt, other, chunk) > have for other, _ in reading if other is not prompt)
        assert not is_waiting or can_copy


def test_the_line_is_bounded_beyond_the_free_slots():
    assert may_wait(num_waiting=2, num_free=3, max_waiting=0) and not may_wait(num_waiting=3, num_free=3, max_waiting=0)
    assert may_wait(num_waiting=63, num_free=0, max_waiting=64) and not may_wait(num_waiting=64, num_free=0, max_waiting=64)


@given(st.integers(0, 10_000), st.integers(1, 64), st.floats(0, 1e6))
def test_a_refused_request_is_told_a_whole_number_of_seconds_within_bounds(num_waiting, num_slots, seconds_each):
    seconds = retry_after_seconds(num_waiting=num_waiting, num_slots=num_slots, seconds_each=seconds_each)
    assert isinstance(seconds, int) and 1 <= seconds <= MAX_RETRY_SECONDS


def test_a_table_keeps_what_whole_chunks_wrote_until_its_slot_is_needed():
    runner = HashRunner(10, num_slots=1, chunk_tokens=2)
    table = SlotTable(runner)
    assert table.take([1, 2, 3, 4, 5]) == (0, 0) and table.take([1]) is None
    table.wrote(0, [1, 2], 0)
    table.wrote(0, [3, 4], 2)
    table.wrote(0, [5], 4)  # not whole
    table.release(0)
    assert (table.num_free, table.num_cached) == (1, 4)
    assert table.take([1, 2, 3, 4, 5, 6, 7]) == (0, 4)
    table.release(0)
    assert table.take([1, 2, 9, 9]) == (0, 2) and table.num_cached == 2
    table.release(0)
    assert table.take([1, 2, 9, 9], reuses=False) == (0, 0) and table.num_cached == 0


def test_a_table_that_does_not_reuse_never_copies():
    runner = HashRunner(10, num_slots=2, chunk_tokens=1)
    table = SlotTable(runner, reuses=False)
    assert table.take([1, 2]) == (0, 0)
    table.wrote(0, [1], 0)
    assert table.take([1, 2]) == (1, 0) and table.extend(1, [1, 2], 0) == 0 and runner.copied == 0
