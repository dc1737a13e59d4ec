import json
import math

import pytest

from inkstone.base.errors import DataError
from inkstone.report.run_data import Sample, is_run, read_run


def write_metrics(folder, *lines, end=b"\n"):
    folder.mkdir(exist_ok=True)
    raw = b"\n".join(line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines)
    (folder / "metrics.jsonl").write_bytes(raw + end)
    return folder


def test_a_realistic_run_is_read_whole(run_folder):
    run = read_run(run_folder)
    assert run.name == "quickstart" and run.steps == 600 and run.problems == ()
    assert len(run.series["loss"].steps) == 600 and len(run.series["val_loss"].steps) == 12
    assert {sample.prompt for sample in run.samples} == {"Mira", "小林"}
    assert run.config["model"]["num_layers"] == 4 and run.machine["cores"] == 2 and len(run.figures) == 3
    assert run.number("val_bits_per_byte") == run.summary["val_bits_per_byte"]


def test_a_torn_last_line_is_left_out_without_a_word_and_damage_inside_is_named(tmp_path):
    torn = write_metrics(tmp_path / "torn", {"step": 1, "loss": 2.0}, b'{"step": 2, "lo', end=b"")
    assert read_run(torn).series["loss"].steps == (1,) and read_run(torn).problems == ()
    hurt = write_metrics(
        tmp_path / "hurt", {"step": 1, "loss": 2.0}, b"\xff\x00garbage", b"[1]", b'{"loss": 1}', {"step": 4, "loss": 1.0}
    )
    assert read_run(hurt).series["loss"].steps == (1, 4)
    assert read_run(hurt).problems == ("metrics.jsonl: 3 unreadable lines left out",)


def test_where_a_resumed_run_wrote_a_step_twice_the_later_line_counts(tmp_path):
    run = read_run(write_metrics(tmp_path, {"step": 1, "loss": 9.0}, {"step": 2, "loss": 8.0}, {"step": 1, "loss": 7.0}))
    assert run.series["loss"].steps == (1, 2) and run.series["loss"].values == (7.0, 8.0)


def test_values_that_are_not_finite_numbers_are_not_measurements(tmp_path):
    lines = [b'{"step": 1, "loss": NaN}', b'{"step": 2, "loss": Infinity, "note": "x", "ok": true}', b'{"step": 3, "loss": 1e999}']
    run = read_run(write_metrics(tmp_path, *lines, {"step": 4, "loss": 1.5}, b'{"step": 5, "loss": %s}' % (b"9" * 400)))
    assert list(run.series) == ["loss"] and run.series["loss"].steps == (4,)


def test_a_sample_repeats_its_prompt_or_does_not(tmp_path):
    lines = [
        {"step": 1, "sample": {"prompt": "从前", "text": "从前有山"}},
        {"step": 2, "sample": {"prompt": "从前", "text": "有水"}},
    ]
    assert read_run(write_metrics(tmp_path, *lines)).samples == (Sample(1, "从前", "有山"), Sample(2, "从前", "有水"))


def test_every_part_may_be_missing_or_broken(tmp_path):
    run = read_run(write_metrics(tmp_path, end=b""))
    assert run.series == {} and run.steps is None and run.number("val_loss") is None
    for name in ("summary.json", "machine.json", "data.json", "figures.json", "config.toml"):
        (tmp_path / name).write_text("{ not = = this", encoding="utf-8")
    assert len(read_run(tmp_path).problems) == 5
    (tmp_path / "summary.json").write_text("[1, 2]")
    assert read_run(tmp_path).summary == {}


def test_figures_are_derived_where_the_summary_is_silent(tmp_path):
    lines = [
        {"step": step, "loss": 3.0, "tokens": 10 * step, "tokens_per_second": speed}
        for step, speed in ((1, 1.0), (2, 50.0), (3, 60.0))
    ]
    run = read_run(write_metrics(tmp_path, *lines, {"step": 3, "val_loss": 2.0}))
    assert run.number("val_perplexity") == pytest.approx(math.exp(2))
    assert run.number("tokens_per_second") == 50.0 and run.number("tokens") == 30 and run.number("train_loss") == 3.0


@pytest.mark.parametrize("shape", ["one", "list", "named"])
def test_figures_file_may_be_one_entry_or_several(tmp_path, shape):
    entry = {"title": "t", "rows": [{"name": "a", "value": 1}]}
    write_metrics(tmp_path, {"step": 1})
    (tmp_path / "figures.json").write_text(json.dumps({"one": entry, "list": [entry, 7], "named": {"figures": [entry]}}[shape]))
    assert read_run(tmp_path).figures == (entry,)


def test_what_is_not_a_run_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, why in ((tmp_path, "none of them"), (tmp_path / "no", "not exist"), (tmp_path / "file", "not a folder")):
        with pytest.raises(DataError, match=f"{path.name}.*{why}"):
            read_run(path)


def test_a_lone_config_is_not_listed_as_a_run(tmp_path):
    (tmp_path / "config.toml").write_text("")
    assert not is_run(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    assert is_run(tmp_path)
