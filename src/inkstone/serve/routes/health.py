"""What operators and their machines ask: does it live, is it ready, what did it do, which version is it."""

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inkstone.serve.guards import public
from inkstone.serve.lifecycle import in_every_phase
from inkstone.serve.metrics import CONTENT_TYPE


def routes() -> list[Route]:
    """Return /health, /ready, /metrics and /version."""
    return [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics), Route("/version", show_version)]


@public
@in_every_phase
async def health(_: Request) -> Response:
    """Answer as long as the process lives."""
    return JSONResponse({"status": "ok"})


@public
@in_every_phase
async def ready(request: Request) -> Response:
    """Answer 200 when requests are taken. Raises: ApiError 503 that says why they are not."""
    refusal = request.app.state.lifecycle.refusal()
    if refusal is not None:
        raise refusal
    return JSONResponse({"status": "ready"})


@in_every_phase
async def metrics(request: Request) -> Response:
    """Return the figures in the text format of Prometheus."""
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE)


@in_every_phase
async def show_version(_: Request) -> Response:
    """Return the program and its version."""
    return JSONResponse({"name": "inkstone", "version": version("inkstone")})
