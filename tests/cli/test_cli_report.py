import json
import os

import pytest

from inkstone.cli.main import run
from inkstone.cli.runs import find_runs, table


@pytest.fixture
def runs(tmp_path):
    """Two runs: one finished, one that is still being written; and what is not a run."""
    done, live = tmp_path / "done", tmp_path / "group" / "墨-live"
    for folder in (done, live):
        folder.mkdir(parents=True)
        lines = [{"step": step, "loss": 3.0 / step, "tokens_per_second": 100.0 * step} for step in range(1, 6)]
        lines.append({"step": 5, "val_loss": 0.7, "val_bits_per_byte": 0.4})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "lo')
    (done / "config.toml").write_text("[model]\nnum_layers = 2\n")
    (done / "summary.json").write_text(json.dumps({"steps": 5, "val_loss": 0.5, "num_params": 12_345, "stopped_by": "max_steps"}))
    (done / "best").mkdir()
    (done / "best" / "metrics.jsonl").write_text("")
    os.utime(done / "metrics.jsonl", (1e9, 1e9))
    for name in ("config.toml", "summary.json"):
        os.utime(done / name, (1e9, 1e9))
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_report_goes_into_the_run_and_may_be_written_again(runs, capsys):
    for _ in range(2):
        assert run(["report", str(runs / "done")]) == 0
        assert capsys.readouterr().out.strip() == str(runs / "done" / "report.html")
    assert "<!doctype html>" in (runs / "done" / "report.html").read_text()


def test_report_json_is_one_object_on_stdout(runs, capsys):
    assert run(["report", str(runs / "done"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["report"].endswith("report.html") and figures["bytes"] > 1000


def test_several_runs_go_to_the_current_folder_and_overwrite_nothing(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    command = ["report", "done", "group/墨-live"]
    assert run(command) == 0 and "2 runs, side by side" in (runs / "report.html").read_text()
    (runs / "report.html").write_text("mine")
    assert run(command) == 2 and (runs / "report.html").read_text() == "mine"
    assert "exists already" in capsys.readouterr().err
    assert run([*command, "--overwrite"]) == 0 and (runs / "report.html").read_text() != "mine"


def test_a_file_that_is_not_the_runs_report_is_kept(runs, capsys):
    precious = runs / "done" / "summary.json"
    before = precious.read_bytes()
    assert run(["report", str(runs / "done"), "--out", str(precious)]) == 2
    assert run(["report", str(runs / "done"), "--out", str(runs)]) == 2
    assert precious.read_bytes() == before
    assert run(["report", str(runs / "done"), "--out", str(runs / "new" / "page.html")]) == 0


def test_what_is_no_run_exits_with_3_and_one_line(runs, capsys):
    for bad in ("notes", "nowhere"):
        assert run(["report", str(runs / bad)]) == 3
        assert capsys.readouterr().err.count("\n") == 1
    assert run(["runs", str(runs / "nowhere")]) == 3


def test_damage_in_the_run_is_a_warning(runs, capsys):
    (runs / "done" / "machine.json").write_text("{")
    assert run(["report", str(runs / "done")]) == 0
    assert "machine.json: not valid JSON" in capsys.readouterr().err


def test_runs_lists_newest_first_without_checkpoints(runs, capsys):
    assert [folder.name for folder in find_runs(runs)] == ["done", "墨-live"]
    assert run(["runs", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [row["name"] for row in rows] == ["group/墨-live", "done"]
    assert (
        rows[0]["steps"] == 5
        and rows[0]["val_loss"] == 0.7
        and rows[0]["tokens_per_second"] == 300
        and rows[0]["stopped_by"] is None
    )
    assert rows[1]["val_loss"] == 0.5 and rows[1]["num_params"] == 12_345 and rows[1]["stopped_by"] == "max_steps"
    assert rows[0]["age_seconds"] < rows[1]["age_seconds"]


def test_table_is_aligned_with_chinese_names_and_obeys_no_control_letters(runs, capsys):
    row = dict.fromkeys(("steps", "val_loss", "val_bits_per_byte", "tokens_per_second", "num_params", "stopped_by"))
    text = table([row | {"name": "墨", "age_seconds": 5.0}, row | {"name": "a\x1b[2Jb", "age_seconds": 864_000.0}])
    lines = text.splitlines()
    assert "\x1b" not in text and lines[2].endswith("10d")
    assert lines[1].index("-") + 1 == lines[2].index(" -") + 1  # 墨 is one letter and two columns


def test_no_runs_is_said_and_not_an_error(tmp_path, capsys):
    assert run(["runs", str(tmp_path)]) == 0
    assert "no runs below" in capsys.readouterr().out
