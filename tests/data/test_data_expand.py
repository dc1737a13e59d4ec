"""Compressed files: whole, cut off, damaged, bombs."""

import errno
import gzip
import os
from pathlib import Path

import pytest
import zstandard

from inkstone.base.errors import DataError, ResourceError
from inkstone.data.expand import read_pieces

DATA = b"".join(b"line %d of some text\n" % i for i in range(40_000))
PACK = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor(write_checksum=True).compress}


def read(path, max_expansion=200):
    return b"".join(read_pieces(path, max_expansion=max_expansion))


@pytest.mark.parametrize("kind", PACK)
def test_compressed_bytes_are_read_whole_by_content_not_by_name(tmp_path, kind):
    (tmp_path / f"a.txt.{kind}").write_bytes(PACK[kind](DATA))
    (tmp_path / "b.txt").write_bytes(PACK[kind](DATA))
    assert read(tmp_path / f"a.txt.{kind}") == read(tmp_path / "b.txt") == DATA


@pytest.mark.parametrize("kind", PACK)
def test_several_members_are_read_one_after_another(tmp_path, kind):
    path = tmp_path / "a"
    path.write_bytes(PACK[kind](DATA) + PACK[kind](b"second"))
    assert read(path) == DATA + b"second"


def test_padding_after_gzip_is_ignored(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"x") + b"\0" * 100_000)
    assert read(tmp_path / "a") == b"x"


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_off_file_is_an_error_at_a_byte(tmp_path, kind, share):
    packed = PACK[kind](DATA)
    size = int(len(packed) * share)
    (tmp_path / "a").write_bytes(packed[:size])
    with pytest.raises(DataError, match=f"truncated at byte {size:,}"):
        read(tmp_path / "a")


@pytest.mark.parametrize("kind", PACK)
def test_damage_inside_is_an_error(tmp_path, kind):
    packed = bytearray(PACK[kind](DATA))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(range(64, 128))
    (tmp_path / "a").write_bytes(packed)
    with pytest.raises(DataError, match=r"damaged|truncated"):
        read(tmp_path / "a")


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_refused_early(tmp_path, kind):
    (tmp_path / "a").write_bytes(PACK[kind](bytes(100_000_000)))
    size = 0
    with pytest.raises(DataError, match=r"expands more than 200 times.*--max-expansion"):
        for piece in read_pieces(tmp_path / "a", max_expansion=200):
            size += len(piece)
            assert len(piece) <= 1 << 20
    assert size < 100_000_000


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_wrong_suffix_is_an_error(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"plain text")
    with pytest.raises(DataError, match=f"is not a {suffix} file"):
        read(tmp_path / f"a.{suffix}")


def test_an_empty_file_is_empty(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert read(tmp_path / "a") == b""


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, DataError), (errno.EIO, ResourceError), (errno.ETIMEDOUT, ResourceError)]
)
def test_what_the_system_refuses_is_said_in_its_words(tmp_path, monkeypatch, number, kind):
    def refuse(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(kind, match=os.strerror(number)):
        read(tmp_path / "a")
