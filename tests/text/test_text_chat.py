"""Chat rendering: the layout, what the loss counts, and that no text can open or close a turn."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inkstone.base.errors import DataError, RequestError
from inkstone.text.chat import CHAT_TEMPLATE, check_messages, render_chat
from inkstone.text.special import SPECIAL_TOKENS
from inkstone.text.tokenizer import build_char, train_bpe

TOKENIZER = train_bpe(["user assistant system hello 你好 world\n"] * 5, 300)
NAMES = {index: token for token, index in TOKENIZER.special.items()}
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "again"},
    {"role": "assistant", "content": "\n\nyes "},
]
TEXT = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.sampled_from(SPECIAL_TOKENS))
TURNS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), min_size=1, max_size=6)


def spell(ids):
    """The ids as text in which special tokens are visible."""
    return b"".join(NAMES[i].encode() if i in NAMES else TOKENIZER.token_bytes[i] for i in ids).decode()


def template(messages, **extra):
    return ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE).render(messages=messages, **extra)


def test_the_layout_is_chatml():
    ids, mask = render_chat(CHAT[:3], TOKENIZER)
    assert spell(ids) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    )
    assert len(mask) == len(ids)


def test_the_loss_counts_the_assistants_content_and_its_end():
    ids, mask = render_chat(CHAT, TOKENIZER)
    assert spell([i for i, counts in zip(ids, mask, strict=True) if counts]) == "hello<|im_end|>\n\nyes <|im_end|>"


@settings(deadline=None)
@given(TURNS)
def test_ids_spell_what_the_template_renders_and_marks_are_only_ours(messages):
    ids, mask = render_chat(messages, TOKENIZER, add_generation_prompt=True)
    assert spell(ids) == template(messages, add_generation_prompt=True)
    special = [NAMES[i] for i in ids if i in NAMES]
    assert special == ["<|im_start|>", "<|im_end|>"] * len(messages) + ["<|im_start|>"]
    assert sum(mask) == sum(len(TOKENIZER.encode(m["content"])) + 1 for m in messages if m["role"] == "assistant")


def test_a_reply_after_the_prompt_is_the_rendered_reply():
    prompt, _ = render_chat(CHAT[:4], TOKENIZER, add_generation_prompt=True)
    whole, _ = render_chat(CHAT, TOKENIZER)
    assert whole == [*prompt, *TOKENIZER.encode("\n\nyes "), TOKENIZER.special["<|im_end|>"], *TOKENIZER.encode("\n")]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "at least one message"),
        ("hello", "expected a list of messages, found str"),
        (
            [{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}],
            r"messages\[1\].role: .* found 'asistant'; did you mean 'assistant'",
        ),
        ([{"content": "a"}], r"messages\[0\].role: .* found None"),
        ([{"role": "user", "content": ["a"]}], r"messages\[0\].content: expected a text, found list"),
        ([{"role": "user"}], r"messages\[0\].content: expected a text, found nothing"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], r"messages\[1\].role: a system message"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}], r"messages\[0\].tool_calls"),
        ([3], r"messages\[0\]: expected an object"),
    ],
)
def test_what_is_no_chat_is_a_data_error_with_its_path(messages, problem):
    with pytest.raises(DataError, match=problem):
        render_chat(messages, TOKENIZER)


def test_a_training_example_needs_a_user_and_an_assistant():
    check_messages(CHAT, is_training=True)
    with pytest.raises(DataError, match="no assistant turn"):
        check_messages(CHAT[:2], is_training=True)
    with pytest.raises(DataError, match="before the user"):
        check_messages(CHAT[2:], is_training=True)


def test_chat_on_a_character_tokenizer_is_refused():
    with pytest.raises(RequestError, match=r"kind 'char'"):
        render_chat(CHAT, build_char(["abc"]))
