"""metrics.jsonl: every step once, whatever a crash left (reliability R-21), and always valid JSON."""

import json
import subprocess
import sys

import pytest

from inkstone.base.errors import ResourceError
from inkstone.train.journal import METRICS, SUPERSEDED, Journal, read_rows


def write(run, *rows, resume_step=0):
    journal = Journal(run, resume_step=resume_step)
    for row in rows:
        journal.write(row)
    journal.close()


def lines(run, name=METRICS):
    return (run / name).read_bytes().decode().split("\n")


def steps(run):
    return [row["step"] for row in read_rows(run)]


def test_a_row_is_on_disk_before_the_next(tmp_path):
    journal = Journal(tmp_path, resume_step=0)
    journal.write({"step": 1, "loss": 2.5})
    assert read_rows(tmp_path) == [{"step": 1, "loss": 2.5}]
    journal.close()


def test_a_run_without_a_journal_has_no_rows(tmp_path):
    assert read_rows(tmp_path) == []


def test_a_resumed_journal_goes_on_where_it_was(tmp_path):
    write(tmp_path, {"step": 1}, {"step": 2})
    write(tmp_path, {"step": 3}, resume_step=2)
    assert lines(tmp_path) == ['{"step": 1}', '{"step": 2}', '{"step": 3}', ""]
    assert not (tmp_path / SUPERSEDED).exists()


@pytest.mark.parametrize("torn", ['{"st', '{"step": 3, "loss": 1.', "{", '{"step": 3, "text": "墨'.encode()[:-1]])
def test_a_torn_last_line_is_moved_away(torn, tmp_path):
    write(tmp_path, {"step": 1}, {"step": 2})
    with (tmp_path / METRICS).open("ab") as stream:
        stream.write(torn if isinstance(torn, bytes) else torn.encode())
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, {"step": 3}, resume_step=2)
    assert lines(tmp_path) == ['{"step": 1}', '{"step": 2}', '{"step": 3}', ""]
    assert len(lines(tmp_path, SUPERSEDED)) == 2


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step": 2}')
    write(tmp_path, {"step": 3}, resume_step=2)
    assert steps(tmp_path) == [1, 2, 3]


def test_rows_beyond_the_resumed_step_are_moved_and_not_lost(tmp_path):
    write(tmp_path, *({"step": n, "life": 1} for n in range(1, 6)))
    write(tmp_path, {"step": 4, "life": 2}, resume_step=3)
    assert [(row["step"], row["life"]) for row in read_rows(tmp_path)] == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert [json.loads(line) for line in lines(tmp_path, SUPERSEDED)[:-1]] == [{"step": n, "life": 1} for n in (4, 5)]


def test_each_life_adds_to_what_was_superseded(tmp_path):
    for life in range(3):
        write(tmp_path, {"step": 1, "life": life}, resume_step=0)
    assert [row["life"] for row in read_rows(tmp_path)] == [2]
    assert [json.loads(line)["life"] for line in lines(tmp_path, SUPERSEDED)[:-1]] == [0, 1]


def test_an_evaluation_of_the_resumed_step_stays(tmp_path):
    write(tmp_path, {"step": 2, "loss": 1.0}, {"step": 2, "val_loss": 1.0}, {"step": 3, "loss": 1.0})
    write(tmp_path, resume_step=2)
    assert steps(tmp_path) == [2, 2]


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b\u2029c", "\x85\x0b\x0c\x1c\r", '"\\', "墨\ufffd", "\x00", "\ud800"])
def test_any_text_of_a_sample_reads_back(text, tmp_path):
    row = {"step": 1, "sample": {"prompt": text, "text": text}}
    write(tmp_path, row, {"step": 2})
    write(tmp_path, {"step": 3}, resume_step=2)
    assert read_rows(tmp_path) == [row, {"step": 2}, {"step": 3}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_figure_that_is_not_finite_is_null_because_json_has_no_other_word(value, tmp_path):
    write(tmp_path, {"step": 1, "loss": value, "grad_norm": 1.0})

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(lines(tmp_path)[0], parse_constant=refuse) == {"step": 1, "loss": None, "grad_norm": 1.0}


def test_lines_that_are_no_rows_are_left_out(tmp_path):
    (tmp_path / METRICS).write_text('[1]\n\n{"loss": 1}\n{"step": "x"}\n{"step": 1}\n')
    assert read_rows(tmp_path) == [{"step": 1}]
    write(tmp_path, resume_step=1)
    assert lines(tmp_path) == ['{"step": 1}', ""]


def test_a_run_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ResourceError, match=METRICS):
        Journal(tmp_path / "none", resume_step=0)


def test_without_a_checkpoint_nothing_is_kept_not_even_the_evaluation_of_step_0(tmp_path):
    write(tmp_path, {"step": 0, "val_loss": 1.0}, {"step": 1, "loss": 1.0}, resume_step=-1)
    write(tmp_path, {"step": 0, "val_loss": 2.0}, resume_step=-1)
    assert read_rows(tmp_path) == [{"step": 0, "val_loss": 2.0}]


def test_an_evaluation_after_the_checkpoint_of_its_step_is_moved_with_its_sample(tmp_path):
    rows = [{"step": 1, "val_loss": 1.0}, {"step": 2, "loss": 1.0}, {"step": 2, "val_loss": 1.0}, {"step": 2, "sample": {}}]
    write(tmp_path, *rows)
    Journal(tmp_path, resume_step=2, evaluated_step=1).close()
    assert read_rows(tmp_path) == rows[:2]


def test_a_row_is_whole_or_not_there_when_the_disk_is_full(tmp_path):
    """A limit on the size of files is as good as a full disk; a part of the row fits."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from inkstone.base.errors import ResourceError\n"
        "from inkstone.train.journal import Journal, read_rows\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "run = Path(sys.argv[1])\n"
        "journal = Journal(run, resume_step=-1)\n"
        "journal.write({'step': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    journal.write({'step': 2, 'text': 'x' * 100})\n"
        "except ResourceError:\n"
        "    journal.write({'step': 3})\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 7
    assert lines(tmp_path) == ['{"step": 1}', '{"step": 3}', ""]
