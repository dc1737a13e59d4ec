"""A published folder is the old one or the new one, whole, at every moment."""

import os
import signal
from pathlib import Path

import pytest

from inkstone.base import folders
from inkstone.base.errors import CheckpointError, ResourceError
from inkstone.base.files import MANIFEST_NAME
from inkstone.base.folders import sweep
from inkstone.checkpoint.manifest import verify_folder
from inkstone.checkpoint.publish import publish_folder

POINTS = ("made_tmp", "before_fsync", "before_manifest", "before_rename", "after_rename")


def write(text):
    def fill(folder):
        (folder / "a.txt").write_text(text)
        (folder / "b.bin").write_bytes(bytes(1000))

    return fill


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    return request.param


def test_publishing_and_replacing(tmp_path, way):
    for text in ("old", "new", "newest"):
        publish_folder(tmp_path / "best", write(text))
        assert (tmp_path / "best" / "a.txt").read_text() == text
        assert verify_folder(tmp_path / "best")["kind"] == "model"
        assert names(tmp_path) == ["best"] and names(tmp_path / "best") == [MANIFEST_NAME, "a.txt", "b.bin"]


@pytest.mark.parametrize("point", POINTS)
def test_kill_leaves_the_old_or_the_new(tmp_path, way, point):
    publish_folder(tmp_path / "best", write("old"))
    child = os.fork()
    if child == 0:
        publish_folder(tmp_path / "best", write("new"), lambda now: os.kill(os.getpid(), signal.SIGKILL) if now == point else None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    sweep(tmp_path)
    verify_folder(tmp_path / "best")
    assert (tmp_path / "best" / "a.txt").read_text() == ("new" if point == "after_rename" else "old")
    assert names(tmp_path) == ["best"]


def test_kill_between_the_two_renames_is_undone(tmp_path, monkeypatch):
    publish_folder(tmp_path / "best", write("old"))
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    child = os.fork()
    if child == 0:
        real, calls = Path.rename, []

        def rename(self, target):
            calls.append(target)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        publish_folder(tmp_path / "best", write("new"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert "best" not in names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == ["best"] and (tmp_path / "best" / "a.txt").read_text() == "old"


def test_a_failing_second_rename_puts_the_old_back(tmp_path, monkeypatch):
    publish_folder(tmp_path / "best", write("old"))
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    real, calls = Path.rename, []

    def rename(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ResourceError, match="Input/output error"):
        publish_folder(tmp_path / "best", write("new"))
    assert names(tmp_path) == ["best"] and (tmp_path / "best" / "a.txt").read_text() == "old"


def test_a_failing_writer_changes_nothing(tmp_path):
    publish_folder(tmp_path / "best", write("old"))

    def fail(folder):
        (folder / "a.txt").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match=r"disk is full while writing .*best"):
        publish_folder(tmp_path / "best", fail)
    assert names(tmp_path) == ["best"] and (tmp_path / "best" / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    "make", [lambda f: (f / "sub").mkdir(), lambda f: (f / "link").symlink_to("/etc/hosts"), lambda f: (f / ".hidden").touch()]
)
def test_only_plain_files_are_published(tmp_path, make):
    with pytest.raises(ValueError, match="plain file"):
        publish_folder(tmp_path / "best", make)
    assert names(tmp_path) == []


def test_a_link_in_the_way_is_replaced_and_its_target_untouched(tmp_path):
    publish_folder(tmp_path / "real", write("real"))
    (tmp_path / "best").symlink_to("real")
    publish_folder(tmp_path / "best", write("new"))
    assert not (tmp_path / "best").is_symlink() and (tmp_path / "best" / "a.txt").read_text() == "new"
    assert (tmp_path / "real" / "a.txt").read_text() == "real"


def test_sweep_leaves_other_things_alone(tmp_path):
    (tmp_path / "keep").mkdir()
    (tmp_path / ".tmp-notes").mkdir()
    (tmp_path / ".trash-abc").mkdir()
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert names(tmp_path) == [".tmp-notes", "keep"]


def test_verifying_only_some_files(tmp_path):
    publish_folder(tmp_path / "best", write("old"))
    (tmp_path / "best" / "a.txt").write_text("edited")
    verify_folder(tmp_path / "best", only={"b.bin"})
    with pytest.raises(CheckpointError, match=r"a\.txt is damaged: it has 6 bytes, expected 3"):
        verify_folder(tmp_path / "best")
