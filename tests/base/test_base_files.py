"""A file is whole or not there, a removed folder is gone at once, and a full disk is named."""

import errno
import hashlib
import json
import os

import pytest

from inkstone.base import files
from inkstone.base.errors import ResourceError


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_atomic(path, "一")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failure_at_any_point_leaves_the_old_file(step, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path if step == "replace" else files.os, step, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_readable_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"名": [1, None]})
    assert "名" in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == {"名": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"名": [1, None]}


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full while writing x"), (errno.EACCES, "cannot write x: Perm")]
)
def test_an_os_error_becomes_a_resource_error(number, words):
    with pytest.raises(ResourceError, match=words) as caught, files.explain_os_errors("x"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 5


def test_other_errors_pass_through():
    with pytest.raises(KeyError), files.explain_os_errors("x"):
        raise KeyError


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_file_has_the_hash_of_its_bytes(size, tmp_path):
    (tmp_path / "a").write_bytes(bytes(size))
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(bytes(size)).hexdigest()


def test_a_text_has_the_hash_of_its_utf8_even_with_a_lone_surrogate():
    assert files.sha256_text("墨") == hashlib.sha256("墨".encode()).hexdigest()
    assert len(files.sha256_text("\ud800")) == 64


def test_a_removed_folder_leaves_nothing(tmp_path):
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    files.remove_folder(folder)
    files.remove_folder(folder)
    assert [entry.name for entry in tmp_path.iterdir()] == []
