"""`inkstone serve RUN…`: models behind an OpenAI-compatible API, and the web page."""

import argparse
import json
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import CheckpointError, ConfigError
from inkstone.base.log import say
from inkstone.base.settings import Settings
from inkstone.serve.config import ServeSettings, load_keys
from inkstone.serve.names import is_clean_name, model_names

if TYPE_CHECKING:
    from inkstone.serve.app import ServerState

MAX_MODELS = 32


def settings_class() -> type[Settings] | None:
    """Return the settings of the server: they are this verb's flags."""
    return ServeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the models and what is no setting of the server."""
    parser.add_argument("models", type=Path, nargs="+", metavar="RUN", help="runs, checkpoints or Hugging Face-style folders")
    parser.add_argument("--name", action="append", default=[], metavar="NAME", help="name of a model, in order [its folder's]")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps [cpu]")
    parser.add_argument(
        "--draft", type=Path, metavar="RUN", help="small model of the same tokenizer that guesses ahead: same text, sooner"
    )
    parser.add_argument("--no-ui", action="store_true", help="without the web page")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def run(args: argparse.Namespace, settings: ServeSettings) -> dict[str, Any] | None:
    """Serve until SIGTERM or Ctrl-C. Raises: ConfigError, CheckpointError and ResourceError before anything is loaded."""
    keys = load_keys(settings)
    _check_models(args)
    from inkstone.serve.app import ServerState
    from inkstone.serve.logs import log_to_stderr
    from inkstone.serve.server import bind, run_server, url_of

    names = model_names(args.models, args.name)
    state = ServerState(settings, keys=keys, has_page=not args.no_ui)
    listener = bind(settings)
    url = url_of(listener)
    log_to_stderr(keys=keys, is_debug=args.debug)
    say(f"loading {', '.join(names)} for {url} …")

    def load() -> list:
        from inkstone.cli.served_models import load_served

        return load_served(args.models, names, settings, device=args.device, metrics=state.metrics, draft=args.draft)

    def greet() -> None:
        for line in greeting(state, url):
            say(line)
        if args.open and state.has_page:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    run_server(state, listener, load, on_ready=greet)
    return {"url": url, "models": names}


def _check_models(args: argparse.Namespace) -> None:
    """Raise what can be known before a second is spent on loading."""
    problems = [
        f"name: expected letters, digits, '.', '-' and '_', found {name!r:.80}" for name in args.name if not is_clean_name(name)
    ]
    if len(args.name) > len(args.models):
        problems.append(f"name: {len(args.name)} names for {len(args.models)} models")
    if len(set(args.name)) < len(args.name):
        problems.append("name: two models are to have the same name")
    if len(args.models) > MAX_MODELS:
        problems.append(f"at most {MAX_MODELS} models can be served, found {len(args.models)}")
    if problems:
        raise ConfigError("\n".join(problems))
    missing = [folder for folder in [*args.models, *([args.draft] if args.draft else [])] if not folder.is_dir()]
    if missing:
        raise CheckpointError(
            "\n".join(f"{folder} is no folder - expected a run, a checkpoint or a model folder" for folder in missing)
        )


def greeting(state: "ServerState", url: str) -> Sequence[str]:
    """Return what a person wants to know when the server is ready, in at most ten lines."""
    from inkstone.cli.served_models import describe_precision

    models, settings = state.models.all(), state.settings
    lines = [f"ready at {url}" + (" (web page) and" if state.has_page else ",") + f" {url}/v1 (API)"]
    for model in models[:4]:
        kind = "chat" if model.is_chat_tuned else "text"
        lines.append(
            f"  {model.name}: {kind} model, context {model.context:,} tokens, {settings.parallel} slots, {describe_precision(model.model)}"
        )
    if len(models) > 4:
        lines.append(f"  and {len(models) - 4} more: {url}/v1/models")
    lines += [f"  a key is needed: {len(state.keys)} known"] if state.keys else []
    return [
        *lines,
        "try:",
        f"  {curl_line(url, models[0].name, is_chat=models[0].is_chat_tuned, has_key=bool(state.keys))}",
        "Ctrl-C ends",
    ]


def curl_line(url: str, name: str, *, is_chat: bool, has_key: bool) -> str:
    """Return a command that gets an answer, to be pasted into a shell."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}]} if is_chat else {"prompt": "The "}
    body = json.dumps({"model": name, **asked}, ensure_ascii=False)
    key = ' -H "Authorization: Bearer $KEY"' if has_key else ""
    path = "chat/completions" if is_chat else "completions"
    return f"curl {url}/v1/{path} -H 'Content-Type: application/json'{key} -d '{body}'"
