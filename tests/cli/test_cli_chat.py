"""`inkstone chat`: the terminal loop (rows P15, C18, C19), its commands, and one answer for a pipe."""

import io
import json
import os
import pty
import subprocess
import sys
import time

import pytest
import torch

from inkstone.api import Model, load
from inkstone.checkpoint.model_folder import save_model
from inkstone.cli import terminal
from inkstone.cli.chat import talk
from inkstone.cli.chat_session import ChatSession
from inkstone.cli.main import run
from inkstone.infer.config import SamplingSettings
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)
BRIEF = SamplingSettings(max_tokens=6, seed=1)


def save_tiny(folder, tokenizer, generation=None):
    shape = {"num_layers": 1, "num_heads": 2, "width": 32, "context": 96, "vocab_size": tokenizer.vocab_size}
    save_model(folder, Transformer(ModelConfig(**shape), seed=3), tokenizer, generation)
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("chat") / "final", train_bpe(["hello 你好"], 270), {"chat": True})


@pytest.fixture(scope="module")
def model(model_folder) -> Model:
    return load(model_folder)


@pytest.fixture
def converse(model, monkeypatch, capsys):
    """Return a function that types lines (an exception is raised instead) and returns (session, stdout, stderr)."""

    def converse(*lines, settings=BRIEF, pasted=()):
        waiting = list(lines)

        def read(prompt=""):
            if not waiting:
                raise EOFError
            line = waiting.pop(0)
            if isinstance(line, type):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr(terminal, "_is_pasting", lambda: bool(waiting) and waiting[0] in pasted)
        session = ChatSession(model, settings)
        figures = talk(session)
        assert figures == {"messages": len(session.messages)}
        out, err = capsys.readouterr()
        return session, out, err

    return converse


def said(session, role="user"):
    return [message["content"] for message in session.messages if message["role"] == role]


def test_a_conversation_goes_back_and_forth_until_ctrl_d(converse, model):
    session, out, _ = converse("你好", "", "hello")
    assert said(session) == ["你好", "hello"]
    assert out == "".join(f"{text}\n" for text in said(session, "assistant"))
    assert said(session, "assistant")[0] == model.chat([{"role": "user", "content": "你好"}], max_tokens=6, seed=1).text


def test_bye_leaves_and_ctrl_c_at_the_prompt_does_not(converse):
    session, _, err = converse(KeyboardInterrupt, "hello", "/bye", "never read")
    assert said(session) == ["hello"]
    assert "/bye leaves" in err


def test_clear_forgets_and_help_lists_and_unknown_commands_are_explained(converse):
    session, _, err = converse("hello", "/clear", "/help", "/celar")
    assert session.messages == []
    assert all(command in err for command in ("/set", "/save", '"""'))
    assert "unknown command '/celar'; did you mean '/clear'?" in err


def test_set_changes_a_setting_and_refuses_what_is_out_of_bounds(converse):
    session, _, err = converse(
        "/set max-tokens 2", "/set temperature 7", "/set stop 。", "/set seed none", "/set top_q 1", "/set temperature"
    )
    assert (session.settings.max_tokens, session.settings.temperature, session.settings.stop) == (2, BRIEF.temperature, ["。"])
    assert session.settings.seed is None
    assert "temperature: " in err and "did you mean 'top_p'" in err and "expected /set NAME VALUE" in err


def test_lines_between_triple_quotes_are_one_message(converse):
    session, _, _ = converse('"""one', "/bye", '三"""', '"""four"""')
    assert said(session) == ["one\n/bye\n三", "four"]


def test_pasted_lines_are_one_message_and_a_command_after_them_is_a_command(converse):
    session, _, _ = converse("a", "b", "c", "/bye", "d", pasted=("b", "c", "/bye"))
    assert said(session) == ["a\nb\nc"]


