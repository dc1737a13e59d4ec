"""`inkstone VERB …`: find the verb, read its flags, run it, and turn whatever happens into a line and an exit code."""

import argparse
import contextlib
import importlib
import json
import keyword
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from inkstone.base.errors import ConfigError, InkstoneError
from inkstone.base.family import nearest
from inkstone.base.log import say

VERBS: dict[str, str] = {
    "quickstart": "raw text to tokenizer, pretrained GPT, chat model, figures and one HTML page",
    "data prepare": "clean, dedup, split and tokenize text into shards",
    "data show": "what is in a prepared data folder, and what was dropped and why",
    "tokenizer train": "train a tokenizer on text",
    "tokenizer report": "bytes per token by language",
    "plan": "parameters, memory, FLOPs and time before anything starts",
    "pretrain": "train a model on a prepared data folder",
    "evaluate": "perplexity, accuracy and bits per byte, with baselines",
    "generate": "continue a prompt",
    "chat": "talk with a model in the terminal",
    "serve": "an OpenAI-compatible API and a web page for trained models",
    "quantize": "weights in int8 or int4, and what that costs in quality",
    "export": "a model for other programs: a Hugging Face folder or a GGUF file",
    "import": "a Hugging Face-style folder as a run",
    "report": "one HTML page about one or several runs",
    "runs": "the runs below a folder, a line each",
    "bench": "this machine's figures: training, decoding, serving, tokenizing",
    "doctor": "versions, devices, what is fast here, what is wrong and what to do",
}
_GROUPS = {verb.split()[0] for verb in VERBS if " " in verb}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the house's exit codes."""
    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def run(argv: list[str]) -> int:
    """Return the exit code of one command line."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return _dispatch_and_flush(argv)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception as error:  # the one place where a bug becomes an exit code
        return _fail(error, debug="--debug" in argv)


def _dispatch_and_flush(argv: list[str]) -> int:
    """Return the exit code once all of stdout is written, so that a reader that went away is noticed here, after --help too."""
    try:
        return _dispatch(argv)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"inkstone {version('inkstone')}")
        return 0
    verb, rest = _find_verb(argv)
    if verb is None:
        print(_overview(argv[0]))
        return 0
    command = importlib.import_module("inkstone.cli." + module_name(verb))
    root = command.settings_class()
    flags, rest = _split_settings(root, rest)
    parser = _parser(verb, command, root)
    args = parser.parse_args(rest)
    settings = None
    if root is not None:
        from inkstone.base.settings import resolve

        settings = resolve(root, recipe=args.config, flags=flags)
    figures = command.run(args, settings)
    if args.json:
        print(json.dumps(figures or {}, ensure_ascii=False, allow_nan=False))
    return 0


def module_name(verb: str) -> str:
    """Return the name of a verb's module in `inkstone.cli`; a Python keyword gets a `_` behind it."""
    name = verb.replace(" ", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _find_verb(argv: list[str]) -> tuple[str | None, list[str]]:
    two = " ".join(argv[:2])
    if two in VERBS:
        return two, argv[2:]
    if argv[0] in VERBS:
        return argv[0], argv[1:]
    if argv[0] in _GROUPS:
        if len(argv) > 1 and argv[1] in ("-h", "--help"):
            return None, []
        choices = [verb.split()[1] for verb in VERBS if verb.startswith(argv[0] + " ")]
        given = f"unknown command '{two}'" if len(argv) > 1 else f"'{argv[0]}' needs a command after it"
        raise ConfigError(f"{given}{nearest(argv[1], choices) if len(argv) > 1 else ''} (one of: {', '.join(choices)})")
    raise ConfigError(f"unknown command '{argv[0]}'{nearest(argv[0], [*VERBS, *_GROUPS])} (see inkstone --help)")


def _split_settings(root: Any, tokens: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (`--section.key value` pairs, the other tokens); `_` and `-` are alike in flag names."""
    names: set[str] = set()
    if root is not None:
        from inkstone.base.settings import field_rows

        names = {row[0] for row in field_rows(root)}
    flags, rest = [], []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        i += 1
        if token == "--":
            rest += [token, *tokens[i:]]
            break
        if not token.startswith("--"):
            rest.append(token)
            continue
        name, has_value, value = token[2:].partition("=")
        name = name.replace("_", "-")
        if root is not None and ("." in name or name in names):
            if not has_value:
                value = "true"
                if i < len(tokens) and not tokens[i].startswith("--"):
                    value = tokens[i]
                    i += 1
            flags.append((name, value))
        else:
            rest.append(f"--{name}{has_value}{value}")
    return flags, rest


class _Parser(argparse.ArgumentParser):
    settings_flags: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        known = [*(option for action in self._actions for option in action.option_strings), *self.settings_flags]
        unknown = message.removeprefix("unrecognized arguments: ").split()[0] if message.startswith("unrecognized") else ""
        raise ConfigError(f"{message}{nearest(unknown, known) if unknown else ''} (see {self.prog} --help)")


def _parser(verb: str, command: Any, root: Any) -> _Parser:
    parser = _Parser(
        prog=f"inkstone {verb}", description=VERBS[verb][0].upper() + VERBS[verb][1:] + ".", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_settings_help(root),
    )  # fmt: skip
    command.add_arguments(parser)
    if root is not None:
        from inkstone.base.settings import field_rows

        parser.settings_flags = [f"--{row[0]}" for row in field_rows(root)]
        parser.add_argument("--config", type=Path, metavar="FILE.toml", help="a recipe; flags lie on top of it")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of stdout")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _settings_help(root: Any) -> str:
    if root is None:
        return ""
    from inkstone.base.settings import field_rows

    lines = ["settings (also in the recipe, as [section] key = value):"]
    for flag, kind, default, text in field_rows(root):
        lines.append(f"  --{flag} {kind}".ljust(44) + f" {text}" + (f" [{default}]" if default else ""))
    return "\n".join(lines)


def _overview(group: str = "") -> str:
    lines = ["inkstone: from raw text to a GPT of your own", "", "usage: inkstone VERB … (inkstone VERB --help says more)", ""]
    lines += [f"  {verb:<18} {text}" for verb, text in VERBS.items() if verb.startswith(group)]
    return "\n".join(lines)


def _fail(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    if isinstance(error, InkstoneError):
        for line in str(error).splitlines():
            say(f"error: {line}")
        return error.exit_code
    if _is_out_of_memory(error):
        say("error: out of memory — use a smaller batch, context or model")
        return 5
    if not debug:
        say(f"error: unexpected {type(error).__name__}: {error} — this is a bug; run again with --debug and report it")
    return 1


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, of the machine or of a device; torch says it in several ways, and is not imported for this."""
    if isinstance(error, MemoryError) or "OutOfMemoryError" in (kind.__name__ for kind in type(error).__mro__):
        return True
    words = ("not enough memory", "DefaultCPUAllocator", "CUDA error: out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
