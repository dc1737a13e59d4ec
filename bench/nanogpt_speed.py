"""Training tokens/s of Inkstone and nanoGPT on the same text, model shape and batch, alternating in one go.

    python bench/nanogpt_speed.py --nanogpt PATH/TO/nanoGPT --text input.txt [--rounds 3] [--shape cpu|wide]

Both run their own training command (nanoGPT's README's for a CPU). A step's time is what each program reports for it; evaluations are
left out on both sides. Prints the medians, their spread over the rounds, and the ratio.
"""

import argparse
import json
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPES = {
    "cpu": {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12, "steps": 300},
    "wide": {"layers": 6, "heads": 6, "width": 384, "context": 256, "batch": 16, "steps": 8},
}
RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "shakespeare-char-cpu.toml"


def main() -> None:
    """Alternate the two programs and print what each reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare's input.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(args.nanogpt, args.text, work)
        for name in SHAPES if args.shape == "all" else [args.shape]:
            shape = SHAPES[name]
            tokens = shape["batch"] * shape["context"]
            speeds: dict[str, list[float]] = {"nanoGPT": [], "inkstone": []}
            for number in range(args.rounds):
                speeds["nanoGPT"].append(tokens / statistics.median(_nanogpt_seconds(args.nanogpt, shape)))
                speeds["inkstone"].append(statistics.median(_inkstone_speeds(work, shape, number)))
            for program, found in speeds.items():
                print(
                    f"{name:5} {program:9} median {statistics.median(found):9,.0f} tok/s   rounds {min(found):,.0f} … {max(found):,.0f}"
                )
            ratios = [ours / theirs for ours, theirs in zip(speeds["inkstone"], speeds["nanoGPT"], strict=True)]
            print(
                f"{name:5} ratio     median {statistics.median(ratios):.2f}   rounds {min(ratios):.2f} … {max(ratios):.2f}",
                flush=True,
            )


def prepare(nanogpt: Path, text: Path, work: Path) -> None:
    """Write nanoGPT's own files (its split: the last tenth of the characters; its vocabulary as the pickle it reads) and our shards."""
    import numpy as np

    data = text.read_text(encoding="utf-8")
    index = {c: i for i, c in enumerate(sorted(set(data)))}
    ids = np.array([index[c] for c in data], dtype=np.uint16)
    cut = int(len(ids) * 0.9)
    folder = nanogpt / "data" / "shakespeare_char"
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(
        pickle.dumps({"vocab_size": len(index), "stoi": index, "itos": {i: c for c, i in index.items()}})
    )
    command = [
        "data",
        "prepare",
        str(text),
        "--tokenizer",
        "char",
        "--split",
        "tail",
        "--val-fraction",
        "0.1",
        "--out",
        str(work / "data"),
    ]
    subprocess.run([sys.executable, "-m", "inkstone", *command], check=True, capture_output=True)


def _nanogpt_seconds(nanogpt: Path, shape: dict[str, int]) -> list[float]:
    command = [
        sys.executable, "train.py", "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=1", "--log_interval=1",
        f"--block_size={shape['context']}", f"--batch_size={shape['batch']}", f"--n_layer={shape['layers']}", f"--n_head={shape['heads']}",
        f"--n_embd={shape['width']}", f"--max_iters={shape['steps']}", "--lr_decay_iters=2000", "--dropout=0.0", "--eval_interval=100000",
        "--always_save_checkpoint=False",
    ]  # fmt: skip
    output = subprocess.run(command, cwd=nanogpt, check=True, capture_output=True, text=True).stdout
    assert "defaulting to vocab_size" not in output, "nanoGPT did not find its vocabulary"
    return [float(ms) / 1000 for ms in re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", output)][2:]


def _inkstone_speeds(work: Path, shape: dict[str, int], number: int) -> list[float]:
    run = work / f"run-{shape['width']}-{number}"
    flags = {
        "model.num-layers": shape["layers"], "model.num-heads": shape["heads"], "model.width": shape["width"], "model.context": shape["context"],
        "train.batch-size": shape["batch"], "train.max-steps": shape["steps"], "schedule.warmup": 1, "eval.every": shape["steps"],
    }  # fmt: skip
    settings = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    command = ["pretrain", "--config", str(RECIPE), "--data", str(work / "data"), "--out", str(run), *settings]
    subprocess.run([sys.executable, "-m", "inkstone", *command], check=True, capture_output=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["tokens_per_second"] for row in rows if "loss" in row][2:]


if __name__ == "__main__":
    main()
