"""POST /tokenize and /detokenize: what a model's tokenizer makes of a text, and back."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inkstone.serve.body import read_json
from inkstone.serve.errors import ApiError
from inkstone.serve.models import ServedModel, ServedModels
from inkstone.serve.openapi import describe
from inkstone.serve.prompts import encode_chat, encode_texts
from inkstone.serve.replies import DetokenizeReply, Spelling, TokenizeReply
from inkstone.serve.schemas import DetokenizeRequest, TokenizeRequest, parse, refuse


def routes() -> list[Route]:
    """Return /tokenize and /detokenize."""
    return [Route("/tokenize", tokenize, methods=["POST"]), Route("/detokenize", detokenize, methods=["POST"])]


@describe(asks=TokenizeRequest, answers=TokenizeReply)
async def tokenize(request: Request) -> Response:
    """Answer with the ids of a text, or of a conversation up to where its answer begins. Raises: ApiError."""
    asked = parse(TokenizeRequest, await read_json(request))
    model = _model(request.app.state.models, asked.model)
    if (asked.prompt is None) == (asked.messages is None):
        raise refuse("prompt", "expected either a prompt or messages")
    if asked.messages is not None:
        ids = await encode_chat(asked.messages, model)
    else:
        ids = (await encode_texts([asked.prompt or ""], model.tokenizer))[0]
    reply = TokenizeReply(model=model.name, count=len(ids), max_model_len=model.context, tokens=ids)
    if asked.return_token_strs:
        spelling = Spelling(model.tokenizer)
        reply["token_strs"] = [spelling.text(index) for index in ids]
    return await asyncio.to_thread(JSONResponse, reply)  # a body's worth of ids takes a while to write


@describe(asks=DetokenizeRequest, answers=DetokenizeReply)
async def detokenize(request: Request) -> Response:
    """Answer with the text of ids; special tokens have none. Raises: ApiError."""
    asked = parse(DetokenizeRequest, await read_json(request))
    model = _model(request.app.state.models, asked.model)
    size = model.tokenizer.vocab_size
    if asked.tokens and max(asked.tokens) >= size:
        raise refuse("tokens", f"expected token ids from 0 to {size - 1:,}, found {max(asked.tokens):,}")
    text = await asyncio.to_thread(model.tokenizer.decode, asked.tokens)
    return JSONResponse(DetokenizeReply(model=model.name, prompt=text))


def _model(models: ServedModels, name: str | None) -> ServedModel:
    """Return the model of that name, or the first."""
    if name is not None:
        return models.get(name)
    every = models.all()
    if not every:
        raise ApiError(404, "no model is served here", type="not_found_error", param="model", code="model_not_found")
    return every[0]
