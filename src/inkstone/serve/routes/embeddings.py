"""POST /v1/embeddings: texts as vectors, the mean of their last hidden states."""

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive

from inkstone.infer.embed import embed
from inkstone.serve.body import read_json
from inkstone.serve.errors import overloaded
from inkstone.serve.models import ServedModel
from inkstone.serve.openapi import describe
from inkstone.serve.prompts import encode_prompts
from inkstone.serve.replies import Embedding, EmbeddingReply, EmbeddingUsage
from inkstone.serve.schemas import EmbeddingRequest, parse
from inkstone.serve.sequences import wait_until_gone
from inkstone.serve.streaming import out_of_time

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_GROUP_TOKENS = 512  # computed in one go: as long as that, live texts stand still
_RETRY_SECONDS = 2


def routes() -> list[Route]:
    """Return /v1/embeddings."""
    return [Route("/v1/embeddings", create_embeddings, methods=["POST"])]


@describe(asks=EmbeddingRequest, answers=EmbeddingReply)
async def create_embeddings(request: Request) -> Response:
    """Answer with a vector for each input. Raises: ApiError; ClientDisconnect."""
    asked = parse(EmbeddingRequest, await read_json(request))
    model = request.app.state.models.get(asked.model)
    seconds = request.app.state.settings.timeout
    try:
        with _one_more(request.app.state, model):
            inputs = await encode_prompts(asked.input, model, param="input")
            async with asyncio.timeout(seconds):
                vectors = await _while_there(request.receive, _compute(model, inputs))
    except TimeoutError:
        raise out_of_time(seconds) from None
    num_tokens = sum(map(len, inputs))
    as_text = asked.encoding_format == "base64"
    data = [Embedding(object="embedding", index=i, embedding=_write(vector, as_text)) for i, vector in enumerate(vectors)]
    usage = EmbeddingUsage(prompt_tokens=num_tokens, total_tokens=num_tokens)
    reply = EmbeddingReply(object="list", data=data, model=model.name, usage=usage)
    return await asyncio.to_thread(JSONResponse, reply)


@contextlib.contextmanager
def _one_more(state: State, model: ServedModel) -> Iterator[None]:
    """Count a request as long as the block lasts: no more of them wait than sequences may. Raises: ApiError 429."""
    if not hasattr(state, "num_embedding"):
        state.num_embedding = Counter()
    most = model.thread.engine.stats().max_waiting + 1
    if state.num_embedding[model.name] >= most:
        raise overloaded(_RETRY_SECONDS)
    state.num_embedding[model.name] += 1
    try:
        yield
    finally:
        state.num_embedding[model.name] -= 1


async def _compute(model: ServedModel, inputs: Sequence[list[int]]) -> list["Tensor"]:
    """Return the vectors, computed in groups between the engine's steps."""
    found: list[Tensor] = []
    for group in _groups(inputs):
        found += list(await asyncio.wrap_future(model.thread.call(embed, model.model.network, group)))
    return found


def _groups(inputs: Sequence[list[int]]) -> list[list[list[int]]]:
    groups: list[list[list[int]]] = []
    size = 0
    for ids in inputs:
        if not groups or size + len(ids) > _GROUP_TOKENS:
            groups.append([])
            size = 0
        groups[-1].append(ids)
        size += len(ids)
    return groups


def _write(vector: "Tensor", as_text: bool) -> list[float] | str:
    vector = vector.float().cpu()
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode() if as_text else vector.tolist()


async def _while_there(receive: Receive, work: Awaitable[T]) -> T:
    """Return what the work returns; it is cancelled when the caller goes away. Raises: ClientDisconnect."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(wait_until_gone(receive, task.cancel))
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        if watch.done():
            raise ClientDisconnect from None
        raise
    finally:
        watch.cancel()
