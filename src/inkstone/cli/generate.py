"""`inkstone generate RUN`: the text that a model puts behind a prompt, streamed to stdout."""

import argparse
import dataclasses
import sys
from typing import Any

from inkstone.base.log import say
from inkstone.base.settings import Settings
from inkstone.cli.loading import add_model_arguments, load_asked
from inkstone.cli.terminal import read_stdin
from inkstone.infer.config import SamplingSettings


def settings_class() -> type[Settings] | None:
    """Return the settings of one reply: they are this verb's flags."""
    return SamplingSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the prompt."""
    add_model_arguments(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="text to continue; without it, stdin (less one final line break)")


def run(args: argparse.Namespace, settings: SamplingSettings) -> dict[str, Any] | None:
    """Write the text to stdout as it comes, and figures to stderr; with --json return everything instead."""
    prompt = _read_prompt() if args.prompt is None else args.prompt
    model = load_asked(args)
    reply = model.reply(prompt, model.complete(settings))
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


def _read_prompt() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        say("type the prompt; Ctrl-D on a line of its own ends it")
    return read_stdin()
