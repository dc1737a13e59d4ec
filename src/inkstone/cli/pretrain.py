"""`inkstone pretrain`: train a model on a prepared data folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.log import say
from inkstone.base.quantity import format_count, format_seconds
from inkstone.base.settings import Settings

PROMPT_TOKENS = 12  # of the validation split, for samples

if TYPE_CHECKING:
    from inkstone.train.config import PretrainSettings
    from inkstone.train.loop import Hooks


def settings_class() -> type[Settings]:
    """Return the settings of this verb."""
    from inkstone.train.config import PretrainSettings

    return PretrainSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folders."""
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="a folder made by inkstone data prepare")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder; the same command goes on with it")
    parser.add_argument("--init", type=Path, metavar="RUN", help="start from the weights of this run or model folder")
    parser.add_argument("--overwrite", action="store_true", help="throw away what RUN holds and start anew")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the plan, train nothing")


def run(args: argparse.Namespace, settings: "PretrainSettings") -> dict[str, Any]:
    """Train and say what came out."""
    from inkstone.train.run import pretrain

    if args.dry_run:
        return _try(args, settings)
    hooks = make_hooks(settings, args.data, args.out)
    result = pretrain(settings, data=args.data, out=args.out, overwrite=args.overwrite, init=args.init, hooks=hooks)
    write_pages(args.out)
    say(
        f"{result['steps']:,} steps, {format_count(result['tokens'])} tokens in {format_seconds(result['seconds'])}:"
        f" validation loss {result['val_loss']:.4f}, accuracy {result['val_accuracy']:.1%}, {result['val_bits_per_byte']:.3f} bits per byte"
    )
    say(f"next: inkstone generate {args.out} --prompt '…'   ·   page: {args.out / 'report.html'}")
    if not args.json:
        print(args.out)
    return result


def _try(args: argparse.Namespace, settings: "PretrainSettings") -> dict[str, Any]:
    """Check everything, print the plan and return its figures; nothing is written."""
    from inkstone.cli.plan import figures, make_plan, print_plan
    from inkstone.train.run import check

    make_hooks(settings, args.data, args.out)
    settings = check(settings, data=args.data, out=args.out, overwrite=args.overwrite, init=args.init)
    plan = make_plan(settings, data=args.data, seconds=0.0)
    print_plan(plan, settings)
    return figures(plan)


def make_hooks(settings: "PretrainSettings", data: Path, out: Path) -> "Hooks":
    """Return what training calls back: trackers for each row, and a sample of the model's text at each evaluation."""
    from inkstone.report.trackers import Trackers
    from inkstone.train.loop import Hooks

    trackers = Trackers(out, tensorboard=settings.log.tensorboard, wandb=settings.log.wandb, trackio=settings.log.trackio)
    return Hooks(on_row=trackers.write, make_sample=make_sampler(settings, data))


def make_sampler(settings: "PretrainSettings", data: Path) -> Any:
    """Return a function (model, step) → {prompt, text} that continues a fixed prompt with a fixed seed."""
    from inkstone.data.shards import load_manifest, open_split
    from inkstone.infer.config import SamplingSettings
    from inkstone.infer.generate import Reply
    from inkstone.text.tokenizer import Tokenizer

    load_manifest(data)  # a folder that is no data should be called that, not a missing tokenizer
    tokenizer = Tokenizer.load(data)
    if settings.eval.sample_prompt:
        prompt = tokenizer.encode(settings.eval.sample_prompt)
    else:
        split = open_split(data, "val", verify=False)
        prompt = split.read(0, max(1, min(PROMPT_TOKENS, split.num_tokens, settings.model.context // 2))).tolist()
    sampling = SamplingSettings(
        max_tokens=max(1, settings.eval.sample_tokens), temperature=0.8, top_k=50, seed=settings.train.seed % 2**31
    )

    def sample(model: Any, step: int) -> dict[str, Any]:
        model.eval()
        return {"prompt": tokenizer.decode(prompt), "text": Reply(model, tokenizer, prompt, sampling).finish().text}

    return sample


def write_pages(run: Path) -> None:
    """Write the run's page and its model card."""
    from inkstone.report.model_card import write_model_card
    from inkstone.report.page import write_report

    write_report([run], run / "report.html")
    write_model_card(run)
