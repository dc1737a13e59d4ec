"""What int8 and int4 weights cost in perplexity, on a model that is trained here first.

    python bench/quantization_loss.py --text wikitext2/train.txt --val-text wikitext2/valid.txt [--minutes 10] [-- --model.depth 4 …]

Prepares the text, trains, quantizes (int8, int4, int4 calibrated on the training text) and prints a line each. The targets are less
than 0.5 % for int8 and less than 3 % for int4. What follows `--` goes to `inkstone pretrain`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGETS = {"int8": 0.005, "int4": 0.03}


def main() -> None:
    """Train, quantize in each way, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="training text, as in wikitext2/train.txt")
    parser.add_argument("--val-text", type=Path, help="validation text [a part of the training text]")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training [10]")
    parser.add_argument("--run", type=Path, help="use this trained run instead (prepared data beside it is found by itself)")
    parser.add_argument("--max-tokens", default="0", help="of the validation text that are measured [all]")
    parser.add_argument("settings", nargs="*", help="settings of inkstone pretrain, behind --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = work / "data"
        held_out = ["--val-input", str(args.val_text)] if args.val_text else []
        tokenizer = ["--tokenizer", str(args.run)] if args.run else []
        _inkstone("data", "prepare", str(args.text), *held_out, *tokenizer, "--out", str(data))
        run = args.run or work / "run"
        if not args.run:
            minutes = ["--train.max-minutes", str(args.minutes)]
            figures = _inkstone("pretrain", "--data", str(data), "--out", str(run), *minutes, *args.settings)
            print(f"trained: {figures['num_params']:,} parameters, {figures['tokens']:,} tokens, loss {figures['val_loss']:.4f}")
        print("scheme                bytes   perplexity   change   target         KL   agreement   tokens/s")
        for scheme, extra in (("int8", []), ("int4", []), ("int4", ["--calibrate", str(data)])):
            out = work / f"{scheme}{len(extra)}"
            measured = ["--data", str(data), "--max-tokens", args.max_tokens, *extra]
            _show(_inkstone("quantize", str(run), "--scheme", scheme, "--out", str(out), *measured), bool(extra))


def _show(found: dict[str, Any], is_calibrated: bool) -> None:
    before, after = found["perplexity_before"], found["perplexity_after"]
    name, target = found["scheme"], TARGETS[found["scheme"]]
    if name == "int8":
        _print_row("float", found["bytes_before"], before, found["tokens_per_second_before"])
    kept = "met" if after / before - 1 < target else "MISSED"
    costs = f"{after / before - 1:+8.3%}   < {target:.1%} {kept}   {found['kl']:.2e}   {found['agreement']:8.2%}"
    title = f"{name} calibrated" if is_calibrated else name
    _print_row(title, found["bytes_after"], after, found["tokens_per_second_after"], costs)


def _print_row(name: str, num_bytes: int, perplexity: float, rate: float, costs: str = "") -> None:
    print(f"{name:16} {num_bytes:11,}   {perplexity:10.4f} {costs:48} {rate:9.1f}", flush=True)


def _inkstone(*arguments: str) -> dict[str, Any]:
    """Return the figures of one command line."""
    command = [sys.executable, "-m", "inkstone", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
