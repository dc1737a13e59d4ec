"""The command line itself: verbs, help without torch, flags however they are spelled, and streams that close early."""

import json
import os
import subprocess
import sys

import pytest

from inkstone.base import errors
from inkstone.base.settings import Settings, setting
from inkstone.cli import main

PLAIN = {**os.environ, "NO_COLOR": "1"}


def inkstone(*argv, env=None, **how):
    """Run the command in a process of its own."""
    how = {"capture_output": True, "text": True, "encoding": "utf-8"} | how
    return subprocess.run([sys.executable, "-m", "inkstone", *argv], env=env or PLAIN, check=False, timeout=60, **how)


class Inner(Settings):
    """A section."""

    num_things: int = setting(1, "things")
    name: str = setting("", "name")


class Root(Settings):
    """Settings of the made-up verb."""

    inner: Inner = Inner()


@pytest.fixture
def verb(monkeypatch):
    """A made-up verb `try`; returns what to set as its work."""
    import types

    command = types.ModuleType("inkstone.cli.try_")
    seen = {}

    def run(args, settings):
        seen.update(args=args, settings=settings)
        return seen.get("work", lambda: {"answer": 1})()

    command.settings_class, command.run = (lambda: Root), run
    command.add_arguments = lambda parser: parser.add_argument("--out-folder") and parser.add_argument("words", nargs="*")
    monkeypatch.setitem(sys.modules, "inkstone.cli.try_", command)
    monkeypatch.setitem(main.VERBS, "try", "a made-up verb")
    return seen


# Verbs


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_the_overview_lists_every_verb(flag, capsys):
    assert main.run([flag]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and text in out for name, text in main.VERBS.items())


