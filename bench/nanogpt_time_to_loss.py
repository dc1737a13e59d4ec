"""Training seconds to nanoGPT's CPU result on tinyshakespeare: nanoGPT's README command, then our recipes, in one go.

    python bench/nanogpt_time_to_loss.py --nanogpt PATH/TO/nanoGPT --text input.txt [--best]

Every loss is over the whole validation split in windows without overlap, every time is of training steps alone. `--best` adds the
recipe that goes for nanoGPT's GPU result, 1.4697.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from nanogpt_speed import prepare

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
EVALUATE = """
import sys, numpy as np, torch
from model import GPT, GPTConfig
saved = torch.load(sys.argv[1], weights_only=True)
model = GPT(GPTConfig(**saved["model_args"])).eval()
model.load_state_dict(saved["model"])
ids = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", dtype=np.uint16).astype(np.int64))
context = saved["model_args"]["block_size"]
total = count = 0
with torch.no_grad():
    for start in range(0, len(ids) - 1, context):
        x, y = ids[start : start + context], ids[start + 1 : start + context + 1]
        _, loss = model(x[None, : len(y)], y[None])
        total, count = total + loss.item() * len(y), count + len(y)
print(total / count)
"""


def main() -> None:
    """Run both and print seconds, losses and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare's input.txt")
    parser.add_argument("--best", action="store_true", help="also train recipes/shakespeare-char-best.toml")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(args.nanogpt, args.text, work)
        seconds, loss = _nanogpt(args.nanogpt, work)
        print(f"nanoGPT               {seconds:7.1f} s   validation loss {loss:.4f}", flush=True)
        for name in ["fast", "best"] if args.best else ["fast"]:
            ours = _inkstone(work, f"shakespeare-char-{name}.toml")
            print(f"inkstone {name:12} {ours['seconds']:7.1f} s   validation loss {ours['val_loss']:.4f}", flush=True)
            if name == "fast":
                print(f"ratio                 {seconds / ours['seconds']:7.1f} x faster", flush=True)


def _nanogpt(nanogpt: Path, work: Path) -> tuple[float, float]:
    command = [
        sys.executable, "train.py", "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
        "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000",
        "--dropout=0.0", "--eval_interval=2000", f"--out_dir={work / 'nanogpt'}",
    ]  # fmt: skip
    output = subprocess.run(command, cwd=nanogpt, check=True, capture_output=True, text=True).stdout
    times = [float(ms) / 1000 for ms in re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", output)]
    # The first and the last line hold an evaluation; put a middling step in their place.
    seconds = sum(times[1:-1]) * len(times) / (len(times) - 2)
    result = subprocess.run(
        [sys.executable, "-c", EVALUATE, str(work / "nanogpt" / "ckpt.pt")], cwd=nanogpt, check=True, capture_output=True, text=True
    )
    return seconds, float(result.stdout.split()[-1])


def _inkstone(work: Path, recipe: str) -> dict[str, float]:
    command = ["pretrain", "--config", str(RECIPES / recipe), "--data", str(work / "data"), "--out", str(work / recipe), "--json"]
    result = subprocess.run([sys.executable, "-m", "inkstone", *command], check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
