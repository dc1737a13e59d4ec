"""What the model wrote while it learned: a slider over the steps, and conversations as such."""

from collections.abc import Sequence
from typing import Any

from inkstone.report.html import Html, both, el, join, language_of, localized
from inkstone.report.numbers import figure
from inkstone.report.run_data import RunData, Sample

MAX_STEPS = 24  # on the slider, first and last always among them
MAX_TEXT = 3_000  # characters of one sample
MAX_ALL_TEXT = 60_000  # characters of all samples of a page
_ROLES = {"user": both("you", "你"), "assistant": both("model", "模型"), "system": both("instruction", "设定")}


def samples(runs: Sequence[RunData]) -> Html | None:
    """Return the samples of every run that has any; None when none has."""
    having = [run for run in runs if run.samples]
    if not having:
        return None
    budget = MAX_ALL_TEXT // len(having)
    parts = []
    for index, run in enumerate(having):
        heading = el("h3", run.name) if len(runs) > 1 else None
        parts.append(el("div", heading, _slider(run, index, budget, "h4" if len(runs) > 1 else "h3"), class_="run-samples"))
    return join(*parts)


def conversations(runs: Sequence[RunData]) -> Html | None:
    """Return the conversations in the runs' figures (`{"title", "conversation": [{"role", "content"}, …]}`); None without any."""
    found = [
        el("figure", el("figcaption", localized(entry.get("title", ""))), _turns(entry["conversation"]), class_="conversation")
        for run in runs
        for entry in run.figures
        if isinstance(entry.get("conversation"), list)
    ]
    return el("div", *found, class_="conversations") if found else None


def choose_steps(steps: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the steps, evenly by rank, with the first and the last.

    >>> choose_steps([0, 1, 2, 3, 4], 3)
    [0, 2, 4]
    """
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def _slider(run: RunData, index: int, budget: int, level: str) -> Html:
    steps = choose_steps(sorted({sample.step for sample in run.samples}), MAX_STEPS)
    chosen = [sample for sample in run.samples if sample.step in set(steps)]
    most = min(MAX_TEXT, max(80, budget // len(chosen)))
    last = len(steps) - 1
    name = f"samples-{index}"
    control = el(
        "div",
        el("label", both("Training step", "训练步数"), for_=f"{name}-slider"),
        el("input", type="range", id=f"{name}-slider", min="0", max=str(last), value=str(last), step="1", aria_controls=name),
        el("output", f"{steps[-1]:,}", for_=f"{name}-slider"),
        class_="slider needs-script",
    )
    rows = [
        el(
            "li",
            _step_head(run, step, level),
            *[_sample(sample, most) for sample in chosen if sample.step == step],
            data_step=f"{step:,}",
        )
        for step in steps
    ]
    return join(control if last else None, el("ol", *rows, class_="samples", id=name))


def _step_head(run: RunData, step: int, level: str) -> Html:
    loss = run.series.get("val_loss") or run.series.get("loss")
    nearest = min(range(len(loss.steps)), key=lambda i: abs(loss.steps[i] - step)) if loss else None
    shown = (
        both(f", loss {figure(loss.values[nearest])}", f"，损失 {figure(loss.values[nearest])}")
        if loss and nearest is not None
        else None
    )
    return el(level, both(f"Step {step:,}", f"第 {step:,} 步"), shown, class_="at-step")


def _sample(sample: Sample, most: int) -> Html:
    text = sample.text[:most] + ("…" if len(sample.text) > most else "")
    prompt = sample.prompt[:most]
    return el("blockquote", el("span", prompt, class_="prompt"), text, lang=language_of(prompt + text), dir="auto", class_="text")


def _turns(turns: list[Any]) -> Html:
    rows = []
    for turn in turns[:40]:
        if not isinstance(turn, dict):
            continue
        role, content = str(turn.get("role", "")), str(turn.get("content", ""))[:MAX_TEXT]
        kind = role if role in _ROLES else "other"
        who, said = el("span", _ROLES.get(role, role), class_="who"), el("p", content, lang=language_of(content), dir="auto")
        rows.append(el("li", who, said, class_=f"turn {kind}"))
    return el("ol", *rows, class_="turns")
