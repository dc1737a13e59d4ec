"""The cleaning rules."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstone.data.clean import clean_document, clean_text
from inkstone.data.document import Document


@pytest.mark.parametrize(
    ("text", "expected", "counted"),
    [
        ("a\r\nb\rc\n", "a\nb\nc\n", {}),
        ("a\0b\x07c\td\x85\x7f", "abc\td", {"control characters removed": 4}),
        ("x\ud800y\udfff", "x\ufffdy\ufffd", {"lone surrogates replaced": 2}),
        ("<|endoftext|> hi <|im_start|>", "<|endoftext|> hi <|im_start|>", {"special-token texts kept as plain text": 2}),
        ("  e\u0301 \u200b\ufeff\ue000 ", "  e\u0301 \u200b\ufeff\ue000 ", {}),
    ],
)
def test_rules(text, expected, counted):
    counts: Counter[str] = Counter()
    assert clean_text(text, counts) == expected and counts == counted


@given(st.text())
def test_cleaning_twice_changes_nothing_more_and_text_can_be_encoded(text):
    once = clean_text(text + "\ud83d", Counter())
    assert clean_text(once, Counter()) == once
    once.encode()


@pytest.mark.parametrize("text", ["", " \n\t", "\0\x01", "\u3000"])
def test_a_document_without_a_visible_character_is_dropped(text):
    assert clean_document(Document(text, "a", 0), Counter()) is None


def test_the_turns_of_a_chat_are_cleaned():
    messages = ({"role": "user", "content": "a\r\n\0"}, {"role": "assistant", "content": "b"})
    cleaned = clean_document(Document("", "a", 3, messages), Counter())
    assert cleaned == Document("a\n\nb", "a", 3, ({"role": "user", "content": "a\n"}, messages[1]))
