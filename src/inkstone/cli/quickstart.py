"""`inkstone quickstart`: from raw text to a chat model, figures and a page, in one command that can be interrupted.

The folder is a run: its configuration and curves are the pretraining's, `final/` is the chat model. What was made on the way stands in
`parts/`: data, base (the pretraining run), chat-data, chat (the tuning run).
"""

import argparse
import contextlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError, ResourceError
from inkstone.base.files import explain_os_errors, write_atomic, write_json
from inkstone.base.log import say
from inkstone.base.quantity import format_count, format_seconds, parse_minutes
from inkstone.base.settings import Settings
from inkstone.cli.quickstart_folder import Note, QuickstartFolder, describe_command, refuse_foreign

WORLD = "builtin:microworld"
WORLD_BYTES = 4_000_000
NUM_CONVERSATIONS = 3_000
PRETRAIN_SHARE = 0.8  # of the minutes; the rest tunes the chat model
DEFAULT_MINUTES = 3.5
DEPTH, CONTEXT = 3, 128  # what learns most in a few minutes of two cores
STEP_TOKENS = 2048  # many small steps learn more than few large ones
SMALL_TEXT_BYTES = 6_000_000  # below, a vocabulary of 2,048 and no n-gram table
REPLY_TOKENS = 80  # of the conversation on the page
MEASURED = ("loss", "perplexity", "accuracy", "bits_per_byte")
COPIED = ("config.toml", "metrics.jsonl", "data.json", "machine.json")


@dataclass(frozen=True)
class Scale:
    """The sizes that suit a text."""

    vocab_size: int
    ngram_buckets: int


