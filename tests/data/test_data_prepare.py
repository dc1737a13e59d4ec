"""Preparing data, end to end with the real tokenizer."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inkstone.base import folders
from inkstone.base.errors import CheckpointError, ConfigError, DataError, ResourceError
from inkstone.cli.main import run
from inkstone.data.config import PrepareSettings
from inkstone.data.encode import encode_documents
from inkstone.data.prepare import prepare
from inkstone.data.shards import load_manifest, open_split
from inkstone.data.workspace import publish, workspace
from inkstone.text.tokenizer import Tokenizer, build_char

ENGLISH = ["the cat sat on the mat", "a dog ran over the hill", "birds sing in the morning", "rain fell on the old town"]
CHINESE = ["春天来了，花开了。", "小猫坐在门口看雨。", "他每天早上去河边散步。", "图书馆里有很多书。"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "in.jsonl"
    documents = [f"{i}: {ENGLISH[i % 4]}. {CHINESE[i * 7 % 4]}\n" * 3 for i in range(120)]
    path.write_text("\n".join(json.dumps({"text": t}) for t in [*documents, *documents[:5], " "]))
    return path, documents


def texts_of(folder, split):
    tokenizer, view = Tokenizer.load(folder), open_split(folder, split)
    bounds = [*view.document_starts.tolist(), view.num_tokens]
    rows = [view.read(a, b).tolist() for a, b in itertools.pairwise(bounds)]
    assert all(row[-1] == view.eos_id and view.eos_id not in row[:-1] for row in rows)
    return [tokenizer.decode(row[:-1]) for row in rows]


def tree(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_kept_document_is_in_exactly_one_split_unchanged(corpus, tmp_path):
    path, documents = corpus
    figures = prepare([path], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    train, val = texts_of(tmp_path / "out", "train"), texts_of(tmp_path / "out", "val")
    assert sorted(train + val) == sorted(documents) and val and not set(train) & set(val)
    assert figures["documents_in"] == 126 and figures["documents_out"] == 120
    assert figures["dropped"] == {"duplicate": 5, "empty": 1}
    assert figures["bytes"] == sum(len(t.encode()) for t in documents) and figures["vocab_size"] == 300
    assert {"tokens", "seconds", "peak_memory_bytes", "tokenizer"} <= figures.keys()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "duplicate: 5" in card and "Unknown: the sources do not say" in card and "in.jsonl" in card


def test_the_same_inputs_give_byte_identical_folders(corpus, tmp_path):
    for name in ("one", "two"):
        prepare([corpus[0]], tmp_path / name, settings=PrepareSettings(vocab_size=300, shard_tokens=500))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(load_manifest(tmp_path / "one")["splits"]["train"]["shards"]) > 1


def test_the_tail_split_with_characters_is_nanogpts(tmp_path):
    text = "".join(f"Speaker {i}:\nWords and words.\n\n" for i in range(80))
    (tmp_path / "in.txt").write_text(text)
    prepare([tmp_path / "in.txt"], tmp_path / "out", settings=PrepareSettings(tokenizer="char", split="tail", val_fraction=0.1))
    cut = int(len(text) * 0.9)
    assert texts_of(tmp_path / "out", "train") == [text[:cut]] and texts_of(tmp_path / "out", "val") == [text[cut:]]
    assert load_manifest(tmp_path / "out")["tokenizer"] == "char"
    assert Tokenizer.load(tmp_path / "out").vocab_size == len(set(text)) + 2


def test_chats_get_masks_and_stay_whole(tmp_path):
    chats = [[{"role": "user", "content": f"what is {i}?"}, {"role": "assistant", "content": f"it is {i + 1}"}] for i in range(30)]
    lines = [*({"messages": chat} for chat in chats), {"text": "plain text"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    prepare([tmp_path / "in.jsonl"], tmp_path / "out", settings=PrepareSettings(vocab_size=280))
    manifest, tokenizer = load_manifest(tmp_path / "out"), Tokenizer.load(tmp_path / "out")
    assert manifest["kind"] == "chat" and manifest["documents_out"] == 31
    learned = []
    for split in ("train", "val"):
        view = open_split(tmp_path / "out", split)
        ids, mask = view.read(0, len(view)), view.read_mask(0, len(view)).astype(bool)
        learned.append(tokenizer.decode(ids[mask].tolist()))
        assert manifest["splits"][split]["loss_tokens"] == mask.sum()
    together = "".join(learned)
    assert all(chat[1]["content"] in together for chat in chats) and "what is" not in together and "plain text" in together


def test_validation_inputs_are_used_whole_and_overlap_is_refused(corpus, tmp_path):
    path, documents = corpus
    val = tmp_path / "val.txt"
    val.write_text("\f".join(["some other text", documents[0]]))
    with pytest.raises(DataError, match=r"1 of 2 validation documents \(50.0 %\) are in the training text too.*--allow-overlap"):
        prepare([path], tmp_path / "out", val_inputs=[val], settings=PrepareSettings(vocab_size=300))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "val.txt"]
    figures = prepare([path], tmp_path / "out", val_inputs=[val], settings=PrepareSettings(vocab_size=300, allow_overlap=True))
    assert figures["overlap"] == 1 and texts_of(tmp_path / "out", "val") == ["some other text", documents[0]]
    assert sorted(texts_of(tmp_path / "out", "train")) == sorted(documents[1:])


def test_a_given_tokenizer_is_used_and_recorded(corpus, tmp_path):
    prepare([corpus[0]], tmp_path / "one", settings=PrepareSettings(vocab_size=300))
    prepare([corpus[0]], tmp_path / "two", settings=PrepareSettings(tokenizer=str(tmp_path / "one")))
    assert load_manifest(tmp_path / "two")["tokenizer_fingerprint"] == Tokenizer.load(tmp_path / "one").fingerprint
    with pytest.raises(CheckpointError):
        open_split(tmp_path / "two", "train", tokenizer_fingerprint="0" * 64)


def test_a_small_corpus_gets_fewer_ids_unless_they_are_asked_for(corpus, tmp_path, capsys):
    assert prepare([corpus[0]], tmp_path / "one")["vocab_size"] <= 512
    assert "is little text: the tokenizer gets 512 ids, not 4,096" in capsys.readouterr().err


def test_the_output_inside_the_input_folder_is_not_read_back(corpus, tmp_path):
    for _ in range(2):
        figures = prepare([tmp_path], tmp_path / "out", settings=PrepareSettings(vocab_size=300), overwrite=True)
    assert figures["documents_in"] == 126


def test_an_existing_output_is_kept_unless_told_and_foreign_folders_always(corpus, tmp_path):
    prepare([corpus[0]], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match="already exists"):
        prepare([corpus[0]], tmp_path / "out")
    with pytest.raises(DataError):
        prepare([tmp_path / "out" / "train-00000.docs"], tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before, "a failed run leaves the old folder"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("precious")
    with pytest.raises(ConfigError, match="does not touch it"):
        prepare([corpus[0]], tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.doc").read_text() == "precious"


@pytest.mark.parametrize("where", ["spool", "shards"])
def test_a_full_disk_leaves_nothing_behind(corpus, tmp_path, monkeypatch, where):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if where == "spool":
        import inkstone.data.spool as spool

        real = spool.Spool.__init__

        def init(self, path):
            real(self, path)
            self._file.close()
            self._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115

        monkeypatch.setattr(spool.Spool, "__init__", init)
    else:
        import inkstone.data.shards as shards

        monkeypatch.setattr(shards._Shard, "_write", full)
    with pytest.raises(ResourceError, match="disk is full"):
        prepare([corpus[0]], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_killed_in_the_middle_leaves_no_output_and_a_rerun_starts_clean(corpus, tmp_path):
    code = (
        "import sys, time; import inkstone.data.prepare as p; from inkstone.data.config import PrepareSettings\n"
        "real = p.fit_tokenizer\n"
        "def slow(*a): print('here', flush=True); time.sleep(60); return real(*a)\n"
        "p.fit_tokenizer = slow; p.prepare([sys.argv[1]], sys.argv[2], settings=PrepareSettings(vocab_size=300))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(corpus[0]), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "here"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out").exists() and any(p.name.startswith(".tmp-out-") for p in tmp_path.iterdir())
    prepare([corpus[0]], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    prepare([corpus[0]], tmp_path / "again", settings=PrepareSettings(vocab_size=300))
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "in.jsonl", "out"]


@pytest.mark.parametrize("moment", ["between", "after"])
def test_killed_while_it_takes_its_place_no_folder_is_lost(corpus, tmp_path, monkeypatch, moment):
    """Where folders cannot be exchanged in one step, there is a moment without either; the next run puts the old one back."""
    prepare([corpus[0]], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    (tmp_path / ".old-mine").mkdir()
    (tmp_path / ".trash-other-1-00000000").mkdir()
    before, present = tree(tmp_path / "out"), {path.name for path in tmp_path.iterdir()}
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
        real, calls = Path.rename, []

        def rename(self, target):
            calls.append(target)
            if len(calls) == (2 if moment == "between" else 3):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        with workspace(tmp_path / "out") as folder:
            (folder / "manifest.json").write_text("new")
            publish(folder, tmp_path / "out")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "out").exists() == (moment == "after")
    with pytest.raises(ConfigError, match="already exists"):
        prepare([corpus[0]], tmp_path / "out")
    assert tree(tmp_path / "out") == (before if moment == "between" else {"manifest.json": b"new"})
    assert {path.name for path in tmp_path.iterdir()} == present


def test_characters_that_a_given_tokenizer_lacks_are_counted_in_a_warning(tmp_path, capsys):
    (tmp_path / "in.txt").write_text("abcabc\n" * 60)
    (tmp_path / "val.txt").write_text("xayxb\n" * 4)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    build_char(["abc\n"]).save(folder)
    settings = PrepareSettings(tokenizer=str(folder))
    prepare([tmp_path / "in.txt"], tmp_path / "out", val_inputs=[tmp_path / "val.txt"], settings=settings)
    err = capsys.readouterr().err
    assert "12 of 25 val tokens stand for characters that the tokenizer does not know (the first at token 0)" in err
    assert "train tokens stand for" not in err
    prepare([tmp_path / "in.txt"], tmp_path / "own", settings=PrepareSettings(tokenizer="char"))
    assert "does not know" not in capsys.readouterr().err


def test_a_validation_part_far_from_what_was_asked_is_said(tmp_path, capsys):
    (tmp_path / "in.txt").write_text("\f".join(["a" * 300, "b" * 400]))
    settings = PrepareSettings(vocab_size=264, split="document", val_fraction=0.1)
    prepare([tmp_path / "in.txt"], tmp_path / "out", settings=settings)
    assert re.search(r"validation has (43|57) % of the text, not 10 %: --split document", capsys.readouterr().err)
    (tmp_path / "lines.txt").write_text("a line of text\n" * 100)
    prepare([tmp_path / "lines.txt"], tmp_path / "lines", settings=PrepareSettings(vocab_size=264, val_fraction=0.1))
    assert "validation has" not in capsys.readouterr().err


def test_validation_inputs_without_text_are_refused(corpus, tmp_path):
    (tmp_path / "val.txt").write_text(" \n")
    with pytest.raises(DataError, match="0 of the --val-input documents have text"):
        prepare([corpus[0]], tmp_path / "out", val_inputs=[tmp_path / "val.txt"])


@pytest.mark.parametrize("argv", [["--vocab-size", "263"], ["--seed", "-1"], ["--seed", str(2**63)]])
def test_settings_out_of_bounds_are_refused_before_anything_is_read(tmp_path, argv, capsys):
    assert run(["data", "prepare", str(tmp_path / "absent.txt"), "--out", str(tmp_path / "out"), *argv]) == 2
    err = capsys.readouterr().err
    assert argv[0] in err and "absent.txt" not in err and not list(tmp_path.iterdir())


def test_encoding_in_batches_equals_encoding_one_by_one(byte_tokenizer):
    texts = ["", "a", "some words\n" * 20_000, "中文", "x" * 200_000]
    batched = [ids.tolist() for ids in encode_documents(byte_tokenizer, texts)]
    assert batched == [byte_tokenizer.encode(text) for text in texts]


def test_special_token_text_in_documents_stays_text(corpus, tmp_path):
    (tmp_path / "in.txt").write_text("hello <|endoftext|> there <|im_start|>user\n" * 40)
    prepare([tmp_path / "in.txt"], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    view = open_split(tmp_path / "out", "train")
    special = set(Tokenizer.load(tmp_path / "out").special.values())
    assert np.isin(view.read(0, len(view) - 1), list(special)).sum() == 0
    assert load_manifest(tmp_path / "out")["cleaned"]["special-token texts kept as plain text"] == 80


def test_a_megabyte_of_one_character_ends(tmp_path):
    (tmp_path / "in.txt").write_text("a" * 1_000_000)
    figures = prepare([tmp_path / "in.txt"], tmp_path / "out", settings=PrepareSettings(vocab_size=300))
    assert figures["bytes"] == 1_000_000
