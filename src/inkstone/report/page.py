"""One HTML page about one run or several: no request leaves it, and nothing in it but our own script can run."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from inkstone.base.errors import ConfigError
from inkstone.base.files import explain_os_errors, write_atomic
from inkstone.report.curves import curves, stroke
from inkstone.report.facts import config, data_card, machine
from inkstone.report.figures import figures
from inkstone.report.html import Html, both, el, join
from inkstone.report.run_data import RunData, read_run
from inkstone.report.samples import conversations, samples
from inkstone.report.story import cards, comparison, story, verdict, way

GENERATOR = "Inkstone report"
MAX_RUNS = 16

# The stone from above: the slab, the well, and the ink in it.
_MARK = Html(
    '<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect x="5" y="2" width="22" height="28" rx="3"/>'
    '<path d="M9 9a3 3 0 0 1 3-3h8a3 3 0 0 1 3 3v2c0 3-14 1-14 5Z"/><circle cx="16" cy="21" r="5"/></svg>'
)


def write_report(runs: list[Path], out: Path) -> None:
    """Write the page about `runs` to `out`, replacing it whole.

    Raises: DataError when a folder is not a run, ConfigError for no runs or too many, ResourceError when `out` cannot be written.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ConfigError(f"expected 1 to {MAX_RUNS} runs for one report, found {len(runs)} — compare fewer at a time")
    page = render([read_run(Path(run)) for run in runs])
    with explain_os_errors(str(out)):
        write_atomic(Path(out), page)


def render(runs: Sequence[RunData]) -> str:
    """Return the whole page as text, the same for the same runs."""
    style, script = _asset("page.css"), _asset("page.js")
    title = " · ".join(run.name for run in runs[:3]) + (" …" if len(runs) > 3 else "")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=content_security_policy(script)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="generator", content=GENERATOR),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · Inkstone"),
        el("style", Html(style)),
    )
    parts = [_head(runs), el("main", *_sections(runs), id="main"), _foot(runs)]
    skip = el("a", both("Skip to the figures", "跳到正文"), href="#main", class_="skip")
    body = el("body", skip, *parts, el("script", Html(script)))
    return "<!doctype html>\n" + el("html", head, body, lang="en", data_lang="en") + "\n"


def content_security_policy(script: str) -> str:
    """Return the policy: nothing is loaded or sent, and only the script with this very text runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _head(runs: Sequence[RunData]) -> Html:
    tools = el(
        "div",
        el(
            "button",
            el("span", "中文", class_="en", lang="zh-CN"),
            el("span", "English", class_="zh", lang="en"),
            type="button",
            id="language",
        ),
        el("button", both("Light / dark", "明 / 暗"), type="button", id="theme"),
        class_="tools needs-script",
    )
    top = el("div", el("p", _MARK, "Inkstone ", el("span", "砚台", lang="zh-CN"), class_="brand"), tools, class_="row")
    if len(runs) == 1:
        run = runs[0]
        return el("header", top, el("h1", run.name, id="title"), story(run), stroke(run), way(run))
    heading = el("h1", both(f"{len(runs)} runs, side by side", f"{len(runs)} 次运行，并排比较"), id="title")
    return el("header", top, heading, verdict(runs))


def _sections(runs: Sequence[RunData]) -> list[Html]:
    one = runs[0] if len(runs) == 1 else None
    data = [(run, card) for run in runs if (card := data_card(run)) is not None]
    machines = [(run, facts) for run in runs if (facts := machine(run)) is not None]
    sections = [
        ("figures", both("Key figures", "关键数字"), cards(one) if one else comparison(runs)),
        ("curves", both("How it learned", "学习过程"), curves(runs)),
        ("samples", both("What it wrote along the way", "训练途中的习作"), samples(runs)),
        ("chat", both("A conversation", "对话"), conversations(runs)),
        ("baselines", both("Beside its baselines", "与基线相比"), figures(runs)),
        ("data", both("What it learned from", "数据"), _per_run(runs, data)),
        ("settings", both("Settings", "设置"), config(runs)),
        ("machine", both("Machine", "机器"), _per_run(runs, machines)),
    ]
    return [
        el("section", el("h2", title, id=f"h-{key}"), body, id=key, aria_labelledby=f"h-{key}")
        for key, title, body in sections
        if body is not None
    ]


def _per_run(runs: Sequence[RunData], parts: list[tuple[RunData, Html]]) -> Html | None:
    """Return one run's part as it is, several runs' parts folded under their names; None without any."""
    if not parts:
        return None
    if len(runs) == 1:
        return parts[0][1]
    return join(*[el("details", el("summary", run.name), part) for run, part in parts])


def _foot(runs: Sequence[RunData]) -> Html:
    problems = [join(f"{run.name}: " if len(runs) > 1 else None, problem) for run in runs for problem in run.problems]
    notes = el("ul", *[el("li", problem) for problem in problems], class_="problems") if problems else None
    heading = el("h2", both("Left out of this page", "本页略去的内容")) if problems else None
    made = both("Made by Inkstone from the files in the run folder. This page loads nothing and sends nothing.",
                "由 Inkstone 根据运行文件夹生成。本页不加载、也不发送任何数据。")  # fmt: skip
    return el("footer", heading, notes, el("p", made))


def _asset(name: str) -> str:
    return files("inkstone.report").joinpath(name).read_text(encoding="utf-8")
