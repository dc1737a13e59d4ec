"""Documents from every kind of input."""

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.base.errors import ConfigError, DataError
from inkstone.data.config import PrepareSettings
from inkstone.data.sources import ReadReport, allowed_bad, read_documents

TEXTS = ["hello world", "第二篇，有“引号”和,逗号", 'line one\nline two "quoted"', "tab\there"]
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


def texts_of(*inputs, **chosen):
    return [document.text for document in read_documents(inputs, PrepareSettings(**chosen))]


def csv_of(texts, delimiter):
    import csv

    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([["id", "text"], *enumerate(texts)])
    return stream.getvalue().encode()


def parquet_of(texts, kind=None):
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": range(len(texts)), "text": pa.array(texts, type=kind or pa.string())}), stream)
    return stream.getvalue()


FILES = {
    "a.jsonl": "\n".join(json.dumps({"text": t}) for t in TEXTS).encode(),
    "b.json": json.dumps([{"text": t} for t in TEXTS], indent=2).encode(),
    "c.jsonl": json.dumps(TEXTS).encode(),
    "d.csv": csv_of(TEXTS, ","),
    "e.tsv": csv_of(TEXTS, "\t"),
    "f.parquet": parquet_of(TEXTS),
    "g.txt": "\f".join(TEXTS).encode(),
    "h.md": "\f".join(TEXTS).encode("gb18030"),
    "i.ndjson": "\r\n".join(json.dumps(t) for t in TEXTS).encode("utf-16"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("pack", ["", ".gz", ".zst"])
def test_every_format_gives_the_same_documents(tmp_path, name, pack):
    if name.endswith("parquet") and pack:
        return
    packers = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    (tmp_path / (name + pack)).write_bytes(packers[pack](FILES[name]))
    assert texts_of(tmp_path / (name + pack)) == TEXTS
    assert texts_of(tmp_path) == TEXTS, "and so through its folder"


@pytest.mark.parametrize("kind", [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_string_type_of_parquet_is_read(tmp_path, kind):
    values = [t.encode() for t in TEXTS] if kind == pa.binary() else TEXTS
    (tmp_path / "a.parquet").write_bytes(parquet_of(values, kind))
    assert texts_of(tmp_path / "a.parquet") == TEXTS


@pytest.mark.parametrize("name", ["a.jsonl", "b.json", "g.txt"])
def test_stdin_is_read_in_any_of_its_formats(monkeypatch, name):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(FILES[name])))
    assert texts_of("-") == TEXTS


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=8), st.fixed_dictionaries({"text": st.text(max_size=8)})), max_size=6), st.integers(0, 2)
)
def test_a_json_array_is_read_as_json_reads_it(tmp_path_factory, records, indent):
    path = tmp_path_factory.mktemp("j") / "a.json"
    path.write_text(json.dumps(records, indent=indent or None, ensure_ascii=bool(indent)), "utf-8", "surrogatepass", newline="")
    assert texts_of(path, encoding="utf-8") == [record if isinstance(record, str) else record["text"] for record in records]


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": CHAT}, CHAT),
        ({"prompt": "u", "completion": "a"}, CHAT[1:]),
        ({"instruction": "u", "input": "", "output": "a"}, CHAT[1:]),
        ({"instruction": "u", "output": "a"}, CHAT[1:]),
        ({"instruction": "x", "input": "y", "output": "a"}, [{"role": "user", "content": "x\ny"}, CHAT[2]]),
    ],
)
def test_chats_are_known_by_their_fields(tmp_path, record, messages):
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    (document,) = read_documents([tmp_path / "a.jsonl"])
    assert list(document.messages) == messages


