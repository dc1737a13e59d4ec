"""Who may ask: Host, Origin and key (S-08, S-09, H12-H14), on every route of the real application."""

import ast
import inspect

import pytest
from serving_double import exchange, fake_app, fake_model, fake_state, request, running, status_of
from starlette.testclient import TestClient

from inkstone.serve import guards
from inkstone.serve.app import ServerState, build_app

KEYS = ("sk-right-key-1", "zweiter-Schlüssel-密钥")
OPEN = {"/health", "/ready"}


def make_client(keys=(), app=fake_app, **settings):
    state = fake_state(keys, **settings)
    state.models.add(fake_model())
    state.lifecycle.become_ready()
    return TestClient(app(state), base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def locked():
    return make_client(KEYS)


def all_calls(client):
    """Return (method, path) of everything that the application answers, from its routes."""
    return [
        (method, route.path.replace("{", "").replace("}", ""))
        for route in client.app.routes
        for method in sorted(route.methods | {"OPTIONS", "DELETE", "PUT"})
    ]


WRONG = {
    "missing": {}, "wrong": {"authorization": "Bearer nope"}, "prefix": {"authorization": f"Bearer {KEYS[0][:-1]}"},
    "longer": {"authorization": f"Bearer {KEYS[0]}x"}, "empty": {"authorization": "Bearer "}, "no scheme": {"authorization": KEYS[0]},
    "other scheme": {"authorization": f"Basic {KEYS[0]}"}, "lower case": {"authorization": f"bearer {KEYS[0]}"},
    "not ASCII": {"authorization": "Bearer ключ".encode()}, "other header": {"x-api-key": KEYS[0]}, "cookie": {"cookie": f"key={KEYS[0]}"},
    "both keys in one": {"authorization": f"Bearer {KEYS[0]}, Bearer {KEYS[0]}"},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_every_route_and_method_is_closed_without_the_key(locked, name):
    for method, path in all_calls(locked):
        answer = locked.request(method, path, headers=WRONG[name])
        if path in OPEN:
            assert answer.status_code != 401
        else:
            assert answer.status_code == 401, (method, path)
            assert method == "HEAD" or answer.json()["error"]["code"] == "invalid_api_key"


def test_the_real_application_opens_health_and_ready_only_and_the_files_of_its_page():
    client = make_client(KEYS, app=lambda state: build_app(ServerState(state.settings, keys=KEYS)))
    opened = {path for method, path in all_calls(client) if client.request(method, path).status_code != 401}
    files = {path for path in opened if "." in path.rpartition("/")[2]}
    assert opened - files == OPEN | {"/"} and files
    assert not any(path.startswith(("/v1", "/metrics", "/tokenize", "/detokenize")) for path in opened)


def test_an_unknown_path_is_closed_too(locked):
    assert locked.get("/nothing").status_code == 401


def test_the_key_in_the_query_does_not_count(locked):
    assert locked.get(f"/version?api_key={KEYS[0]}&authorization=Bearer%20{KEYS[0]}").status_code == 401


def test_two_authorization_headers_are_refused(locked):
    headers = [("authorization", f"Bearer {KEYS[0]}"), ("authorization", f"Bearer {KEYS[0]}")]
    assert locked.get("/version", headers=headers).status_code == 401


@pytest.mark.parametrize("key", KEYS)
def test_each_of_the_keys_opens(locked, key):
    assert locked.get("/version", headers={"authorization": f"Bearer {key}".encode()}).status_code == 200


def test_metrics_are_open_where_the_settings_say_so():
    assert make_client(KEYS).get("/metrics").status_code == 401
    assert make_client(KEYS, public_metrics=True).get("/metrics").status_code == 200


def test_keys_are_compared_in_constant_time():
    tree = ast.parse(inspect.getsource(guards.Guard._check_key).lstrip())
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert all("is None" in text or "is not None" in text for text in compared), compared
    assert "hmac.compare_digest" in ast.unparse(tree)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1", "127.0.0.1:1", "127.1.2.3:80", "[::1]:8000", "LOCALHOST", "app.localhost:3000"],
)
def test_the_names_of_this_machine_are_let_in(server, host):
    assert status_of(exchange(server.address, request("/health", host=host, method="GET"))) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1", "", "[::2]", "[",
             "localhost@evil.example", "128.0.0.1", "2130706433.evil", "xlocalhost"],
)  # fmt: skip
def test_other_names_are_refused_on_a_loopback_address(server, host):
    assert status_of(exchange(server.address, request("/v1/take", b"{}", host=host))) in (400, 403)


