"""What dead processes leave beside a folder: all of it where the place is ours, only one name's where it is not."""

import os
import subprocess
import sys

import pytest

from inkstone.base.folders import swap_in, sweep, temporary_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead():
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_sweeping_for_one_name_leaves_the_others(tmp_path, dead):
    for kind in ("tmp", "old", "trash"):
        for name in ("mine", "mine-too", "other"):
            (tmp_path / f".{kind}-{name}-{dead}-0123abcd").mkdir()
    (tmp_path / ".trash-1000").mkdir()
    sweep(tmp_path, only="mine")
    others = [f".{kind}-{name}-{dead}-0123abcd" for kind in ("tmp", "old", "trash") for name in ("mine-too", "other")]
    assert names(tmp_path) == sorted([*others, ".trash-1000", "mine"]), "what had been swapped out is back"


def test_a_living_process_keeps_its_own(tmp_path):
    (tmp_path / f".tmp-mine-{os.getppid()}-0123abcd").mkdir()
    sweep(tmp_path, only="mine")
    assert len(names(tmp_path)) == 1


def test_a_swap_leaves_nothing_beside(tmp_path):
    for text in ("one", "two"):
        with temporary_folder(tmp_path / "out") as folder:
            (folder / "file").write_text(text)
            swap_in(folder, tmp_path / "out")
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "file").read_text() == "two"
