import re

from inkstone.report.figures import baseline_figure, figures
from inkstone.report.run_data import RunData


def drawn(tmp_path, *entries):
    return figures([RunData(path=tmp_path, name="run", figures=entries)])


def widths(markup):
    return [float(width) for width in re.findall(r'class="bar" style="width:([\d.]+)%', markup)]


def test_bars_are_as_long_as_their_values(tmp_path):
    rows = [{"name": "a", "value": 1.0}, {"name": "b", "value": 2.0, "kind": "baseline"}]
    made = drawn(tmp_path, {"title": "t", "better": "lower", "rows": rows})
    assert widths(made) == [50.0, 100.0] and 'class="baseline"' in made and "越低越好" in made


def test_proportions_stand_on_the_whole_scale_as_percentages(tmp_path):
    made = drawn(tmp_path, {"unit": "proportion", "rows": [{"name": "zh", "value": 0.25, "low": 0.2, "high": 0.31}]})
    assert widths(made) == [25.0] and "25%" in made and "20% – 31%" in made


def test_negative_zero_and_missing_limits_draw_nothing_outside(tmp_path):
    made = drawn(tmp_path, {"rows": [{"name": "a", "value": -3}, {"name": "b", "value": 0, "low": None, "high": 1}]})
    assert widths(made) == [0.0, 0.0] and "whisker" not in made


def test_rows_of_another_shape_become_a_table(tmp_path):
    made = drawn(tmp_path, {"title": "t", "rows": [{"task": "tag", "f1": 0.9}, {"task": "sum"}]})
    assert "<table>" in made and "0.9" in made and widths(made) == []


def test_entries_without_rows_draw_nothing(tmp_path):
    assert drawn(tmp_path, {"title": "t"}, {"rows": []}, {"rows": "x"}, {"rows": [3]}) is None


def test_the_model_stands_among_its_baselines_in_order():
    made = baseline_figure(1.5, {"xz -9": {"bits_per_byte": 2.2}, "6-gram": {"bits_per_byte": 1.2}}, (1.4, 1.6))
    assert [row["value"] for row in made["rows"]] == [1.2, 1.5, 2.2]
    assert [row["kind"] for row in made["rows"]] == ["baseline", "model", "baseline"]
    assert (made["rows"][1]["low"], made["rows"][1]["high"]) == (1.4, 1.6)


def test_a_baseline_that_learned_from_a_part_of_the_text_says_so():
    made = baseline_figure(1.5, {"6-gram": {"bits_per_byte": 1.2, "train_bytes": 4_000_000}})
    assert made["rows"][0]["name"]["en"] == "6-gram of 3.8 MiB"
