"""The standard library as a corpus."""

import ast
import itertools

import pytest

from inkstone.base.errors import ConfigError, DataError
from inkstone.data.corpora.stdlib import stdlib_documents

MODULE = '''"""Module text, long enough to be kept: {filler}"""
import os


class Box:
    """A box. {filler}"""


def weigh(box):
    """Return the weight.

    {filler}
    """
    return box.size  # grams\f


def short(): "shares its line"
'''


@pytest.fixture
def library(tmp_path):
    (tmp_path / "box").mkdir()
    filler = "It says something, and then something else. " * 8
    (tmp_path / "box" / "__init__.py").write_text(MODULE.format(filler=filler.strip()), encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n" + b"name = 'caf\xe9'\n" * 20)
    (tmp_path / "broken.py").write_text("def (:\n" * 100, encoding="utf-8")
    (tmp_path / "undecodable.py").write_bytes(b"name = '\xff\xfe'\n" * 50)
    (tmp_path / "surrogate.py").write_text('"""lone \\ud800 ' + filler + '"""\n', encoding="utf-8")
    for folder in ("test", "site-packages/other", "box/tests", "__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "skipped.py").write_text("x = 1\n" * 100, encoding="utf-8")
    return tmp_path


def test_the_running_library_gives_prose_and_source():
    documents = list(itertools.islice(stdlib_documents(), 60))
    kinds = {d.source.split("/")[1] for d in documents}
    assert kinds == {"prose", "source"}
    assert [d.index for d in documents] == list(range(60))
    for document in documents:
        assert document.text.encode().decode() == document.text and len(document.text.encode()) >= 200
        assert "/test/" not in document.source and "site-packages" not in document.source
        if "/source/" in document.source:
            ast.parse(document.text)


def test_order_is_fixed_by_the_seed(library):
    def order(seed):
        return [d.source for d in stdlib_documents(seed=seed, folder=library)]

    assert order(0) == order(0)
    assert sorted(order(0)) == sorted(order(1))
    assert any(order(0) != order(seed) for seed in range(1, 9))


def test_docstrings_stand_only_in_the_prose(library):
    texts = {d.source: d.text for d in stdlib_documents(folder=library)}
    prose, source = texts["builtin:stdlib/prose/box/__init__.py"], texts.get("builtin:stdlib/source/box/__init__.py")
    assert prose.startswith("box\nModule text") and "Box\nA box." in prose and "Return the weight." in prose
    assert source is None  # what is left of it is short
    assert set(texts) == {
        "builtin:stdlib/prose/box/__init__.py",
        "builtin:stdlib/prose/surrogate.py",
        "builtin:stdlib/source/latin.py",
    }


def test_source_without_docstrings_still_parses(library):
    path = library / "box" / "__init__.py"
    path.write_text(path.read_text(encoding="utf-8") + "size = 1\n" * 40, encoding="utf-8")
    source = {d.source: d.text for d in stdlib_documents(folder=library)}["builtin:stdlib/source/box/__init__.py"]
    names = [getattr(node, "name", None) for node in ast.parse(source).body]
    assert "Box" in names and "weigh" in names
    assert source.startswith("import os\n") and "    ...\n" in source
    assert "It says something" not in source and "shares its line" in source and "# grams" in source


def test_other_encodings_are_decoded_and_lone_surrogates_replaced(library):
    texts = {d.source: d.text for d in stdlib_documents(folder=library)}
    assert "café" in texts["builtin:stdlib/source/latin.py"]
    assert "lone ?" in texts["builtin:stdlib/prose/surrogate.py"]


@pytest.mark.parametrize("max_bytes", [0, 1, 300, 1000, 5000])
def test_size_is_never_exceeded_and_cut_at_a_line(library, max_bytes):
    everything = list(stdlib_documents(folder=library))
    total = sum(len(d.text.encode()) for d in everything)
    documents = list(stdlib_documents(max_bytes, folder=library))
    assert sum(len(d.text.encode()) for d in documents) <= max_bytes
    if max_bytes >= total:
        assert documents == everything
    for full, document in zip(everything, documents, strict=False):
        assert full.text.startswith(document.text) and document.text.endswith("\n")


def test_a_capped_running_library_comes_close_to_its_size():
    sizes = [len(d.text.encode()) for d in stdlib_documents(300_000)]
    assert 290_000 < sum(sizes) <= 300_000
    assert len(sizes) > 10


def test_a_library_without_sources_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"\.py sources in .* found none; this Python is frozen"):
        stdlib_documents(folder=tmp_path)
    with pytest.raises(DataError, match=r"found none at .*missing"):
        stdlib_documents(folder=tmp_path / "missing")
    (tmp_path / "python311.zip").write_bytes(b"PK")
    with pytest.raises(DataError):
        stdlib_documents(folder=tmp_path / "python311.zip")


def test_a_negative_size_is_refused():
    with pytest.raises(ConfigError, match="-1"):
        stdlib_documents(-1)
