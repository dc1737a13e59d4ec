"""Which turns of a conversation fit into a context, and messages that cannot be answered."""

import pytest

from inkstone.base.errors import ConfigError, RequestError
from inkstone.infer.conversation import fit_conversation, require_answerable, require_chat_tokens
from inkstone.text.chat import render_chat
from inkstone.text.tokenizer import build_char, train_bpe


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["hello 你好"], 270)


def turn(role, content):
    return {"role": role, "content": content}


LONG = [turn("system", "s"), *(turn(("user", "assistant")[i % 2], f"turn {i}") for i in range(9))]


def size(messages, tokenizer):
    return len(render_chat(messages, tokenizer, add_generation_prompt=True)[0])


def test_a_conversation_that_fits_is_whole(tokenizer):
    ids, dropped = fit_conversation(LONG, tokenizer, context=size(LONG, tokenizer) + 5, max_tokens=5)
    assert (ids, dropped) == (render_chat(LONG, tokenizer, add_generation_prompt=True)[0], 0)


def test_the_oldest_turns_go_first_the_system_message_stays_and_a_user_begins(tokenizer):
    whole = size(LONG, tokenizer) + 5
    ids, dropped = fit_conversation(LONG, tokenizer, context=whole - 1, max_tokens=5)
    assert dropped == 2
    assert ids == render_chat([LONG[0], *LONG[3:]], tokenizer, add_generation_prompt=True)[0]


def test_a_reply_gets_at_most_a_quarter_of_the_context_reserved(tokenizer):
    messages = [turn("user", "hello")]
    need = size(messages, tokenizer)
    assert fit_conversation(messages, tokenizer, context=need * 4 // 3 + 2, max_tokens=10**6)[1] == 0
    with pytest.raises(RequestError, match=f"take {need}"):
        fit_conversation(messages, tokenizer, context=need, max_tokens=10**6)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "at least one message"), ("hello", "expected a list"), ([turn("robot", "x")], r"messages\[0\].role: expected one of"),
        ([{"role": "user"}], r"messages\[0\].content: expected a text"), ([turn("user", ["image"])], r"messages\[0\].content: expected a text"),
        ([turn("user", "\ud800")], r"messages\[0\].content: .*lone surrogate"), ([turn("user", "x"), turn("assistant", "y")], "user's turn at the end"),
        ([turn("system", "x")], "user's turn at the end"),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_answered_are_a_request_error(messages, expected):
    with pytest.raises(RequestError, match=expected):
        require_answerable(messages)


def test_a_tokenizer_without_turn_marks_cannot_chat(tokenizer):
    require_chat_tokens(tokenizer)
    with pytest.raises(ConfigError, match="im_start"):
        require_chat_tokens(build_char(["abc"]))
