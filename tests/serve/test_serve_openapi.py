"""The document of the API: true of the routes, of what they take, of what they answer; and nothing that it allows breaks the server."""

import jsonschema_rs
import pytest
import schemathesis
from contract_double import Api, DiceRunner, good, serve_runner
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance
from serving_double import running, wait_until
from starlette.routing import Route

from inkstone.infer.config import SamplingSettings
from inkstone.serve.schemas import IGNORED, UNSUPPORTED, ChatRequest, CompletionRequest

USER = [{"role": "user", "content": "Hi"}]
OPERATORS = {"/health", "/ready", "/metrics", "/version", "/openapi.json"}  # not for programs that want text


@pytest.fixture(scope="module")
def api():
    with Api(serve_runner(DiceRunner())) as api:
        yield api


@pytest.fixture(scope="module")
def document(api):
    return good(api.client.get("/openapi.json"))


def check(document, reference, value):
    jsonschema_rs.validator_for({"$ref": reference, "components": document["components"]}).validate(value)


def test_every_route_for_programs_is_described(api, document):
    paths = {route.path for route in api.app.routes if isinstance(route, Route)} - OPERATORS
    assert set(document["paths"]) == paths
    for path, methods in document["paths"].items():
        route = next(route for route in api.app.routes if getattr(route, "path", None) == path)
        assert {method.upper() for method in methods} == route.methods - {"HEAD"}
        for method in methods.values():
            assert method["summary"] and "ErrorResponse" in str(method["responses"]["default"])


@pytest.mark.parametrize("kind", [CompletionRequest, ChatRequest])
def test_every_field_is_described_and_every_sampling_rule_is_a_field(document, kind):
    fields = document["components"]["schemas"][kind.__name__]["properties"]
    assert set(fields) == set(kind.model_fields) | set(UNSUPPORTED) and not set(fields) & IGNORED
    assert set(SamplingSettings.model_fields) <= set(fields)
    assert fields["model"]["enum"] == ["m"]


def test_replies_are_as_described(api, document):
    def answer_of(path, method="post"):
        return document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]

    def request_of(path):
        return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]

    asked = {
        "/v1/completions": {"prompt": ["a", "b"], "n": 2, "logprobs": 2, "echo": True, "stop": "x", "logit_bias": {"5": 1}},
        "/v1/chat/completions": {"messages": USER, "logprobs": True, "top_logprobs": 2, "stop": None, "seed": 3},
        "/tokenize": {"prompt": "x", "return_token_strs": True},
        "/detokenize": {"tokens": [261]},
        "/v1/embeddings": {"input": ["a"], "encoding_format": "base64"},
    }
    for path, body in asked.items():
        check(document, request_of(path), {"model": "m"} | body)
        check(document, answer_of(path), good(api.post(path, **body)))
    check(document, answer_of("/v1/models", "get"), good(api.client.get("/v1/models")))
    check(document, answer_of("/v1/models/{id}", "get"), good(api.client.get("/v1/models/m")))
    check(document, "#/components/schemas/ErrorResponse", api.client.get("/v1/models/x").json())


@pytest.fixture(scope="module")
def operations():
    model = serve_runner(DiceRunner(num_slots=4))
    with running(load=lambda: [model]) as server:
        wait_until(lambda: server.state.lifecycle.phase == "ready")
        found = schemathesis.openapi.from_url(f"{server.url}/openapi.json").get_all_operations()
        yield {operation.ok().path: operation.ok() for operation in found}


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize", "/v1/models/{id}"]
)
def test_drawn_requests_get_answers_of_the_described_shape(operations, path, mode):
    """A smoke test of what a longer campaign does. What fits the document may still be refused: fields that do not fit each other."""

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operations[path].as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call(timeout=20)
        assert answer.status_code < 500, answer.text
        if answer.headers["content-type"][0].startswith("application/json"):
            case.validate_response(answer, checks=[response_schema_conformance])
        if mode == GenerationMode.NEGATIVE:
            assert answer.status_code >= 400, ("what the document forbids was taken", case.body)

    ask()
