"""Loading what `inkstone serve` answers for: each model with its runner, its engine and the thread that drives it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inkstone.base.errors import ConfigError
from inkstone.cli.evaluated_run import find_run
from inkstone.serve.config import ServeSettings

if TYPE_CHECKING:
    from inkstone.api import Model
    from inkstone.infer.speculate import Speculator
    from inkstone.serve.metrics import Metrics
    from inkstone.serve.models import ServedModel

MAX_CARD_BYTES = 256 * 1024


def load_served(
    folders: Sequence[Path],
    names: Sequence[str],
    settings: ServeSettings,
    *,
    device: str,
    metrics: "Metrics",
    draft: Path | None = None,
) -> list["ServedModel"]:
    """Return every model, its engine running. Raises: as `inkstone.load`; ConfigError when one does not fit the settings."""
    import torch

    from inkstone.machine import choose_threads

    torch.set_num_threads(choose_threads())
    return [
        _serve_one(folder, name, settings, device=device, metrics=metrics, draft=draft)
        for folder, name in zip(folders, names, strict=True)
    ]


def _serve_one(
    folder: Path, name: str, settings: ServeSettings, *, device: str, metrics: "Metrics", draft: Path | None
) -> "ServedModel":
    from inkstone.infer.engine import Engine
    from inkstone.infer.engine_thread import EngineThread
    from inkstone.infer.runners import make_runner
    from inkstone.serve.models import ServedModel

    model = load_in_precision(folder, settings.precision, device=device)
    context = _context(settings, model, folder)
    runner = make_runner(model.network, num_slots=settings.parallel, max_tokens=context)
    speculator = None if draft is None else _draft(draft, model, settings, context, device=device)
    thread = EngineThread(Engine(runner, model.tokenizer, max_waiting=settings.max_waiting, speculator=speculator))
    thread.start()
    run_folder = find_run(folder)
    return ServedModel(
        name=name, created=int(folder.stat().st_mtime), tokenizer=model.tokenizer, context=context, thread=thread,
        is_chat_tuned=model.is_chat_tuned, model=model, card=_read_card(folder, run_folder), run_folder=run_folder,
        sampling=model.sampling, observe=metrics.observe_sequence,
    )  # fmt: skip


def load_in_precision(folder: Path, precision: str, *, device: str) -> "Model":
    """Return the model with its weights in fp32, bf16, int8 or int4; `auto` = as they are stored, in the type that is fast here.

    Raises: as `inkstone.load`; ConfigError when they are packed in another form already.
    """
    from inkstone.api import load
    from inkstone.assemble import DTYPES
    from inkstone.quant.apply import scheme_of

    wanted = precision if precision in ("int8", "int4") else None
    model = load(folder, device=device, dtype=DTYPES.get(precision), scheme=wanted)
    stored = scheme_of(model.network)
    if stored is not None and precision not in ("auto", stored):
        raise ConfigError(f"precision: the weights of {folder} are packed ({stored}), found {precision} - leave --precision away")
    return model


def describe_precision(model: "Model") -> str:
    """Return the name of the form that a loaded model's weights have."""
    import torch

    from inkstone.quant.apply import scheme_of

    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return scheme_of(model.network) or names[model.network.embed.weight.dtype]


def _context(settings: ServeSettings, model: "Model", folder: Path) -> int:
    most = model.network.config.context
    if settings.ctx_size is not None and settings.ctx_size > most:
        raise ConfigError(f"ctx_size: the model in {folder} has a context of {most:,} tokens, found {settings.ctx_size:,}")
    return settings.ctx_size or most


def _draft(folder: Path, model: "Model", settings: ServeSettings, context: int, *, device: str) -> "Speculator":
    from inkstone.infer.runners import make_runner
    from inkstone.infer.speculate import DraftModel

    draft = load_in_precision(folder, "auto", device=device)
    if draft.tokenizer.fingerprint != model.tokenizer.fingerprint:
        raise ConfigError(f"draft: the model in {folder} has another tokenizer - guesses need the same one")
    context = min(context, draft.network.config.context)
    return DraftModel(make_runner(draft.network, num_slots=settings.parallel, max_tokens=context), model.tokenizer)


def _read_card(folder: Path, run_folder: Path | None) -> str:
    """Return the model card, as far as a page shows it: the folder's own, else its run's."""
    for place in (folder, run_folder):
        card = None if place is None else place / "README.md"
        if card is not None and card.is_file():
            with card.open("rb") as file:
                return file.read(MAX_CARD_BYTES).decode("utf-8", "ignore")
    return ""
