from inkstone.report.run_data import RunData, Sample
from inkstone.report.samples import MAX_STEPS, choose_steps, conversations, samples


def test_chosen_steps_hold_the_first_and_the_last():
    assert choose_steps(list(range(1000)), 24)[0] == 0 and choose_steps(list(range(1000)), 24)[-1] == 999
    assert len(set(choose_steps(list(range(25)), 24))) == 24 and choose_steps([5], 24) == [5]


def test_whitespace_is_kept_and_chinese_is_marked(tmp_path):
    run = RunData(
        path=tmp_path, name="run", samples=(Sample(1, "从前", "有山\n    山里有庙"), Sample(1, "def", " f():\n\treturn 1"))
    )
    made = samples([run])
    assert '<span class="prompt">从前</span>有山\n    山里有庙' in made and " f():\n\treturn 1" in made
    assert made.count('<blockquote lang="zh-CN"') == 1 and "slider" not in made  # one step needs no slider


def test_many_steps_are_thinned_and_long_texts_cut(tmp_path):
    rows = tuple(Sample(step, "", "x" * 10_000) for step in range(200))
    made = samples([RunData(path=tmp_path, name="run", samples=rows)])
    assert made.count("data-step=") == MAX_STEPS and made.count("x" * 100) and len(made) < 100_000


def test_no_samples_no_section(tmp_path):
    empty = RunData(path=tmp_path, name="run", figures=({"title": "t", "rows": []},))
    assert samples([empty]) is None and conversations([empty]) is None