def test_save_writes_the_messages_and_keeps_what_stands_there(converse, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text("mine")
    path = tmp_path / "my chat.jsonl"
    session, _, err = converse("你好", f"/save {path}", "hello", f"/save {path}", f"/save {other}", "/save", f"/save {other}/below")
    assert json.loads(path.read_text()) == {"messages": session.messages}
    assert len(session.messages) == 4
    assert other.read_text() == "mine"
    assert "exists already" in err and "expected /save FILE" in err and f"cannot write {other}/below" in err


def test_ctrl_c_stops_the_answer_only_and_keeps_what_was_said(converse, model, monkeypatch):
    shown = []

    def show(self, piece):
        shown.append(piece)
        if len(shown) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ChatSession, "_show", show)
    session, _, err = converse("hello", "again", settings=SamplingSettings(max_tokens=20, seed=4, temperature=1.5))
    assert said(session) == ["hello", "again"]
    assert said(session, "assistant")[0] == "".join(shown[:2])
    assert "[stopped]" in err


def test_the_oldest_turns_are_left_out_with_a_note_and_a_message_that_never_fits_is_refused(converse):
    session, _, err = converse("0!" * 12, "1!" * 12, "2!" * 12, "x!" * 60, "3!")
    assert "oldest 2 messages are left out" in err
    assert "take 1" in err and "shorten it" in err
    assert said(session) == ["0!" * 12, "1!" * 12, "2!" * 12, "3!"]


def give_stdin(monkeypatch, content: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_piped_stdin_gets_one_answer_on_stdout(model_folder, model, monkeypatch, capsys):
    give_stdin(monkeypatch, "你好\nhello\n".encode())
    assert run(["chat", str(model_folder), "--max-tokens", "5", "--seed", "3"]) == 0
    expected = model.chat([{"role": "user", "content": "你好\nhello"}], max_tokens=5, seed=3)
    assert capsys.readouterr().out == expected.text + "\n"
    give_stdin(monkeypatch, b"hi")
    assert run(["chat", str(model_folder), "--max-tokens", "5", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 5


def test_empty_stdin_is_not_an_error(model_folder, monkeypatch, capsys):
    give_stdin(monkeypatch, b"\n")
    assert run(["chat", str(model_folder)]) == 0
    assert capsys.readouterr().out == ""


def test_a_base_model_is_warned_about_and_a_character_model_refused(tmp_path, monkeypatch, capsys):
    base = save_tiny(tmp_path / "base", train_bpe(["hello"], 270))
    give_stdin(monkeypatch, b"hi")
    assert run(["chat", str(base), "--max-tokens", "3"]) == 0
    assert "not tuned for conversations" in capsys.readouterr().err
    characters = save_tiny(tmp_path / "characters", build_char(["hello there"]))
    give_stdin(monkeypatch, b"hi")
    assert run(["chat", str(characters)]) == 2
    assert "chat needs a tokenizer with <|im_start|>" in capsys.readouterr().err


BARE = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TERM": "dumb", "OMP_NUM_THREADS": "1"}


def test_a_real_terminal_without_locale_or_escape_codes(model_folder):
    command = [sys.executable, "-m", "inkstone", "chat", str(model_folder), "--max-tokens", "4", "--seed", "1"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=BARE, close_fds=True) as process:
        os.close(theirs)
        seen = _read_until(ours, b">>> ")
        os.write(ours, "你好\n".encode())
        seen += _read_until(ours, b">>> ")
        os.write(ours, b"\x04")
        seen += _read_until(ours, None)
        assert process.wait(30) == 0
    os.close(ours)
    assert b"\x1b" not in seen
    assert "你好".encode() in seen and b"Traceback" not in seen


def test_a_closed_pipe_behind_it_is_no_error(model_folder):
    command = [
        sys.executable,
        "-m",
        "inkstone",
        "generate",
        str(model_folder),
        "--prompt",
        "砚",
        "--max-tokens",
        "60",
        "--temperature",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=BARE) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, b"Traceback" in error, b"error" in error) == (0, False, False)


def _read_until(descriptor: int, end: bytes | None) -> bytes:
    """Return what the terminal shows up to `end`, or up to its closing."""
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline and not (end and seen.endswith(end)):
        try:
            piece = os.read(descriptor, 4096)
        except OSError:  # the other side has closed
            break
        if not piece:
            break
        seen += piece
    return seen
