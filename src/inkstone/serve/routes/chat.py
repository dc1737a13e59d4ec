"""POST /v1/chat/completions: the next turn of a conversation."""

from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from inkstone.serve.body import read_json
from inkstone.serve.deltas import Delta
from inkstone.serve.generation import Plan, answer, check_common, make_constraints, make_requests
from inkstone.serve.models import ServedModel
from inkstone.serve.openapi import describe
from inkstone.serve.prompts import encode_chat, room_for
from inkstone.serve.replies import ChatLogprobs, ChatReply, Spelling, make_head
from inkstone.serve.schemas import ChatFields, ChatRequest, parse, refuse
from inkstone.serve.sequences import check_room


def routes() -> list[Route]:
    """Return /v1/chat/completions."""
    return [Route("/v1/chat/completions", create_chat, methods=["POST"])]


@describe(asks=ChatRequest, answers=ChatReply, streams=True)
async def create_chat(request: Request) -> ASGIApp:
    """Answer with the assistant's turn. Raises: ApiError."""
    asked = parse(ChatRequest, await read_json(request))
    model = request.app.state.models.get(asked.model)
    return answer(request, await _plan(asked, model), asked)


class ChatForm:
    """How /v1/chat/completions shows its choices: a role, pieces of content, an end."""

    prefix, reply_kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, delta: Delta, logprobs: Any) -> dict[str, Any]:
        """Return a whole choice."""
        message = {"role": "assistant", "content": delta.text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": delta.finish}

    def opening(self, index: int) -> dict[str, Any]:
        """Return the first chunk's choice: openai-python's helper stumbles over choices that do not come in order."""
        return _chunk(index, {"role": "assistant", "content": "", "refusal": None})

    def pieces(self, index: int, delta: Delta, logprobs: Any) -> list[dict[str, Any]]:
        """Return the content, where there is some, and the end, where it is."""
        found = [_chunk(index, {"content": delta.text}, logprobs)] if delta.text or delta.tokens else []
        return found if delta.finish is None else [*found, _chunk(index, {}, finish=delta.finish)]

    def logprobs(self, spelling: Spelling, delta: Delta) -> ChatLogprobs:
        """Return the log-probabilities of a delta."""
        return spelling.as_chat_logprobs(delta.tokens)


def _chunk(index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


async def _plan(asked: ChatFields, model: ServedModel) -> Plan:
    """Return what the request comes to. Raises: ApiError 400, 429."""
    if asked.top_logprobs is not None and not asked.logprobs:
        raise refuse("top_logprobs", "expected only together with logprobs")
    check_common(asked, model)
    check_room(model, asked.n)
    ids = await encode_chat(asked.messages, model, continues=asked.continue_final_message)
    room = room_for(model, len(ids), _wanted_tokens(asked), default=None, param="messages")
    requests = make_requests(
        asked, model, [ids], max_tokens=[room], each=asked.n, top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        constraints=await make_constraints(asked, model, asked.n),
    )  # fmt: skip
    return Plan(
        model=model, form=ChatForm(), head=make_head(model, prefix=ChatForm.prefix, kind=ChatForm.reply_kind), requests=requests,
        each=asked.n, kept=asked.n, is_scored=asked.logprobs, echoes=[],
    )  # fmt: skip


def _wanted_tokens(asked: ChatFields) -> int | None:
    """Return the most tokens under either name. Raises: ApiError 400 when they differ."""
    old, new = asked.max_tokens, asked.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise refuse("max_completion_tokens", f"expected the same as max_tokens ({old:,}), found {new:,}")
    return old if new is None else new
