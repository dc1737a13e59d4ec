"""`inkstone quickstart`: from a text to a page and a model that loads; what it refuses, and what goes on after `kill -9`."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import inkstone
from inkstone.base.errors import ConfigError, ResourceError
from inkstone.cli.main import run
from inkstone.cli.quickstart_folder import NOTE, QuickstartFolder, describe_command, refuse_foreign

torch.set_num_threads(1)


@pytest.fixture
def small_text(tmp_path):
    draw = random.Random(1)
    lines = [
        f"On day {i} {draw.choice(('Anna', 'Ben'))} walked to the river. It was {draw.choice(('cold', 'deep'))}.\n"
        f"第{i}天，{draw.choice('甲乙')}去了河边。河水很{draw.choice('冷暖深')}。\n"
        for i in range(250)
    ]
    path = tmp_path / "small.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def few_tokens_and_one_thread(monkeypatch):
    """The conversation on the page is most of what a run this small takes; threads that wait for each other cost the rest."""
    from inkstone import machine
    from inkstone.cli import quickstart

    monkeypatch.setattr(quickstart, "REPLY_TOKENS", 4)
    monkeypatch.setattr(machine, "choose_threads", lambda: 1)


def quickstart(capsys, *argv):
    """Return (exit code, figures or None, stderr)."""
    code = run(["quickstart", *map(str, argv), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if code == 0 else None, err


def test_a_text_becomes_a_page_and_a_chat_model_and_the_second_call_is_complete(small_text, tmp_path, capsys):
    out = tmp_path / "run"
    code, figures, err = quickstart(capsys, small_text, "--out", out, "--minutes", "3s")
    assert code == 0, err
    assert (out / "report.html").stat().st_size > 10_000
    assert inkstone.load(out).is_chat_tuned and inkstone.load(out / "final").generate("河", max_tokens=3, seed=1).tokens <= 3
    summary = json.loads((out / "summary.json").read_text())
    assert summary == figures and figures["run"] == str(out)
    # All of one measurement: perplexity is that of this loss, over the whole split.
    assert figures["val_perplexity"] == pytest.approx(torch.tensor(figures["val_loss"]).exp().item(), rel=1e-5)
    own = next(row for row in json.loads((out / "figures.json").read_text())[0]["rows"] if row["kind"] == "model")
    assert own["value"] == figures["val_bits_per_byte"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name not in (NOTE, ".lock.owner")}
    code, again, err = quickstart(capsys, small_text, "--out", out, "--minutes", "3s")
    assert (code, again) == (0, figures) and "is already complete" in err and "measuring" not in err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    small_text.write_text("other text\n")
    code, _, err = quickstart(capsys, small_text, "--out", out, "--minutes", "3s")
    assert code == 2 and f"{small_text} has changed" in err and "--overwrite" in err


def test_killed_in_the_middle_the_same_command_finishes_and_the_time_adds_up(small_text, tmp_path, capsys):
    out = tmp_path / "run"
    program = (
        "import sys; from inkstone import machine; machine.choose_threads = lambda: 1; from inkstone.cli.main import main; main()"
    )
    argv = [sys.executable, "-c", program, "quickstart", str(small_text), "--out", str(out), "--minutes", "4s"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while not (out / "parts" / "base" / "metrics.jsonl").exists() and child.poll() is None:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL and not (out / "final").exists()
    spent = json.loads((out / NOTE).read_text())["seconds"]
    code, figures, err = quickstart(capsys, small_text, "--out", out, "--minutes", "4s")
    assert code == 0 and "1/5" not in err, err
    assert figures["total_seconds"] > spent > 0 and (out / "report.html").exists()


def test_a_missing_input_is_refused_and_leaves_nothing(tmp_path, capsys):
    code, _, err = quickstart(capsys, tmp_path / "typo.txt", "--out", tmp_path / "run", "--minutes", "3s")
    assert code == 2 and "typo.txt does not exist" in err
    assert list(tmp_path.iterdir()) == []


def test_a_dangling_link_is_an_error_alone_and_passed_over_in_a_folder(small_text, tmp_path, capsys):
    from inkstone.data.paths import expand_inputs

    folder = tmp_path / "texts"
    folder.mkdir()
    small_text.rename(folder / "small.txt")
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    note = describe_command([str(folder)], expand_inputs([folder]), 3.0)
    assert [path.rpartition("/")[2] for path in note.files] == ["small.txt"]
    code, _, err = quickstart(capsys, folder / "gone.txt", "--out", tmp_path / "run")
    assert code == 2 and "dangling symbolic link" in err


def test_a_text_that_cannot_be_prepared_does_not_bind_the_folder(small_text, tmp_path, capsys):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    code, _, _ = quickstart(capsys, empty, "--out", tmp_path / "run", "--minutes", "3s")
    assert code == 3
    wanted = describe_command([str(small_text)], [small_text], 0.05)
    assert QuickstartFolder(tmp_path / "run", wanted).note == wanted


def begin(out, note):
    out.mkdir(exist_ok=True)
    QuickstartFolder(out, note)
    (out / "parts" / "data").mkdir(parents=True, exist_ok=True)


def test_another_command_is_refused_with_every_difference_and_overwrite_starts_anew(small_text, tmp_path):
    out, note = tmp_path / "run", describe_command(["small.txt"], [small_text], 3.0)
    begin(out, note)
    (out / ".lock").touch()
    with pytest.raises(
        ConfigError, match=r"(?s)inputs: was \['small.txt'\], now \['b'\]\nminutes: was 3.0, now 4.0\n.*--overwrite"
    ):
        QuickstartFolder(out, describe_command(["b"], [], 4.0))
    os.utime(small_text, ns=(1, 1))
    with pytest.raises(ConfigError, match=r"small\.txt has changed: it was written again"):
        QuickstartFolder(out, describe_command(["small.txt"], [small_text], 3.0))
    QuickstartFolder(out, describe_command(["b"], [], 4.0), overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [".lock", NOTE]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"inputs": 3}'])
def test_a_torn_note_is_named_and_overwrite_mends_it(tmp_path, content):
    out, note = tmp_path / "run", describe_command(["x"], [], 3.0)
    begin(out, note)
    (out / NOTE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"quickstart.json is damaged .*--overwrite"):
        QuickstartFolder(out, note)
    assert QuickstartFolder(out, note, overwrite=True).note == note


def test_a_folder_of_something_else_is_left_alone(small_text, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.doc").touch()
    for flags in ([], ["--overwrite"]):
        code, _, err = quickstart(capsys, small_text, "--out", tmp_path / "thesis", *flags)
        assert code == 2 and "was not made by quickstart" in err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["one.doc"]


def test_odd_outputs_exit_with_a_line(small_text, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, code in ((small_text, 2), (small_text / "below", 5), (tmp_path / "link", 5), ("/proc/inkstone", 5)):
        found, _, err = quickstart(capsys, small_text, "--out", out)
        assert found == code and err.startswith("error: ") and len(err.splitlines()) == 1, (out, err)


def test_a_folder_that_cannot_be_written_is_a_resource_error(tmp_path, monkeypatch):
    from inkstone.cli import quickstart_folder

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quickstart_folder, "write_json", full)
    with pytest.raises(ResourceError, match="disk is full"):
        QuickstartFolder(tmp_path, describe_command(["x"], [], 3.0))
    refuse_foreign(tmp_path)


def test_a_second_quickstart_in_the_folder_is_refused_while_the_first_runs(small_text, tmp_path, capsys):
    from inkstone.train.run import locked

    with locked(tmp_path / "run"):
        code, _, err = quickstart(capsys, small_text, "--out", tmp_path / "run")
    assert code == 2 and "in use by process" in err
