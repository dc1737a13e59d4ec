"""POST /v1/completions: text that follows prompts."""

from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from inkstone.serve.body import read_json
from inkstone.serve.deltas import Delta, Echo
from inkstone.serve.generation import Plan, answer, check_common, make_constraints, make_requests
from inkstone.serve.models import ServedModel
from inkstone.serve.openapi import describe
from inkstone.serve.prompts import encode_prompts, room_for
from inkstone.serve.replies import Spelling, TextLogprobs, TextReply, make_head
from inkstone.serve.schemas import CompletionFields, CompletionRequest, parse, refuse
from inkstone.serve.sequences import check_room


def routes() -> list[Route]:
    """Return /v1/completions."""
    return [Route("/v1/completions", create_completion, methods=["POST"])]


@describe(asks=CompletionRequest, answers=TextReply, streams=True)
async def create_completion(request: Request) -> ASGIApp:
    """Answer with texts. Raises: ApiError."""
    asked = parse(CompletionRequest, await read_json(request))
    model = request.app.state.models.get(asked.model)
    return answer(request, await _plan(asked, model), asked)


class TextForm:
    """How /v1/completions shows its choices: the chunks of a stream have the shape of the whole."""

    prefix, reply_kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, delta: Delta, logprobs: Any) -> dict[str, Any]:
        """Return a choice, whole or in a chunk."""
        return {"index": index, "text": delta.text, "logprobs": logprobs, "finish_reason": delta.finish}

    def opening(self, index: int) -> None:
        """Return nothing: choices of texts need no introduction."""

    def pieces(self, index: int, delta: Delta, logprobs: Any) -> list[dict[str, Any]]:
        """Return the one chunk's choice of a delta."""
        return [self.choice(index, delta, logprobs)]

    def logprobs(self, spelling: Spelling, delta: Delta) -> TextLogprobs:
        """Return the log-probabilities of a delta."""
        return spelling.as_text_logprobs(delta.tokens)


async def _plan(asked: CompletionFields, model: ServedModel) -> Plan:
    """Return what the request comes to. Raises: ApiError 400, 429."""
    each = asked.best_of or asked.n
    if each < asked.n:
        raise refuse("best_of", f"expected at least n = {asked.n}, found {each}")
    if asked.stream and each > 1 and asked.best_of is not None:
        raise refuse("best_of", "cannot be streamed: which texts are the best is known at the end")
    check_common(asked, model)
    check_room(
        model, len(asked.prompt) * each, param="prompt" if len(asked.prompt) > 1 else "n" if asked.best_of is None else "best_of"
    )
    prompts = await encode_prompts(asked.prompt, model, param="prompt")
    is_given = "max_tokens" in asked.model_fields_set
    rooms = [
        room_for(model, len(ids), asked.max_tokens if is_given else None, default=asked.max_tokens, param="prompt")
        for ids in prompts
    ]
    is_scored = asked.logprobs is not None
    requests = make_requests(
        asked, model, prompts, max_tokens=rooms, each=each,
        top_logprobs=asked.logprobs if is_scored or each == asked.n else 0, prompt_logprobs=asked.echo and is_scored,
        constraints=await make_constraints(asked, model, len(prompts) * each),
    )  # fmt: skip
    return Plan(
        model=model, form=TextForm(), head=make_head(model, prefix=TextForm.prefix, kind=TextForm.reply_kind), requests=requests,
        each=each, kept=asked.n, is_scored=is_scored, is_empty=asked.max_tokens == 0,
        echoes=[_echo(prompt, ids, model) for prompt, ids in zip(asked.prompt, prompts, strict=True)] if asked.echo else [],
    )  # fmt: skip


def _echo(prompt: str | list[int], ids: list[int], model: ServedModel) -> Echo:
    return Echo(prompt if isinstance(prompt, str) else model.tokenizer.decode(ids), tuple(ids))
