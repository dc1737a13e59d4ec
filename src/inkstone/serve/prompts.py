"""Prompts and conversations to token ids: sizes first, long texts beside the event loop, and numbers where something does not fit."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inkstone.base.errors import ConfigError, RequestError
from inkstone.infer.conversation import require_answerable, require_chat_tokens
from inkstone.infer.prompt import MAX_UTF8_BYTES
from inkstone.serve.errors import ApiError
from inkstone.serve.schemas import Message, refuse
from inkstone.text.chat import render_chat

if TYPE_CHECKING:
    from inkstone.serve.models import ServedModel
    from inkstone.text.tokenizer import Tokenizer

_INLINE_CHARACTERS = 8_192  # about 2 ms of tokenizing; a thread costs 0.1 ms, and holds up nobody
_COMPOSING = 4  # a tokenizer that composes characters first makes at most so many bytes into one


async def encode_prompts(prompts: Sequence[str | list[int]], model: "ServedModel", *, param: str) -> list[list[int]]:
    """Return the ids of each prompt; that of an empty text is `<|endoftext|>`, behind which a document begins.

    Raises: ApiError 400 for a prompt longer than the context (before it is tokenized, where its size alone says so), or for ids that
    the model does not have.
    """
    tokenizer = model.tokenizer
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    check_size(texts, model, param=param)
    encoded = iter(await encode_texts(texts, tokenizer))
    rows = [next(encoded) or [tokenizer.eos_id] if isinstance(prompt, str) else prompt for prompt in prompts]
    for ids in rows:
        if max(ids) >= tokenizer.vocab_size:
            raise refuse(param, f"expected token ids from 0 to {tokenizer.vocab_size - 1:,}, found {max(ids):,}")
        if len(ids) > model.context:
            raise too_long(model, param, f"the prompt has {len(ids):,} tokens")
    return rows


async def encode_texts(texts: Sequence[str], tokenizer: "Tokenizer") -> list[list[int]]:
    """Return the ids of each text; where that takes long, beside the event loop."""
    if sum(map(len, texts)) > _INLINE_CHARACTERS:
        return await asyncio.to_thread(tokenizer.encode_batch, texts)
    return tokenizer.encode_batch(texts)


async def encode_chat(messages: Sequence[Message], model: "ServedModel", *, continues: bool = False) -> list[int]:
    """Return the ids of a conversation up to where the answer begins, or goes on; only our own marks become special ids.

    Raises: ApiError 400 for what is no conversation, or is longer than the context, or when the model cannot chat.
    """
    turns = merge_system(messages)
    begun = turns.pop()["content"] if continues and turns[-1]["role"] == "assistant" else None
    if continues and begun is None:
        raise refuse("messages", "continue_final_message expects the assistant's turn at the end")
    _check_conversation(turns, model)
    texts = [turn["content"] for turn in turns] + ([begun] if begun else [])
    check_size(["".join(texts)], model, param="messages")
    if sum(map(len, texts)) > _INLINE_CHARACTERS:
        ids = await asyncio.to_thread(_render, turns, begun, model.tokenizer)
    else:
        ids = _render(turns, begun, model.tokenizer)
    if len(ids) > model.context:
        raise too_long(model, "messages", f"the messages have {len(ids):,} tokens")
    return ids


def merge_system(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return the messages with developer = system, and the system messages at the beginning joined into one."""
    turns: list[dict[str, str]] = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        if role == "system" and len(turns) == 1 and turns[0]["role"] == "system":
            turns[0] = {"role": role, "content": turns[0]["content"] + "\n\n" + message.content}
        else:
            turns.append({"role": role, "content": message.content})
    return turns


def check_size(texts: Sequence[str], model: "ServedModel", *, param: str) -> None:
    """Raises: ApiError 400 when a text has more bytes than the tokens of a whole context can stand for."""
    tokenizer = model.tokenizer
    longest = max(MAX_UTF8_BYTES, int(tokenizer.byte_lengths.max())) * (_COMPOSING if tokenizer.kind == "loaded" else 1)
    for text in texts:
        if len(text) * MAX_UTF8_BYTES > model.context * longest:  # else it cannot be, and its bytes need not be counted
            num_bytes = len(text.encode())
            if num_bytes > model.context * longest:
                raise too_long(model, param, f"the text has {num_bytes:,} bytes, at least {-(-num_bytes // longest):,} tokens")


def room_for(model: "ServedModel", prompt_tokens: int, wanted: int | None, *, default: int | None, param: str) -> int:
    """Return how many tokens may be drawn: those wanted, else the default or what the context holds.

    Raises: ApiError 400 with both numbers when what is wanted does not fit behind the prompt.
    """
    left = model.context - prompt_tokens
    if wanted is None:
        return max(1, left if default is None else min(default, left))  # behind a full context one token can still be told
    if wanted > left:
        raise too_long(
            model,
            param,
            f"the prompt has {prompt_tokens:,} tokens and max_tokens asks for {wanted:,}, {prompt_tokens + wanted:,} in all",
        )
    return wanted


def too_long(model: "ServedModel", param: str, found: str) -> ApiError:
    """Return the 400 that states both numbers."""
    return ApiError(
        400, f"this model's context length is {model.context:,} tokens, and {found}: shorten it", param=param,
        code="context_length_exceeded",
    )  # fmt: skip


def _check_conversation(turns: list[dict[str, str]], model: "ServedModel") -> None:
    try:
        require_chat_tokens(model.tokenizer)
    except ConfigError:
        raise refuse("model", "its tokenizer has no marks of turns, so it cannot chat: use /v1/completions") from None
    later = [i for i, turn in enumerate(turns) if i and turn["role"] == "system"]
    if later:
        raise refuse("messages", "expected system messages only at the beginning, found one behind another turn")
    if not turns:
        raise refuse("messages", "expected a turn before the one that is to be continued")
    try:
        require_answerable(turns)
    except RequestError as error:
        raise ApiError(400, str(error), param="messages") from None


def _render(turns: list[dict[str, str]], begun: str | None, tokenizer: "Tokenizer") -> list[int]:
    ids, _ = render_chat(turns, tokenizer, add_generation_prompt=True)
    return ids + tokenizer.encode(begun) if begun else ids