def test_no_command_is_a_usage_error_with_the_list(capsys):
    assert main.run([]) == 2
    assert "pretrain" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_the_packages(flag, capsys):
    from importlib.metadata import version

    assert main.run([flag]) == 0
    assert capsys.readouterr().out == f"inkstone {version('inkstone')}\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["pretain"], "unknown command 'pretain'; did you mean 'pretrain'?"),
        (["xyzzy"], "unknown command 'xyzzy' (see inkstone --help)"),
        (["data", "prepar"], "unknown command 'data prepar'; did you mean 'prepare'? (one of: prepare, show)"),
        (["data"], "'data' needs a command after it (one of: prepare, show)"),
        (["tokenizer"], "(one of: train, report)"),
        (["--data", "x"], "unknown command '--data'"),
        ([""], "unknown command ''"),
    ],
)
def test_an_unknown_verb_is_answered_with_the_nearest(argv, words, capsys):
    assert main.run(argv) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_groups_help_lists_its_verbs(capsys):
    assert main.run(["data", "--help"]) == 0
    out = capsys.readouterr().out
    assert "data prepare" in out
    assert "pretrain " not in out.split("usage:")[1].split("\n", 1)[1]


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory):
    """An environment in which importing torch fails."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "torch.py").write_text("raise ImportError('torch is broken here')\n")
    return PLAIN | {"PYTHONPATH": str(folder)}


def test_help_of_every_verb_works_where_torch_is_broken(no_torch):
    code = (
        "import sys, importlib.util\n"
        "from inkstone.cli.main import VERBS, module_name, run\n"
        "bad = []\n"
        "for verb in VERBS:\n"
        "    if importlib.util.find_spec('inkstone.cli.' + module_name(verb)) is None: continue\n"
        "    for flag in ('--help', '-h'):\n"
        "        if run([*verb.split(), flag]): bad.append(verb)\n"
        "assert run(['--version']) == 0 and run(['--help']) == 0\n"
        "sys.exit(str(bad) if bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=no_torch, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--optim.matrix-lr-factor" in done.stdout
    assert "usage: inkstone pretrain" in done.stdout


def test_a_verb_that_needs_torch_says_what_is_broken_there(no_torch, tmp_path):
    done = inkstone("generate", str(tmp_path), "--prompt", "a", env=no_torch)
    assert done.returncode != 0
    assert "torch is broken here" in done.stderr
    assert "Traceback" not in done.stderr


# Flags


@pytest.mark.parametrize(
    "argv",
    [
        ["--inner.num-things", "5"], ["--inner.num_things", "5"], ["--inner.num-things=5"], ["--inner.num_things=5"],
        ["--inner.num-things", "4", "--inner.num_things", "5"],
    ],
)  # fmt: skip
def test_dash_and_underscore_are_alike_and_the_last_flag_wins(argv, verb):
    assert main.run(["try", *argv]) == 0
    assert verb["settings"].inner.num_things == 5


@pytest.mark.parametrize("flag", ["--out-folder", "--out_folder"])
def test_the_verbs_own_flags_are_spelled_either_way(flag, verb):
    for argv in ([flag, "a_b-c"], [f"{flag}=a_b-c"]):
        assert main.run(["try", *argv]) == 0
        assert verb["args"].out_folder == "a_b-c"


def test_a_value_may_hold_what_looks_like_a_flag(verb):
    assert main.run(["try", "--inner.name=--x=1", "--", "--inner.num-things", "7"]) == 0
    assert (verb["settings"].inner.name, verb["args"].words) == ("--x=1", ["--inner.num-things", "7"])


def test_a_negative_number_is_a_value(verb):
    assert main.run(["try", "--inner.num-things", "-3"]) == 0
    assert verb["settings"].inner.num_things == -3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--inner.num-thing", "5"], "inner.num_thing: unknown setting (--inner.num-thing); did you mean 'num_things'?"),
        (["--out-foldr", "5"], "did you mean '--out-folder'?"),
        (["--num-things", "5"], "did you mean '--inner.num-things'?"),
        (["--inner.num-things"], "inner.num_things: expected a number, found True"),
        (["--inner.num-things", "--json"], "inner.num_things: expected a number, found True"),
        (["--out-folder"], "expected one argument"),
        (["--config", "none.toml"], "recipe none.toml is missing"),
    ],
)
def test_a_wrong_flag_is_named(argv, words, verb, capsys):
    assert main.run(["try", *argv]) == 2
    assert words in capsys.readouterr().err
    assert "settings" not in verb


def test_flags_lie_on_top_of_the_recipe(verb, tmp_path):
    (tmp_path / "a.toml").write_text("[inner]\nnum_things = 3\nname = 'x'\n")
    assert main.run(["try", "--inner.name", "y", "--config", str(tmp_path / "a.toml")]) == 0
    assert (verb["settings"].inner.num_things, verb["settings"].inner.name) == (3, "y")


def test_json_is_the_last_line_of_stdout(verb, capsys):
    verb["work"] = lambda: print("an answer") or {"text": "墨", "n": 1}
    assert main.run(["try", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"text": "墨", "n": 1}
    verb["work"] = lambda: None
    assert main.run(["try", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}


# Endings


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize("kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.InkstoneError)])
def test_an_expected_error_is_a_line_a_problem_and_its_exit_code(kind, verb, capsys):
    verb["work"] = raising(kind("one\ntwo"))
    assert main.run(["try"]) == kind.exit_code
    assert capsys.readouterr().err == "error: one\nerror: two\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyError("x"), 1, "this is a bug"),
        (MemoryError(), 5, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(130), 130, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_any_other_end_has_its_code_too(error, code, words, verb, capsys):
    verb["work"] = raising(error)
    assert main.run(["try"]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_a_traceback_shows_only_with_debug(verb, capsys):
    verb["work"] = raising(errors.DataError("x"))
    assert main.run(["try", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


# Streams


@pytest.mark.parametrize("argv", [["--help"], ["pretrain", "--help"], ["runs", "--help"], ["--version"], ["data"], ["runs"]])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_is_no_error(argv, stream, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    done = inkstone(*argv, capture_output=False, cwd=tmp_path, **{stream: writing, other: subprocess.PIPE})
    os.close(writing)
    assert done.returncode == (2 if argv == ["data"] else 0)
    assert "BrokenPipe" not in (done.stderr or "")


def test_head_takes_the_first_line():
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m inkstone pretrain --help | head -1", shell=True, executable="/bin/bash",
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: inkstone pretrain")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_error(closed, tmp_path):
    for argv, code in (("--version", 0), ("runs", 0), ("data", 2)):
        command = f"{sys.executable} -m inkstone {argv} {closed}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, (argv, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["pretrain", "--help"], ["pretrain", "--样子", "墨"], ["墨"]])
def test_an_ascii_locale_gets_no_unicode_error_and_no_colours(argv):
    env = {k: v for k, v in PLAIN.items() if not k.startswith("LC_")}
    env |= {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "dumb", "COLUMNS": "20"}
    done = inkstone(*argv, env=env, encoding="ascii", errors="surrogateescape")
    assert done.returncode == (0 if "--help" in argv else 2)
    assert "UnicodeEncodeError" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_the_parser_never_guesses_an_abbreviation(verb, capsys):
    assert main.run(["try", "--deb"]) == 2
    assert "did you mean '--debug'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("not enough memory: you tried to allocate 9 bytes."),
        "torch",
    ],
    ids=["python", "processor", "windows", "device"],
)
def test_memory_that_ran_out_is_one_line_with_advice(error, verb, capsys):
    if error == "torch":
        import torch

        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def work():
        raise error

    verb["work"] = work
    assert main.run(["try"]) == 5
    err = capsys.readouterr().err
    assert err == "error: out of memory — use a smaller batch, context or model\n"
