import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from fake_run_folder import make_run

from inkstone.base.errors import ConfigError, DataError
from inkstone.report.page import render, write_report
from inkstone.report.run_data import read_run

VOID = {"meta", "input", "br", "link", "line"}
ATTACK = "</script><img src=x onerror=\"document.title='owned'\"><style>*{display:none}</style>"


class Outline(HTMLParser):
    """Collects the elements, and checks that they close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.ids, self._open = [], [], [], []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def page(run_folder):
    return render([read_run(run_folder)])


def test_page_is_well_formed_and_names_are_unique(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    labels = [value for _, name, value in outline.attributes if name in ("aria-labelledby", "for", "aria-controls")]
    assert labels and set(labels) <= set(outline.ids)


def test_page_has_every_section_in_both_languages(page):
    assert Outline(page).ids.count("curves") == 1
    for key in ("figures", "curves", "samples", "chat", "baselines", "data", "settings", "machine"):
        assert f'<section id="{key}"' in page
    assert page.count('class="en"') == page.count('class="zh"') > 40
    for words in ("4-layer GPT", "4 层 GPT", "xz -9", "小林", "Selk", "AVX-512 BF16", "builtin:microworld", "max minutes"):
        assert words in page


def test_page_asks_for_nothing_outside_itself(page):
    outline = Outline(page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    assert not {"link", "img", "iframe", "object", "form"} & set(outline.tags)
    assert not [name for _, name, _ in outline.attributes if name.startswith("on") or name == "src"]
    assert "default-src &#x27;none&#x27;" in page and "script-src &#x27;sha256-" in page


def test_headings_go_down_one_level_at_a_time(page, run_folder):
    for made in (page, render([read_run(run_folder)] * 2)):
        levels = [int(tag[1]) for tag in Outline(made).tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_page_is_the_same_for_the_same_run(page, run_folder):
    assert render([read_run(run_folder)]) == page


def attacked(tmp_path):
    run = make_run(tmp_path / "<b>run</b>", steps=20)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({"step": 21, "sample": {"prompt": ATTACK, "text": "\x00\ud800" + ATTACK}}) + "\n")
    (run / "config.toml").write_text(f"name = {json.dumps(ATTACK)}\n")
    for name in ("machine.json", "data.json"):
        (run / name).write_text(
            json.dumps({ATTACK: ATTACK, "sources": [ATTACK, {ATTACK: ATTACK}], "splits": {ATTACK: {}}, "dropped": {ATTACK: 1}})
        )
    rows = [{"name": ATTACK, "value": 1, "low": 0, "high": 2, "kind": ATTACK}]
    turns = {"title": ATTACK, "conversation": [{"role": ATTACK, "content": ATTACK}, 3]}
    odd = {"title": {"en": ATTACK}, "unit": ATTACK, "note": ATTACK, "rows": [{ATTACK: ATTACK, "list": [ATTACK]}]}
    (run / "figures.json").write_text(json.dumps([{"title": ATTACK, "rows": rows}, turns, odd]))
    return run


def test_nothing_in_the_run_can_become_markup(tmp_path):
    run = attacked(tmp_path)
    for runs in ([run], [run, run]):
        made = render([read_run(folder) for folder in runs])
        tags = Outline(made).tags
        assert "img" not in tags and tags.count("script") == 1 and tags.count("style") == 1
        assert made.count(ATTACK) == 0 and made.count("&lt;/script&gt;&lt;img src=x onerror") > 10


@pytest.mark.parametrize("missing", ["metrics.jsonl", "config.toml", "summary.json", "machine.json", "data.json", "figures.json"])
def test_any_part_may_be_missing(tmp_path, missing):
    run = make_run(tmp_path / "run", steps=30)
    (run / missing).unlink()
    Outline(render([read_run(run)]))


def test_an_empty_run_and_a_run_of_one_step_have_a_page(tmp_path):
    for number, lines in enumerate(("", '{"step": 0, "loss": 5.0, "grad_norm": 0, "lr": 0}\n')):
        run = tmp_path / str(number)
        run.mkdir()
        (run / "metrics.jsonl").write_text(lines)
        made = render([read_run(run)])
        Outline(made)
        assert "NaN" not in made and "inf" not in made.split("<body>")[1].split("<script>")[0]


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-30, 1e30])
def test_a_flat_curve_of_any_height_is_drawn(tmp_path, value):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "loss": value}) + "\n" for step in range(20)))
    made = render([read_run(tmp_path)])
    assert 'id="curve-loss"' in made and not re.search(r'd="[^"]*(nan|inf)', made)


def test_a_long_run_and_many_runs_stay_below_half_a_megabyte(tmp_path):
    long = make_run(tmp_path / "long", steps=10_000)
    with (long / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        for step in range(400):
            stream.write("\n" + json.dumps({"step": step, "sample": {"prompt": "墨", "text": "墨" * 5_000}}, ensure_ascii=False))
    write_report([long], tmp_path / "long.html")
    assert (tmp_path / "long.html").stat().st_size < 500_000
    runs = [make_run(tmp_path / f"run-{seed}", steps=600, seed=seed) for seed in range(16)]
    write_report(runs, tmp_path / "many.html")
    assert (tmp_path / "many.html").stat().st_size < 500_000


def test_several_runs_are_compared(tmp_path):
    runs = [
        make_run(tmp_path / name, steps=60, seed=seed, final_loss=loss)
        for seed, (name, loss) in enumerate((("墨", 2.0), ("stone", 1.5)))
    ]
    write_report(runs, tmp_path / "out" / "page.html")
    made = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    Outline(made)
    assert "2 runs, side by side" in made and "stone ends lowest on held-out text" in made
    settings = made.split('<section id="settings"')[1].split("<details>")[0]
    assert "optim.lr" in settings and "schedule.warmup" not in settings  # only what differs


def test_no_run_too_many_runs_and_no_such_run_are_refused(tmp_path, run_folder):
    for runs in ([], [run_folder] * 17):
        with pytest.raises(ConfigError, match="1 to 16"):
            write_report(runs, tmp_path / "x.html")
    with pytest.raises(DataError, match="nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []
