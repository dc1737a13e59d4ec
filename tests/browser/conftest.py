"""A Chromium and a scripted server for the tests of the page. Skips where either is missing (INKSTONE_CHROMIUM names another one)."""

import os
import shutil

import pytest
from page_server import PageServer

CHROMIUM = os.environ.get("INKSTONE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
NOTE_VIOLATIONS = (
    "document.addEventListener('securitypolicyviolation', (event) => console.error('violation: ' + event.violatedDirective))"
)


@pytest.fixture(scope="module")
def page_browser():
    """Return a started Chromium; one a module, since two of Playwright's loops cannot run at a time."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def only_server():
    """Return the one server of the session."""
    server = PageServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(only_server):
    """Return the server as if it had just started."""
    only_server.reset()
    return only_server


@pytest.fixture
def visit(page_browser, server):
    """Return a function that opens the page. Messages of the page, requests that leave it and breaches of its policy are failures.

    `expected` are parts of messages that the browser itself writes when a test breaks the connection on purpose.
    """
    contexts, messages, allowed = [], [], []

    def open_page(hash="", *, locale="en-US", scheme="light", width=1280, height=860, expected=(), context=None, **options):
        if context is None:
            context = page_browser.new_context(
                locale=locale, color_scheme=scheme, viewport={"width": width, "height": height}, **options
            )
            contexts.append(context)
            context.add_init_script(NOTE_VIOLATIONS)
        allowed.extend(expected)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith((server.address, "blob:")) else messages.append(request.url)
        )
        page.goto(server.address + hash)
        page.locator("#pick option, #notices .banner").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [message for message in messages if not any(part in message for part in allowed)] == []