def settings_class() -> type[Settings] | None:
    """Everything is chosen here; the same parts with all their settings are verbs of their own."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the inputs and the budget."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="TEXT",
        help="files or folders of your own text, or builtin:stdlib; none: the built-in bilingual world",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), metavar="RUN", help="folder to make [runs/quickstart]")
    parser.add_argument(
        "--minutes", default=str(DEFAULT_MINUTES), metavar="M", help=f"training time, such as 3 or 90s [{DEFAULT_MINUTES:g}]"
    )
    parser.add_argument("--overwrite", action="store_true", help="throw away what RUN holds and start anew")


def run(args: argparse.Namespace, settings: None) -> dict[str, Any]:
    """Run every stage that is not done yet, then say how to go on."""
    from inkstone.data.paths import expand_inputs

    out, inputs = args.out, args.inputs or [WORLD]
    minutes = _minutes(args.minutes)
    items = expand_inputs(inputs, exclude=out)  # a name that is wrong is refused before there is a folder
    command = describe_command(inputs, items, minutes)
    refuse_foreign(out)
    from inkstone.train.run import locked

    with locked(out):
        folder = QuickstartFolder(out, command, overwrite=args.overwrite)
        summary = folder.finished_summary()
        if summary is None:
            try:
                summary = _make(folder, items)
            finally:
                with contextlib.suppress(ResourceError):  # what ended it says so already
                    folder.mark()
        else:
            say(f"{out} is already complete; --overwrite starts anew")
    _say_farewell(out, summary)
    if not args.json:
        print(out)
    return summary | {"run": str(out)}


def _make(folder: QuickstartFolder, items: list[str | Path]) -> dict[str, Any]:
    """Run the stages and return the figures; a stage that is done is passed over."""
    out, parts, minutes = folder.out, folder.out / "parts", folder.note.minutes
    knows_world = items == [WORLD]
    scale = _prepare_text(items, folder.note, parts / "data")
    folder.mark()
    say("")
    base = _train(parts / "data", parts / "base", scale, round(minutes * PRETRAIN_SHARE, 4))
    folder.mark()
    say("")
    _prepare_chats(knows_world, parts)
    _tune(parts, scale, round(minutes * (1 - PRETRAIN_SHARE), 4))
    folder.mark()
    say("")
    figures, conversation = _measure(parts, knows_world)
    summary = _summary(out, base, figures, folder.seconds)
    with explain_os_errors(str(out)):
        _publish(out, parts, summary, figures, conversation)
        summary["total_seconds"] = folder.seconds
        write_json(out / "summary.json", summary)
    folder.mark(finished=True)
    return summary


def _minutes(text: str) -> float:
    try:
        minutes = parse_minutes(text)
    except ValueError as error:
        raise ConfigError(f"--minutes: {error}") from error
    if not 0 < minutes <= 10_000:
        raise ConfigError(f"--minutes: expected more than 0 and at most 10000, found {text}")
    return minutes


def _prepare_text(items: list[str | Path], note: Note, data: Path) -> Scale:
    from inkstone.data.config import PrepareSettings
    from inkstone.data.prepare import prepare
    from inkstone.data.shards import load_manifest

    small = items == [WORLD] or (len(note.files) == len(items) and sum(size for size, _ in note.files.values()) < SMALL_TEXT_BYTES)
    if not data.exists():
        say("1/5  text → tokens")
        sources = [f"{WORLD}={WORLD_BYTES}" if item == WORLD else item for item in items]
        made = prepare(sources, data, settings=PrepareSettings(vocab_size=2048 if small else 4096))
        say(
            f"     {made['documents_out']:,} documents, {format_count(made['train_tokens'])} tokens of {made['bytes_per_token']['train']:.2f}"
            f" bytes, {made['vocab_size']:,} in the vocabulary"
        )
    vocab_size = int(load_manifest(data)["vocab_size"])
    return Scale(vocab_size, 0 if small else 8192)


def _train(data: Path, out: Path, scale: Scale, minutes: float) -> dict[str, Any]:
    from inkstone.base.settings import resolve
    from inkstone.cli.pretrain import make_hooks
    from inkstone.nn.cost import num_params
    from inkstone.train.config import PretrainSettings
    from inkstone.train.run import pretrain

    settings = resolve(
        PretrainSettings,
        flags=[
            ("model.depth", str(DEPTH)),
            ("model.context", str(CONTEXT)),
            ("model.value-residual", "true"),
            ("model.ngram-buckets", str(scale.ngram_buckets)),
            ("model.ngram-max", "4"),
            ("model.vocab-size", str(scale.vocab_size)),
            ("train.max-minutes", str(minutes)),
            ("train.batch-size", str(STEP_TOKENS // CONTEXT)),
            ("optim.lr", "0.006"),
            ("schedule.kind", "linear"),
            ("eval.max-tokens", "16k"),
            ("eval.sample-tokens", "80"),
        ],
    )
    say(f"2/5  pretraining: {format_count(num_params(settings.model))} parameters, {format_seconds(60 * minutes)}")
    figures = pretrain(settings, data=data, out=out, hooks=make_hooks(settings, data, out))
    say(f"     {figures['steps']:,} steps, {format_count(figures['tokens'])} tokens, validation loss {figures['val_loss']:.3f}")
    return figures


def _prepare_chats(knows_world: bool, parts: Path) -> None:
    from inkstone.data.config import PrepareSettings
    from inkstone.data.prepare import prepare
    from inkstone.text.tokenizer import Tokenizer

    if (parts / "chat-data").exists():
        return
    say("3/5  conversations → tokens")
    chats = _world_chats() if knows_world else _text_chats(parts / "data")
    lines = [json.dumps({"messages": list(chat)}, ensure_ascii=False) + "\n" for chat in chats]
    if len(lines) < 2:
        raise ConfigError(
            "the text has too few sentences to make conversations of — use inkstone pretrain for a model without chat"
        )
    write_atomic(parts / "chats.jsonl", "".join(lines))
    prepare([parts / "chats.jsonl"], parts / "chat-data", settings=PrepareSettings(), tokenizer=Tokenizer.load(parts / "data"))


def _world_chats() -> Iterable[Any]:
    from inkstone.data.corpora.microworld import Microworld

    return [document.messages for document in Microworld().conversations(NUM_CONVERSATIONS)]


def _text_chats(data: Path) -> Iterable[Any]:
    """Return conversations of neighbouring sentences of the training text."""
    from inkstone.data.shards import open_split
    from inkstone.tasks.dialogue import conversations_of
    from inkstone.text.tokenizer import Tokenizer

    tokenizer, split = Tokenizer.load(data), open_split(data, "train", verify=False)
    stops = itertools.chain(split.document_starts[1:], [split.num_tokens])
    texts = (tokenizer.decode(split.read(int(a), int(b) - 1).tolist()) for a, b in zip(split.document_starts, stops, strict=True))
    return list(conversations_of(texts, NUM_CONVERSATIONS))


def _tune(parts: Path, scale: Scale, minutes: float) -> None:
    from inkstone.base.settings import resolve
    from inkstone.train.config import PretrainSettings
    from inkstone.train.run import pretrain

    settings = resolve(
        PretrainSettings,
        flags=[
            ("model.vocab-size", str(scale.vocab_size)), ("train.max-minutes", str(minutes)), ("train.batch-size", str(STEP_TOKENS // CONTEXT)),
            ("train.packing", "fit"), ("train.max-epochs", "6"), ("optim.lr", "0.002"), ("schedule.kind", "linear"), ("eval.max-tokens", "16k"),
            ("eval.sample-tokens", "0"), ("log.tensorboard", "false"),
        ],
    )  # fmt: skip
    say(f"4/5  chat tuning: at most {format_seconds(60 * minutes)}")
    figures = pretrain(settings, data=parts / "chat-data", out=parts / "chat", init=parts / "base" / "final")
    say(f"     {figures['steps']:,} steps, loss on replies {figures['val_loss']:.3f}")


def _measure(parts: Path, knows_world: bool) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return every figure of the result, and a conversation for the page."""
    from inkstone.checkpoint.model_folder import load_model
    from inkstone.data.shards import open_split
    from inkstone.evaluate.language import evaluate_language, language_baselines

    say("5/5  measuring")
    base, tokenizer = load_model(parts / "base" / "final")
    val, train = (open_split(parts / "data", name, verify=False) for name in ("val", "train"))
    figures = evaluate_language(base, tokenizer, val)
    figures["baselines"] = language_baselines(tokenizer, val, train)
    chat, _ = load_model(parts / "chat" / "final")
    if knows_world:
        figures["questions"] = _ask_world(chat, tokenizer)
        asked = ["Where does Anna live?", "杰克是做什么工作的？", "Which food does Rosa like most?"]
    else:
        asked = [
            json.loads(line)["messages"][0]["content"]
            for line in (parts / "chats.jsonl").read_text(encoding="utf-8").splitlines()[:3]
        ]
    return figures, _converse(chat, tokenizer, asked)


