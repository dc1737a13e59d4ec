"""GET /openapi.json: what this server takes and gives, for programs."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inkstone.serve.openapi import make_document


def routes() -> list[Route]:
    """Return /openapi.json."""
    return [Route("/openapi.json", show_document)]


async def show_document(request: Request) -> Response:
    """Answer with the document."""
    names = [model.name for model in request.app.state.models.all()]
    return JSONResponse(make_document(request.app.routes, model_names=names))