def test_chats_are_read_from_parquet_too(tmp_path):
    pq.write_table(pa.table({"messages": [CHAT]}), tmp_path / "a.parquet")
    (document,) = read_documents([tmp_path / "a.parquet"])
    assert list(document.messages) == CHAT


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "expected a list of at least one message, found none"),
        ([{"role": "tool", "content": "x"}], r"messages\[0\].role: expected one of system, user, assistant, found 'tool'"),
        (CHAT[1:2], "no turn of the assistant"),
        (CHAT[2:], r"messages\[0\].role: expected 'user', found 'assistant'"),
        ([*CHAT[1:], CHAT[2]], r"messages\[2\].role: expected 'user'"),
        ([CHAT[1], {"role": "assistant", "content": None}], r"messages\[1\].content: expected a string, found null"),
        ([CHAT[1], {"role": "assistant", "content": "", "tool_calls": [1]}], "tool calls are not supported"),
        ([*CHAT[1:], CHAT[0]], r"messages\[2\].role: 'system' is allowed only at the beginning"),
        (["hi"], r"messages\[0\]: expected an object with role and content, found a string"),
    ],
)
def test_a_broken_chat_is_named_by_line_and_path(tmp_path, messages, message):
    (tmp_path / "a.jsonl").write_text("\n" + json.dumps({"messages": messages}))
    with pytest.raises(DataError, match=r"a.jsonl:2: .*" + message):
        texts_of(tmp_path / "a.jsonl")


def test_folders_are_walked_in_order_without_hidden_files_and_descriptions(tmp_path):
    for name, text in {"b/2.txt": "2", "a/1.txt": "1", "c.txt": "0", ".hidden/x.txt": "h", "d.bin": "b", ".e.txt": "e"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "meta.json").write_text('{"licence": "?"}')
    assert texts_of(tmp_path) == ["0", "1", "2"]


def test_an_input_named_twice_is_read_once(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert texts_of(tmp_path / "a.txt", tmp_path, str(tmp_path / "a.txt")) == ["a"]
    assert "read only once" in capsys.readouterr().err


def test_a_symbolic_link_loop_ends(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert texts_of(tmp_path) == ["a"]
    assert "back to a folder already read" in capsys.readouterr().err
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(DataError, match="symbolic links"):
        texts_of(tmp_path / "self")


def test_strange_file_names_are_shown_escaped(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/new\nline \xff.jsonl")).write_text("{")
    with pytest.raises(DataError) as caught:
        texts_of(tmp_path)
    assert r"new\nline \xff.jsonl:1:" in str(caught.value) and "\n" not in str(caught.value)


def test_broken_records_are_skipped_counted_and_bounded(tmp_path):
    path, report = tmp_path / "a.jsonl", ReadReport()
    path.write_text("\n".join(["{broken", '{"text": 1}', '{"body": "x"}', *['{"text": "ok"}'] * 60]))
    documents = list(read_documents([path], PrepareSettings(on_bad_line="skip"), report=report))
    assert len(documents) == 60 and report.dropped == {"bad record": 3} and report.documents == 63
    assert "a.jsonl:1:2: not valid JSON" in report.samples["bad record"][0]
    with pytest.raises(DataError, match=r"3 of 63 records are bad, more than may be skipped; the first: .*a.jsonl:1:2"):
        texts_of(path, on_bad_line="skip", max_bad_share=0)


@pytest.mark.parametrize(("records", "allowed"), [(3, 1), (60, 6), (5000, 10), (100_000, 100)])
def test_how_many_records_may_be_bad(records, allowed):
    assert allowed_bad(records, 0.001) == allowed


def test_a_long_text_is_cut_at_paragraphs(tmp_path):
    paragraph = "word " * 30 + "\n\n"
    (tmp_path / "a.txt").write_text(paragraph * 20)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": paragraph * 20}))
    for name in ("a.txt", "b.jsonl"):
        texts = texts_of(tmp_path / name, max_document_chars=1000)
        assert "".join(texts) == paragraph * 20 and all(len(t) <= 1000 and t.endswith("\n\n") for t in texts)


@pytest.mark.parametrize("name", ["builtin:microworld=20k", "builtin:stdlib=20k"])
def test_built_in_corpora_have_the_size_asked_for(name):
    texts = texts_of(name)
    assert 10_000 < sum(len(t.encode()) for t in texts) < 40_000


def test_an_unknown_built_in_names_those_there_are():
    with pytest.raises(ConfigError, match="did you mean 'microworld'"):
        texts_of("builtin:microwrld")
    with pytest.raises(ConfigError, match="expected a count"):
        texts_of("builtin:stdlib=big")


def test_memory_stays_bounded_while_a_large_array_is_read(tmp_path):
    import tracemalloc

    record = json.dumps({"text": "x" * 1000})
    with (tmp_path / "a.json").open("w") as stream:
        stream.write("[" + ",\n".join([record] * 30_000) + "]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_documents([tmp_path / "a.json"])) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()
