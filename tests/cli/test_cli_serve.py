"""`inkstone serve`: what is refused before anything is loaded, what is said at the start, and a real server that answers and ends."""

import contextlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys

import httpx
import pytest
import torch

from inkstone.checkpoint.model_folder import save_model
from inkstone.cli import serve
from inkstone.cli.main import run
from inkstone.infer.made_up import write_made_up_model
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.serve.config import ServeSettings
from inkstone.serve.logs import NAME
from inkstone.serve.server import bind
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
SHAPE = {"num_layers": 1, "num_heads": 2, "width": 64, "context": 64}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two model folders of one name: a text model, and a chat model in a place with a space."""
    root = tmp_path_factory.mktemp("serve")
    write_made_up_model(root / "a" / "tiny", ModelConfig(**SHAPE, vocab_size=300))
    tokenizer = train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)
    save_model(
        root / "b c" / "tiny", Transformer(ModelConfig(**SHAPE, vocab_size=tokenizer.vocab_size), seed=1), tokenizer, {"chat": True}
    )
    return root / "a" / "tiny", root / "b c" / "tiny"


@contextlib.contextmanager
def serving(*argv):
    """The command in a process of its own, once it is ready; yields it and the lines that it said."""
    command = [sys.executable, "-m", "inkstone", "serve", *map(str, argv), "--port", "0", "--parallel", "2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def logs_as_before():
    """The verb sends the process's logs to its stderr, which here is pytest's."""
    logs = [logging.getLogger(name) for name in (NAME, "uvicorn", "asyncio")]
    before = [(log, log.handlers, log.propagate, log.level) for log in logs]
    yield
    for log, handlers, propagate, level in before:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


def url_in(lines):
    return next(word for line in lines for word in line.split() if word.startswith("http://"))


def act_on(curl):
    """Do what the printed curl line does."""
    words = shlex.split(curl)
    assert words[0] == "curl"
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    return httpx.post(words[1], headers=headers, content=words[words.index("-d") + 1].encode(), timeout=60)


def test_a_server_says_what_it_serves_answers_and_ends_with_0(folders):
    with serving(*folders, "--json") as (process, lines):
        assert len(lines) <= 10
        said, url = "\n".join(lines), url_in(lines)
        assert (
            "tiny: text model, context 64 tokens, 2 slots, fp32" in said
            or "tiny: text model, context 64 tokens, 2 slots, bf16" in said
        )
        assert "tiny-2: chat model" in said
        assert [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]] == ["tiny", "tiny-2"]
        answer = act_on(next(line.strip() for line in lines if line.strip().startswith("curl ")))
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0
        asked = {"model": "tiny-2", "messages": [{"role": "user", "content": "墨"}], "max_tokens": 4}
        assert httpx.post(f"{url}/v1/chat/completions", json=asked).json()["object"] == "chat.completion"
        assert httpx.get(url).headers["content-type"].startswith("text/html")
        assert "inkstone_completion_tokens_total" in httpx.get(f"{url}/metrics").text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert json.loads(process.stdout.read().splitlines()[-1]) == {"url": url, "models": ["tiny", "tiny-2"]}
        assert "Traceback" not in process.stderr.read()


def test_precision_context_names_keys_and_no_page_are_as_asked(folders, tmp_path):
    (tmp_path / "keys").write_text("sk-from-the-file\n")
    flags = ["--name", "墨", "--precision", "int8", "--ctx-size", "32", "--no-ui", "--api-key-file", tmp_path / "keys"]
    with serving(folders[0], *flags) as (process, lines):
        url, said = url_in(lines), "\n".join(lines)
        assert "墨: text model, context 32 tokens, 2 slots, int8" in said and "web page" not in said
        assert "$KEY" in said and "sk-from-the-file" not in said
        assert httpx.get(f"{url}/v1/models").status_code == 401
        found = httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer sk-from-the-file"}).json()["data"]
        assert [(model["id"], model["context"]) for model in found] == [("墨", 32)]
        assert httpx.get(url).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "sk-from-the-file" not in process.stderr.read()


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Loading would take seconds: whatever is refused below is refused before."""
    monkeypatch.setitem(sys.modules, "inkstone.cli.served_models", None)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, "--api-key-file"),
        (["--host", "::"], 2, "--api-key-file"),
        (["--cors-origins", "*"], 2, "every web page"),
        (["--port", "70000"], 2, "port"),
        (["--precision", "fp8"], 2, "precision"),
        (["--parallel", "0"], 2, "parallel"),
        (["--timeout", "nan"], 2, "timeout"),
        (["--api-key", "two words"], 2, "api_key"),
        (["--api-key-file", "/nothing/here"], 2, "cannot be read"),
        (["--name", "../x"], 2, "name: expected letters"),
        (["--name", "a", "--name", "b"], 2, "2 names for 1 models"),
        (["--name", "a", "--name", "a"], 2, "same name"),
        (["--no-such-flag"], 2, "--no-such-flag"),
        (["--host", "192.0.2.1", "--api-key", "k", "--port", "0"], 5, "192.0.2.1"),
        (["--draft", "/nothing/here"], 4, "is no folder"),
    ],
)
@pytest.mark.usefixtures("nothing_is_loaded")
def test_what_is_wrong_is_said_before_anything_is_loaded(folders, flags, code, words, capsys):
    assert run(["serve", str(folders[0]), *flags]) == code
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines) and words in "\n".join(lines)
    assert "two words" not in "\n".join(lines)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_folder_that_is_not_there_is_a_checkpoint_error(tmp_path, capsys):
    assert run(["serve", str(tmp_path / "none"), str(tmp_path / "nor this")]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_port_in_use_is_exit_5_with_a_free_one(folders, capsys):
    with bind(ServeSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", str(folders[0]), "--port", str(port)]) == 5
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


def test_no_model_is_a_usage_error(capsys):
    assert run(["serve"]) == 2


@pytest.mark.parametrize(("flags", "words"), [(["--ctx-size", "65"], "context of 64 tokens, found 65")])
def test_a_model_that_does_not_fit_the_settings_ends_the_server(folders, flags, words, capsys):
    assert run(["serve", str(folders[0]), "--port", "0", "--no-ui", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_damaged_model_ends_the_server_with_4(folders, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{")
    assert run(["serve", str(tmp_path), "--port", "0", "--no-ui"]) == 4
    assert "error: " in capsys.readouterr().err


def test_help_needs_neither_torch_nor_the_web_framework():
    program = (
        "import sys\n"
        "from inkstone.cli.main import run\n"
        "assert run(['serve', '--help']) == 0\n"
        "print(sorted({'torch', 'starlette', 'uvicorn', 'h11', 'prometheus_client'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]" and "--api-key-file" in shown


def test_the_curl_line_survives_a_shell():
    line = serve.curl_line("http://127.0.0.1:1", "墨.1", is_chat=True, has_key=True)
    words = shlex.split(line)
    assert json.loads(words[-1])["messages"][0]["role"] == "user" and "Authorization: Bearer $KEY" in words
