"""Stop strings against a slow, obvious reference, over every way to cut the text."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inkstone.base.errors import RequestError
from inkstone.text.stops import StopMatcher

LETTERS = st.text("ab月", max_size=14)
STOPS = st.lists(st.text("ab月", min_size=1, max_size=4), max_size=4)


def reference(stops, text):
    """Look at every beginning of the text; the first that ends with a stop string decides, the longest one cuts."""
    for length in range(len(text) + 1):
        ending = [stop for stop in stops if text[:length].endswith(stop)]
        if ending:
            return text[: length - max(map(len, ending))], True
    return text, False


def feed(stops, pieces):
    matcher = StopMatcher(stops)
    shown, stopped = "", False
    for piece in pieces:
        emitted, stopped = matcher.push(piece)
        shown += emitted
    return shown + matcher.flush(), stopped


@settings(max_examples=1000, deadline=None)
@given(STOPS, st.lists(LETTERS, max_size=6))
@example(["aab"], ["aaab"])
@example(["aab"], list("aaab"))
@example(["abab", "ba"], list("abab"))
@example(["ab", "a月"], ["a", "", "月"])
def test_any_cut_of_the_text_stops_as_the_reference(stops, pieces):
    text = "".join(pieces)
    assert feed(stops, pieces) == reference(stops, text)
    assert feed(stops, list(text)) == reference(stops, text)


@settings(max_examples=300, deadline=None)
@given(STOPS, LETTERS)
def test_only_a_possible_beginning_is_held_back(stops, text):
    matcher = StopMatcher(stops)
    shown = ""
    for count, character in enumerate(text, start=1):
        emitted, stopped = matcher.push(character)
        if stopped:
            return
        shown += emitted
        held = text[len(shown) : count]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_nothing_comes_after_a_stop():
    matcher = StopMatcher(["END"])
    assert matcher.push("one EN") == ("one ", False)
    assert matcher.push("D two") == ("", True)
    assert matcher.push("three") == ("", True) and matcher.flush() == "" and matcher.stopped


def test_without_stops_everything_comes_at_once():
    assert StopMatcher([]).push("abc") == ("abc", False)


@pytest.mark.parametrize("stops", [[""], ["a", ""], "abc", [3]])
def test_an_empty_or_wrong_stop_is_a_request_error(stops):
    with pytest.raises(RequestError, match="stop"):
        StopMatcher(stops)
