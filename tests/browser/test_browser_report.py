"""The report in a real browser. Skipped where playwright or a Chromium is not installed (INKSTONE_CHROMIUM names another one)."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("INKSTONE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = Path(__file__).parents[1] / "report" / "fake_run_folder.py"
    spec = importlib.util.spec_from_file_location("fake_run_folder", path)
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    from inkstone.report.page import write_report

    folder = tmp_path_factory.mktemp("browser")
    run = fake.make_run(folder / "quickstart")
    attack = "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({"step": 600, "sample": {"prompt": attack, "text": attack + "W" * 500}}) + "\n")
    write_report([run], folder / "one.html")
    write_report([run, fake.make_run(folder / "a-much-longer-name-of-a-run-with-no-space-in-it", seed=1)], folder / "two.html")
    return folder


@pytest.fixture
def visit(browser, address):
    """Return a function that opens a page as a reader of some language, theme and width; any message of the page is a failure."""
    contexts, messages = [], []

    def open_page(name="one.html", *, locale="en-US", scheme="light", width=1280, **options):
        context = browser.new_context(locale=locale, color_scheme=scheme, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else messages.append(request.url))
        page.goto((address / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []


@pytest.mark.parametrize("name", ["one.html", "two.html"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_a_phone_needs_no_sideways_scrolling(visit, name, locale):
    page = visit(name, locale=locale, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_text_of_the_run_does_nothing(visit):
    page = visit()
    assert "owned" not in page.title() and page.locator("img").count() == 0


def test_language_follows_the_browser_and_the_button(visit):
    page = visit(locale="zh-TW")
    assert page.locator("#curves h2").inner_text() == "学习过程"
    page.locator("#language").click()
    assert page.locator("#curves h2").inner_text() == "How it learned"
    assert visit().locator("#curves h2").inner_text() == "How it learned"


def test_theme_follows_the_system_and_the_button(visit):
    color = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = visit().evaluate(color), visit(scheme="dark").evaluate(color)
    assert light != dark
    page = visit()
    page.locator("#theme").click()
    assert page.evaluate(color) == dark


def test_pointing_reads_the_curve_and_leaving_restores_it(visit):
    page = visit()
    figure = page.locator("#curve-loss")
    plot, shown = figure.locator(".plot"), figure.locator("figcaption").inner_text
    resting = shown()
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] / 2, "y": 50})
    assert abs(int(figure.locator(".at").inner_text()) - 300) < 6 and shown() != resting
    page.mouse.move(0, 0)
    assert shown() == resting


def test_arrow_keys_read_the_curve(visit):
    page = visit()
    page.locator("#curve-lr .plot").focus()
    page.keyboard.press("Home")
    assert page.locator("#curve-lr .at").inner_text() == "1"
    page.keyboard.press("ArrowRight")
    assert int(page.locator("#curve-lr .at").inner_text()) > 1


def test_logarithmic_steps_redraw_the_lines(visit):
    page = visit()
    line = page.locator("#curve-loss .line").first
    before = line.get_attribute("d")
    page.locator("#log-x").click()
    assert line.get_attribute("d") != before and page.locator("#log-x").get_attribute("aria-pressed") == "true"
    page.locator("#log-x").click()
    page.locator("#log-x").blur()
    assert len(line.get_attribute("d").split("L")) == len(before.split("L"))


def test_the_slider_shows_one_step_at_a_time(visit):
    page = visit()
    assert page.locator(".samples > li:visible").count() == 1
    page.locator("#samples-0-slider").focus()
    page.keyboard.press("Home")
    assert page.locator(".slider output").inner_text() == "50" and page.locator(".samples > li:visible h3").inner_text().startswith(
        "Step 50"
    )


def test_without_script_everything_is_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator(".samples > li:visible").count() == 12 and not page.locator("#theme").is_visible()
    assert page.locator("#curve-loss .line").first.get_attribute("d").startswith("M")
