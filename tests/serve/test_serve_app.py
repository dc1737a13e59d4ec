"""Addresses and methods (H10, H11, H30), the page's files, and what each answer carries."""

import re

import httpx
import pytest
from serving_double import error_of, exchange, fake_app, fake_model, fake_state, request, running, status_of
from starlette.testclient import TestClient

from inkstone.base.errors import InkstoneError
from inkstone.serve.app import ServerState, build_app
from inkstone.serve.config import ServeSettings
from inkstone.serve.routes import page


@pytest.fixture(scope="module")
def client():
    """The whole application, without sockets."""
    state = fake_state()
    state.models.add(fake_model())
    state.lifecycle.become_ready()
    return TestClient(fake_app(state), base_url="http://localhost", raise_server_exceptions=False)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_every_other_method_of_every_route_is_405_with_what_is_allowed(client, method):
    for route in client.app.routes:
        if method not in route.methods:
            answer = client.request(method, re.sub("[{}]", "", route.path))
            assert answer.status_code == 405, route.path
            assert set(answer.headers["allow"].split(", ")) == route.methods
            assert method == "HEAD" or answer.json()["error"]["code"] == "method_not_allowed"


def test_head_is_get_without_a_body(client):
    for path in ("/health", "/version", "/v1/models"):
        got, head = client.get(path), client.head(path)
        assert head.status_code == got.status_code == 200 and head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    "path",
    ["/v1/take/", "//v1/take", "/V1/take", "/v1//take", "/v1/take%2f", "/v1/%2e%2e/v1/take", "/..;/v1/take", "/v1/take;x", "/v1/take%00",
     "/health/", "/%2e%2e/%2e%2e/etc/passwd", "/..\\..\\etc\\passwd", "http://localhost/v1/take", "*", "/v1/models/..%2f..%2fx",
     "/index.html/../../config.py", "/%ff%fe", "/v1/take%20"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_addresses_that_only_look_like_ours_are_404_and_never_redirected(server, path, method):
    answer = exchange(server.address, request(path, b"{}", method=method))
    assert (
        status_of(answer) == 404
        and b"location:" not in answer.lower()
        and error_of(answer)["code"] in ("not_found", "model_not_found")
    )


def test_a_query_does_not_change_the_address(client):
    assert client.get("/health?" + "x=1&" * 100).status_code == 200


@pytest.mark.parametrize("given", ["abc-123", "a" * 64, "A.b_c"])
def test_a_harmless_request_id_is_kept(client, given):
    assert client.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["", "a" * 65, "a b", "a\tb", "\x1b[31m".replace("\x1b", "%1b"), "ü".encode(), "<script>", "a" * 3000]
)
def test_any_other_request_id_is_replaced(client, given):
    assert re.fullmatch(r"req_[0-9a-f]{24}", client.get("/health", headers={"x-request-id": given}).headers["x-request-id"])


def test_a_request_id_with_a_line_break_never_gets_through(server):
    for broken in ("X-Request-Id: a\rb", "X-Request-Id: a\x00b", "X-Request-Id: a\r\n evil: 1", "X-Re\x00q: 1"):
        answer = exchange(server.address, request("/health", b"", broken, "Connection: close", method="GET"))
        assert status_of(answer) in (200, 400) and b"evil" not in answer and b"\x00" not in answer


def test_ids_differ(client):
    assert len({client.get("/health").headers["x-request-id"] for _ in range(20)}) == 20


def test_the_version_is_the_packages(client):
    from importlib.metadata import version

    assert client.get("/version").json() == {"name": "inkstone", "version": version("inkstone")}


# The page


@pytest.fixture
def page_client(tmp_path, monkeypatch):
    folder = tmp_path / "page"
    (folder / "deep").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>墨", encoding="utf-8")
    (folder / "deep" / "app.js").write_text("1", encoding="utf-8")
    (folder / "notes.txt").write_text("not for the web", encoding="utf-8")
    (tmp_path / "secret.js").write_text("secret", encoding="utf-8")
    state = ServerState(ServeSettings())
    return TestClient(build_app(state, page.routes(folder)), base_url="http://localhost", raise_server_exceptions=False)


def test_the_page_is_a_table_of_its_files(page_client):
    assert page_client.get("/").text == page_client.get("/index.html").text == "<!doctype html>墨"
    assert page_client.get("/deep/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for path in (
        "/notes.txt",
        "/deep",
        "/deep/",
        "/../secret.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "/deep/..%5c..%5csecret.js",
    ):
        assert page_client.get(path).status_code in (404, 503), path  # 503: no model is loaded here


def test_the_page_is_served_under_a_strict_policy(page_client):
    headers = page_client.get("/").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:", "connect-src": "'self'",
        "manifest-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    assert (
        headers["x-content-type-options"] == "nosniff"
        and headers["referrer-policy"] == "no-referrer"
        and headers["x-frame-options"] == "DENY"
    )


def test_ranges_and_conditions_on_files_cost_nothing(page_client):
    tag = page_client.get("/").headers["etag"]
    assert page_client.get("/", headers={"if-none-match": tag}).status_code == 304
    assert page_client.get("/", headers={"if-none-match": "x" * 5000}).status_code == 200
    assert (
        page_client.get("/", headers={"range": "bytes=" + ",".join(f"{i}-" for i in range(1000))}).content
        == "<!doctype html>墨".encode()
    )


def test_a_damaged_installation_says_so(tmp_path):
    with pytest.raises(InkstoneError, match=r"web page is missing .* install inkstone again"):
        page.routes(tmp_path)


def test_the_packages_own_page_is_whole():
    paths = {route.path for route in page.routes()}
    assert {"/", "/index.html"} <= paths


def test_a_real_client_keeps_its_connection():
    with running(idle_seconds=60) as server, httpx.Client() as client:
        for _ in range(3):
            assert client.post(f"{server.url}/v1/take", json={"a": 1}).json() == {"a": 1}
        assert len(client._transport._pool.connections) == 1
