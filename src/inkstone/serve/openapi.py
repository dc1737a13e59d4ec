"""The document that tells programs what this server takes and gives (OpenAPI 3.1), made from the models that check and the types that answer.

An endpoint says with `describe` what it takes and gives; that is all that a new route needs.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, TypeVar

import pydantic
from starlette.routing import BaseRoute, Route
from typing_extensions import TypedDict  # pydantic reads it before Python 3.12

from inkstone.serve.schemas import UNSUPPORTED, Body

E = TypeVar("E", bound=Callable[..., Any])
_REF = "#/components/schemas/{model}"
Mode = Literal["validation", "serialization"]
_ASKS: Mode = "validation"
_ANSWERS: Mode = "serialization"


class ErrorDetail(TypedDict):
    """What went wrong: `param` is the field, `code` a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """Every answer that is no success."""

    error: ErrorDetail


@dataclass(frozen=True)
class _Operation:
    asks: type[Body] | None
    answers: Any
    streams: bool


def describe(*, answers: Any, asks: type[Body] | None = None, streams: bool = False) -> Callable[[E], E]:
    """Return a decorator that says of an endpoint what body it asks for, what it answers, and whether it can stream that."""

    def mark(endpoint: E) -> E:
        endpoint.operation = _Operation(asks, answers, streams)  # type: ignore[attr-defined]
        return endpoint

    return mark


def make_document(routes: Iterable[BaseRoute], *, model_names: Sequence[str]) -> dict[str, Any]:
    """Return the document of those routes that were described, for a server with these models."""
    described = [(route, _operation_of(route)) for route in routes if isinstance(route, Route)]
    found = [(route, operation) for route, operation in described if operation is not None]
    keys, schemas = _make_schemas([operation for _, operation in found], model_names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inkstone", "version": version("inkstone"), "description": "Text from models trained here, as OpenAI's API has it.",
        },
        "paths": {route.path: {_method(route): _describe_route(route, operation, keys, model_names)} for route, operation in found},
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }  # fmt: skip


def _method(route: Route) -> str:
    return "post" if "POST" in (route.methods or ()) else "get"


def _operation_of(route: Route) -> _Operation | None:
    return getattr(route.endpoint, "operation", None)


def _describe_route(route: Route, operation: _Operation, keys: dict[Any, Any], model_names: Sequence[str]) -> dict[str, Any]:
    content = {"application/json": {"schema": keys[operation.answers, _ANSWERS]}}
    if operation.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    found: dict[str, Any] = {
        "summary": (inspect.getdoc(route.endpoint) or "").split(" Raises:")[0],
        "operationId": route.endpoint.__name__,
        "responses": {
            "200": {"description": "the answer", "content": content},
            "default": {
                "description": "a failure", "content": {"application/json": {"schema": keys[ErrorResponse, _ANSWERS]}},
            },
        },
    }  # fmt: skip
    names = re.findall(r"\{(\w+)", route.path)
    if names:
        schema = {"type": "string", "enum": list(model_names)}
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
    if operation.asks is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": keys[operation.asks, _ASKS]}}}
    return found


def _make_schemas(operations: Sequence[_Operation], model_names: Sequence[str]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return a schema for each (type, mode), which is a reference, and what they refer to."""
    asked = dict.fromkeys(operation.asks for operation in operations if operation.asks is not None)
    wanted: dict[tuple[Any, Mode], None] = {(kind, _ASKS): None for kind in asked}
    wanted |= {(kind, _ANSWERS): None for kind in [*(operation.answers for operation in operations), ErrorResponse]}
    made, extra = pydantic.TypeAdapter.json_schemas(
        [(_Key(kind), mode, pydantic.TypeAdapter(kind)) for kind, mode in wanted], ref_template=_REF
    )
    schemas = extra["$defs"]
    for kind in _all_bodies(Body):
        if kind.__name__ in schemas:
            _loosen(schemas[kind.__name__])
    for kind in asked:
        _complete(schemas[kind.__name__], kind, model_names)
    return {(key.kind, mode): schema for (key, mode), schema in made.items()}, {n: _without_titles(s) for n, s in schemas.items()}


@dataclass(frozen=True)
class _Key:
    """pydantic wants keys that it can compare."""

    kind: Any


def _all_bodies(kind: type[Body]) -> list[type[Body]]:
    return [inner for below in kind.__subclasses__() for inner in [below, *_all_bodies(below)]]


def _loosen(schema: dict[str, Any]) -> None:
    """Change a body's schema: a field that may be left out may be null, too."""
    for name, field in schema.get("properties", {}).items():
        if name not in schema.get("required", ()) and {"type": "null"} not in field.get("anyOf", ()):
            about = {key: field.pop(key) for key in ("description", "default") if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **about}


def _complete(schema: dict[str, Any], kind: type[Body], model_names: Sequence[str]) -> None:
    """Change a request's schema: say which models there are, what is refused, and which fields go together."""
    fields = schema["properties"]
    if "model" in fields:
        choices: list[str | None] = list(model_names) if "model" in schema.get("required", ()) else [*model_names, None]
        fields["model"] = {"enum": choices, "description": fields["model"].get("description", "")}
    for name, neutral in UNSUPPORTED.items():
        if name not in kind.model_fields:
            fields[name] = {"enum": list(neutral), "description": "not supported"}
    needs = [(name, with_it) for name, with_it in _NEEDED.items() if name in fields and with_it in fields]
    if needs:
        schema["allOf"] = [
            {"anyOf": [
                {"properties": {name: {"type": "null"}}},
                {"properties": {with_it: {"const": True}}, "required": [with_it]},
            ]}
            for name, with_it in needs
        ]  # fmt: skip


_NEEDED = {"stream_options": "stream", "top_logprobs": "logprobs"}


def _without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes from names; a field called title stays."""
    if isinstance(schema, list):
        return [_without_titles(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_titles(inner) for key, inner in schema.items() if key != "title" or not isinstance(inner, str)}
