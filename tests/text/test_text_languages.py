"""Bytes per token by language: the parts add up, and each line is where a reader would put it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.text.languages import language_of, language_segments, measure
from inkstone.text.tokenizer import build_char, train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat\n" * 5, "床前明月光\n" * 5], 300)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("床前明月光", "zh"), ("我用 Python 写程序", "zh"), ("The cat sat.", "en"), ("déjà vu", "en"), ("𠀀㐀", "zh"), ("", "other"),
        ("123 + 4 = ?", "other"), ("Привет", "other"), ("The word 猫 means cat", "mixed"),
    ],
)  # fmt: skip
def test_a_line_s_language_is_its_script_share(text, language):
    assert language_of(text) == language


def test_lines_of_one_language_stay_together_and_blank_lines_with_what_is_before():
    text = "12\nthe cat\n\nsat\n床前\n\n明月\nmoon"
    assert list(language_segments(text)) == [("en", "12\nthe cat\n\nsat\n"), ("zh", "床前\n\n明月\n"), ("en", "moon")]


@given(st.text(st.sampled_from("ab 月\n\r\u2028"), max_size=40))
def test_segments_sum_to_the_text(text):
    assert "".join(lines for _, lines in language_segments(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xy"), st.text(st.sampled_from("ab 月\n"), max_size=30)), max_size=6))
def test_rows_and_sources_add_up_to_the_total(texts):
    figures = measure(TOKENIZER, texts)
    assert figures["exact"] and figures["total"]["bytes"] == sum(len(text.encode()) for _, text in texts)
    for key in ("segments", "bytes", "characters", "tokens"):
        assert sum(row[key] for row in figures["rows"]) == sum(row[key] for row in figures["sources"]) == figures["total"][key]


def test_figures_of_a_known_text():
    figures = measure(build_char(["ab月"]), [("one", "ab\n" * 0 + "ab"), ("two", "月月")])
    rows = {row["language"]: row for row in figures["rows"]}
    assert rows["en"]["bytes_per_token"] == 1 and rows["zh"]["bytes_per_token"] == 3 and rows["zh"]["characters_per_token"] == 1
    assert [row["source"] for row in figures["sources"]] == ["one", "two"] and figures["unused_tokens"] == 0


def test_a_tokenizer_that_loses_text_is_found_out():
    assert measure(build_char(["ab"]), [("one", "abc")])["exact"] is False