def test_without_host_or_with_two_nothing_is_answered(server):
    assert status_of(exchange(server.address, b"GET /health HTTP/1.1\r\n\r\n")) == 400
    assert status_of(exchange(server.address, request("/health", b"", "Host: localhost", method="GET"))) == 400
    assert status_of(exchange(server.address, b"GET /health HTTP/1.0\r\n\r\n")) == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil.example", "http://localhost:9999", "file://", "https://localhost:1",
               "", "http://", "chrome-extension://abc"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_foreign_pages_are_refused_and_get_no_cors_headers(server, origin, method):
    answer = exchange(
        server.address, request("/v1/take", b"{}", f"Origin: {origin}", "Access-Control-Request-Method: POST", method=method)
    )
    assert status_of(answer) == 403 and b"access-control" not in answer.lower()


def test_the_servers_own_page_may_call(server):
    host, port = server.address
    answer = exchange(
        server.address, request("/v1/take", b"{}", f"Origin: http://{host}:{port}", "Connection: close", host=f"{host}:{port}")
    )
    assert status_of(answer) == 200 and b"access-control" not in answer.lower()


def test_two_origins_are_refused(server):
    host, port = server.address
    own = f"Origin: http://{host}:{port}"
    assert status_of(exchange(server.address, request("/v1/take", b"{}", own, own, host=f"{host}:{port}"))) == 403


def test_a_configured_page_may_ask_first_and_then_read_the_answer():
    client = make_client(KEYS, cors_origins=["https://chat.example"])
    asked = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    first = client.options("/v1/take", headers=asked)
    assert first.status_code == 204 and first.headers["access-control-allow-origin"] == "https://chat.example"
    assert (
        "authorization" in first.headers["access-control-allow-headers"] and "POST" in first.headers["access-control-allow-methods"]
    )
    assert "access-control-allow-credentials" not in first.headers and first.headers.get_list("vary") == ["Origin"]
    headers = {"origin": "https://chat.example", "authorization": f"Bearer {KEYS[0]}"}
    answer = client.post("/v1/take", json={}, headers=headers)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert client.post("/v1/take", json={}, headers=headers | {"origin": "https://other.example"}).status_code == 403
    assert client.post("/v1/take", json={}, headers={"origin": "https://chat.example"}).headers[
        "access-control-allow-origin"
    ]  # a 401


def test_options_without_an_origin_does_not_get_around_the_key(locked):
    assert locked.options("/v1/take", headers={"access-control-request-method": "POST"}).status_code == 401


def test_a_star_opens_for_every_page_that_has_the_key():
    client = make_client(KEYS, cors_origins=["*"])
    headers = {"origin": "https://any.example", "authorization": f"Bearer {KEYS[0]}"}
    assert client.post("/v1/take", json={}, headers=headers).headers["access-control-allow-origin"] == "https://any.example"
    assert client.post("/v1/take", json={}, headers={"origin": "https://any.example"}).status_code == 401


def test_names_do_not_matter_where_the_server_can_be_reached_from_elsewhere_with_a_key():
    with running(keys=KEYS, host="0.0.0.0") as server:
        answer = exchange(
            ("127.0.0.1", server.address[1]),
            request("/version", b"", f"Authorization: Bearer {KEYS[0]}", host="box.example", method="GET"),
        )
        assert status_of(answer) == 200


def test_requests_are_checked_before_their_route_is_looked_up(locked):
    assert {locked.get(path).status_code for path in ("/nothing", "/version", "/v1/models")} == {401}
