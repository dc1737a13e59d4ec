"""`inkstone doctor`: every check says pass, warn or fail, and what to do."""

import json
from pathlib import Path

import pytest

from inkstone.cli import doctor, main


def by_name(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


def test_a_sound_machine_passes_and_says_what_is_here(tmp_path, capsys):
    assert main.run(["doctor", "--folder", str(tmp_path), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures["ok"] is True
    names = {check["name"] for check in figures["checks"]}
    assert {
        "python",
        "inkstone",
        "torch",
        "processor",
        "precision",
        "threads",
        "devices",
        "memory",
        "disk",
        "terminal",
        "pyarrow",
    } <= names
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "abc", "-1", ""])
def test_a_malformed_thread_variable_fails_and_is_named(value, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert main.run(["doctor", "--folder", str(tmp_path), "--json"]) == 5
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["ok"] is False
    assert "OMP_NUM_THREADS" in captured.err


def test_a_folder_that_cannot_be_written_fails(monkeypatch, tmp_path):
    def refuse(folder: Path) -> float:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "_write_speed", refuse)
    (check,) = doctor._disk(tmp_path)
    assert (check.status, "Permission denied" in check.found) == ("fail", True)
    (check,) = doctor._disk(tmp_path / "missing")
    assert check.status == "fail"


@pytest.mark.parametrize(("free", "status"), [(100 * 2**20, "fail"), (2**30, "warn"), (2**33, "pass")])
def test_little_memory_is_told(free, status, monkeypatch):
    monkeypatch.setattr("inkstone.machine.available_memory", lambda: free)
    (check,) = doctor._memory()
    assert check.status == status
    assert bool(check.advice) == (status != "pass")


def test_a_missing_optional_library_names_its_extra(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    checks = by_name(list(doctor._extras()))
    assert checks["pyarrow"].status == "pass"
    assert "inkstone[data]" in checks["pyarrow"].advice


def test_a_missing_required_library_fails(monkeypatch):
    installed = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "tokenizers" else installed(name))
    check = by_name(list(doctor._versions()))["libraries"]
    assert (check.status, check.found) == ("fail", "missing: tokenizers")


def test_another_torch_is_a_warning(monkeypatch):
    installed = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: "2.9.1+cu128" if name == "torch" else installed(name))
    assert by_name(list(doctor._versions()))["torch"].status == "warn"
