"""`inkstone chat RUN`: a conversation in the terminal; with stdin from a pipe, one answer to stdout."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from inkstone.base.log import warn
from inkstone.base.settings import Settings
from inkstone.cli.loading import add_model_arguments, load_asked
from inkstone.cli.terminal import MessageReader, hint, read_stdin
from inkstone.infer.config import SamplingSettings

if TYPE_CHECKING:
    from inkstone.cli.chat_session import ChatSession


def settings_class() -> type[Settings] | None:
    """Return the settings of one reply: they are this verb's flags."""
    return SamplingSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and what a conversation begins with."""
    add_model_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the first message")
    parser.add_argument("--verbose", action="store_true", help="figures after each answer, on stderr")


def run(args: argparse.Namespace, settings: SamplingSettings) -> dict[str, Any] | None:
    """Talk until Ctrl-D or /bye; or answer what a pipe brings, once."""
    is_terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    message = "" if is_terminal else read_stdin().strip()
    from inkstone.cli.chat_session import ChatSession
    from inkstone.infer.conversation import require_chat_tokens

    model = load_asked(args)
    require_chat_tokens(model.tokenizer)
    if not model.is_chat_tuned:
        warn(
            "this model was not tuned for conversations (its generation_config.json has no \"chat\": true): it may go on with the "
            "text instead of answering"
        )  # fmt: skip
    session = ChatSession(model, model.complete(settings), system=args.system, is_verbose=args.verbose, is_silent=args.json)
    if is_terminal:
        hint(f"context {model.network.config.context:,} tokens; /help says what can be done, Ctrl-D leaves")
        return talk(session)
    if not message:
        hint("stdin is empty: there is nothing to answer")
        return None
    generation = session.answer(message)
    return dataclasses.asdict(generation) if args.json else None


def talk(session: "ChatSession") -> dict[str, Any]:
    """Read messages and commands until the end; return figures."""
    reader = MessageReader(session.is_command)
    while True:
        try:
            message = reader.read()
        except EOFError:
            print(file=sys.stderr)
            break
        except KeyboardInterrupt:
            print(file=sys.stderr)
            hint("Ctrl-D or /bye leaves")
            continue
        if session.is_command(message):
            if not session.obey(message):
                break
        elif message:
            session.answer_or_explain(message)
    return {"messages": len(session.messages)}
