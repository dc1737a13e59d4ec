"""GET /v1/models, /v1/models/{id} and /v1/models/{id}/curves: what is served here."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inkstone.serve.errors import ApiError
from inkstone.serve.models import ServedModel
from inkstone.serve.openapi import describe
from inkstone.serve.replies import Curves, ModelList, ModelObject
from inkstone.train.journal import read_rows

_MAX_POINTS = 1000  # of one curve: more than a screen has columns
_OWNER = "inkstone"


def routes() -> list[Route]:
    """Return the routes of models."""
    return [
        Route("/v1/models", list_models), Route("/v1/models/{id}", show_model), Route("/v1/models/{id}/curves", show_curves),
    ]  # fmt: skip


@describe(answers=ModelList)
async def list_models(request: Request) -> Response:
    """Answer with every model."""
    found = [_describe(model) for model in request.app.state.models.all()]
    return JSONResponse(ModelList(object="list", data=found))


@describe(answers=ModelObject)
async def show_model(request: Request) -> Response:
    """Answer with one model. Raises: ApiError 404."""
    return JSONResponse(_describe(request.app.state.models.get(request.path_params["id"])))


@describe(answers=Curves)
async def show_curves(request: Request) -> Response:
    """Answer with a run's losses by step. Raises: ApiError 404 for a model that has none."""
    model: ServedModel = request.app.state.models.get(request.path_params["id"])
    rows = [] if model.run_folder is None else await asyncio.to_thread(_read, model.run_folder)
    curves = Curves(train=_thin(_points(rows, "loss")), val=_thin(_points(rows, "val_loss")))
    if not curves["train"] and not curves["val"]:
        raise ApiError(404, "no curves are known of this model", type="not_found_error", param="id", code="curves_not_found")
    return JSONResponse(curves)


def _describe(model: ServedModel) -> ModelObject:
    return ModelObject(
        id=model.name, object="model", created=model.created, owned_by=_OWNER, context=model.context, chat=model.is_chat_tuned,
        sampling=dict(model.sampling), card=model.card,
    )  # fmt: skip


def _read(run: Path) -> list[dict[str, Any]]:
    """Return the run's rows; a folder that cannot be read has none."""
    try:
        return read_rows(run)
    except OSError:
        return []


def _points(rows: Iterable[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    found = [(row.get("step"), row.get(name)) for row in rows]
    return [(step, loss) for step, loss in found if isinstance(step, int) and isinstance(loss, float) and math.isfinite(loss)]


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most so many points, evenly spread, the last among them."""
    every = -(-len(points) // _MAX_POINTS) if points else 1
    return [*points[::-1][::every]][::-1]
