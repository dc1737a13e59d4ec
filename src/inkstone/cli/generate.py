"""`inkstone generate RUN`: the text that a model puts behind a prompt, streamed to stdout."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError
from inkstone.base.log import say
from inkstone.base.settings import Settings
from inkstone.cli.loading import add_model_arguments, load_asked
from inkstone.cli.terminal import read_stdin
from inkstone.infer.config import SamplingSettings

_OF_BEAMS = {"max_tokens", "no_repeat_ngram"}


def settings_class() -> type[Settings] | None:
    """Return the settings of one reply: they are this verb's flags."""
    return SamplingSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the prompt, and what the text must look like."""
    add_model_arguments(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="text to continue; without it, stdin (less one final line break)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json-schema", type=Path, metavar="FILE", help="write JSON that satisfies this schema")
    form.add_argument("--regex", metavar="PATTERN", help="write a text that matches this as a whole")
    form.add_argument("--choice", action="append", metavar="TEXT", help="write one of these texts; given once for each")
    form.add_argument(
        "--beams", type=int, metavar="N", help="write the likeliest text that a search with N beams finds; draws nothing"
    )


def run(args: argparse.Namespace, settings: SamplingSettings) -> dict[str, Any] | None:
    """Write the text to stdout as it comes, and figures to stderr; with --json return everything instead."""
    prompt = _read_prompt() if args.prompt is None else args.prompt
    if args.beams is not None:
        return _search(args, prompt, settings)
    schema = None if args.json_schema is None else _read_schema(args.json_schema)
    model = load_asked(args)
    constraint = model.constraint(json_schema=schema, regex=args.regex, choice=args.choice)
    reply = model.reply(prompt, model.complete(settings), constraint)
    for piece in reply:
        if not args.json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    generation = reply.result()
    if args.json:
        return dataclasses.asdict(generation)
    sys.stdout.write("\n")
    say(
        f"[{generation.tokens} tokens after {generation.prompt_tokens}, {generation.tokens_per_second:.0f} tokens/s, "
        f"ended by {generation.finish_reason}, seed {generation.seed}]"
    )
    return None


def _search(args: argparse.Namespace, prompt: str, settings: SamplingSettings) -> dict[str, Any] | None:
    if unused := sorted(settings.model_fields_set - _OF_BEAMS):
        raise ConfigError(
            f"--beams: nothing is drawn, so there is no use for {', '.join(unused)} — leave {'it' if len(unused) == 1 else 'them'} out"
        )
    model = load_asked(args)
    chosen = model.complete(settings)
    (found,) = model.beam(prompt, num_beams=args.beams, max_tokens=chosen.max_tokens, no_repeat_ngram=chosen.no_repeat_ngram)
    if args.json:
        return dataclasses.asdict(found)
    sys.stdout.write(found.text + "\n")
    say(
        f"[{found.tokens} tokens, log-probability {found.logprob:.2f} nats, score {found.score:.3f}, ended by {found.finish_reason}]"
    )
    return None


def _read_schema(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--json-schema: cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--json-schema: {path}: expected JSON: {error}") from error


def _read_prompt() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        say("type the prompt; Ctrl-D on a line of its own ends it")
    return read_stdin()