def _ask_world(model: Any, tokenizer: Any) -> dict[str, Any]:
    from inkstone.data.corpora.microworld import Microworld
    from inkstone.evaluate.questions import ask

    world, results = Microworld(), {}
    for language in ("en", "zh"):
        questions = world.heldout_questions(language)
        result = ask(model, tokenizer, questions, world.grade)
        results[language] = {"right": result.num_right, "asked": len(questions), **vars(result.interval)}
    return results


def _converse(model: Any, tokenizer: Any, asked: list[str]) -> list[dict[str, str]]:
    from inkstone.api import Model

    talker, messages = Model(model, tokenizer), []
    for question in asked:
        reply = talker.chat([{"role": "user", "content": question}], max_tokens=REPLY_TOKENS, temperature=0.5, seed=1)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply.text}]
    return messages


def _publish(out: Path, parts: Path, summary: dict[str, Any], figures: dict[str, Any], conversation: list[dict[str, str]]) -> None:
    from inkstone.checkpoint.model_folder import load_model, save_model
    from inkstone.cli.pretrain import write_pages
    from inkstone.report.figures import baseline_figure

    model, tokenizer = load_model(parts / "chat" / "final")
    save_model(out / "final", model, tokenizer, {"chat": True, "temperature": 0.5})
    for name in COPIED:
        write_atomic(out / name, (parts / "base" / name).read_bytes())
    interval = figures["metrics"]["bits_per_byte"]
    shown: list[dict[str, Any]] = [
        baseline_figure(figures["bits_per_byte"], figures["baselines"], (interval["low"], interval["high"]))
    ]
    if "questions" in figures:
        names = {"en": {"en": "English", "zh": "英文"}, "zh": {"en": "Chinese", "zh": "中文"}}
        rows = [
            {"name": names[code], **{k: found[k] for k in ("value", "low", "high")}} for code, found in figures["questions"].items()
        ]
        title = {"en": "Questions never asked in training, answered exactly", "zh": "训练中从未问过的问题，回答完全正确的比例"}
        shown.append({"title": title, "unit": "proportion", "better": "higher", "rows": rows})
    shown.append(
        {"title": {"en": "A conversation with the chat model", "zh": "与对话模型的一段对话"}, "conversation": conversation}
    )
    write_json(out / "figures.json", shown)
    write_json(out / "summary.json", summary)
    write_pages(out)


def _summary(out: Path, base: dict[str, Any], figures: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the figures of the whole; everything about held-out text is of one measurement, over the whole split."""
    measured = {f"val_{name}": figures[name] for name in MEASURED}
    summary = base | measured | {"run": str(out), "total_seconds": seconds, "baselines": figures["baselines"]}
    if "questions" in figures:
        summary["questions"] = figures["questions"]
    return summary


def _say_farewell(out: Path, summary: dict[str, Any]) -> None:
    baselines = ", ".join(f"{name} {found['bits_per_byte']:.2f}" for name, found in summary["baselines"].items())
    bits = f"{summary['val_bits_per_byte']:.3f} bits per byte of held-out text"
    say(f"\ndone in {format_seconds(summary['total_seconds'])}: {bits} ({baselines})")
    for language, found in summary.get("questions", {}).items():
        say(f"questions never asked in training ({language}): {found['right']} of {found['asked']} answered exactly")
    say(f"look:   {out / 'report.html'}")
    say(f"chat:   inkstone chat {out}")
    say(f"write:  inkstone generate {out / 'parts' / 'base'} --prompt '…'")
