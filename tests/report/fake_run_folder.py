"""A run folder as training leaves it: 600 steps, evaluations, Chinese and English samples, figures, machine. Seeded, no model needed."""

import json
import math
import random
from pathlib import Path

ENGLISH = "Mira lives in the harbour town of Selk. Every morning she feeds the grey heron on the pier, and then she buys two pears."
CHINESE = (
    "小林住在河边的村子里。每天清晨，她给院子里的白鹅喂食，然后去集市买两个梨和一包茶叶。傍晚，她在灯下写字，砚台里的墨慢慢干了。"
)
BROKEN_ENGLISH = "Te oo hthe sa  ne. nd.e  aa rt i, s ehwhn  t o.l ier\n et ah. oo s\n nd  tt"
BROKEN_CHINESE = "的。的了，一在。是 的不，人。有的 了的我，的。他 这，的。"

CONFIG = """\
seed = 7

[model]
preset = "modern"
num_layers = 4
num_heads = 4
num_kv_heads = 2
head_width = 64
width = 256
context = 256
vocab_size = 4096
position = "rope"
norm = "rmsnorm"
activation = "swiglu"
dropout = 0.0

[train]
batch_size = 16
accumulate = 1
max_minutes = 3.0
precision = "bf16"
clip_norm = 1.0

[optim]
kind = "muon"
lr = 0.02
weight_decay = 0.1

[schedule]
kind = "wsd"
warmup = 40

[data]
path = "data/microworld"
packing = "stream"
"""

FIGURES = [
    {
        "title": {"en": "Held-out text, against what needs no neural network", "zh": "验证文本：与不用神经网络的方法相比"},
        "unit": "bits per byte", "better": "lower",
        "rows": [
            {"name": {"en": "this model", "zh": "本模型"}, "value": 1.124, "low": 1.101, "high": 1.149, "kind": "model"},
            {"name": {"en": "n-gram, order 5", "zh": "5 元文法"}, "value": 1.687, "kind": "baseline"},
            {"name": "xz -9", "value": 2.215, "kind": "baseline"},
        ],
    },
    {
        "title": {"en": "Held-out questions answered exactly", "zh": "验证问题完全答对的比例"},
        "unit": "proportion", "better": "higher",
        "rows": [
            {"name": {"en": "Chinese", "zh": "中文"}, "value": 0.942, "low": 0.918, "high": 0.959},
            {"name": {"en": "English", "zh": "英文"}, "value": 0.961, "low": 0.94, "high": 0.975},
        ],
    },
    {
        "title": {"en": "Asked after training", "zh": "训练之后的问答"},
        "conversation": [
            {"role": "user", "content": "What does Mira feed every morning?"},
            {"role": "assistant", "content": "Mira feeds the grey heron on the pier."},
            {"role": "user", "content": "小林傍晚做什么？"},
            {"role": "assistant", "content": "小林傍晚在灯下写字。"},
        ],
    },
]  # fmt: skip


def make_run(
    folder: Path, *, steps: int = 600, seed: int = 0, final_loss: float = 1.9, torn: bool = True, extras: bool = True
) -> Path:
    """Write a run below `folder` (which becomes the run) and return it."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    lines, tokens = [], 0
    for step in range(1, steps + 1):
        tokens += 4096
        share = step / steps
        loss = final_loss + (8.3 - final_loss) * math.exp(-7.5 * share**0.72) + rng.gauss(0, 0.05)
        warm = min(1.0, step / 40) * min(1.0, (1 - share) / 0.3 + 0.02)
        grad = 0.35 + 2.4 * math.exp(-9 * share) + abs(rng.gauss(0, 0.09)) + (1.6 if rng.random() < 0.006 else 0)
        line = {
            "step": step, "tokens": tokens, "loss": round(loss, 5), "accuracy": round(max(0.0, 0.72 - 0.078 * loss + rng.gauss(0, 0.006)), 5),
            "grad_norm": round(grad, 5), "lr": round(0.02 * warm, 8), "tokens_per_second": round(14300 + rng.gauss(0, 320), 1),
            "seconds": round(tokens / 14300, 2),
        }  # fmt: skip
        lines.append(line)
        if step % max(1, steps // 12) == 0:
            smooth = final_loss + (8.3 - final_loss) * math.exp(-7.5 * share**0.72) + 0.06
            lines.append({
                "step": step, "tokens": tokens, "val_loss": round(smooth, 5), "val_accuracy": round(0.715 - 0.078 * smooth, 5),
                "val_bits_per_byte": round(smooth / 1.744, 5), "val_perplexity": round(math.exp(smooth), 4),
            })  # fmt: skip
            lines.append({"step": step, "sample": {"prompt": "Mira", "text": _fade(ENGLISH[4:], BROKEN_ENGLISH, share, rng)}})
            lines.append({"step": step, "sample": {"prompt": "小林", "text": _fade(CHINESE[2:], BROKEN_CHINESE, share, rng)}})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + ('{"step": 601, "loss": 1.9' if torn else ""), encoding="utf-8")
    (folder / "config.toml").write_text(CONFIG.replace("lr = 0.02", f"lr = {0.02 + seed / 100}"), encoding="utf-8")
    last = {key: value for line in lines[-3:] for key, value in line.items() if key.startswith("val_")}
    summary = {
        "run": str(folder), "steps": steps, "tokens": tokens, "seconds": round(tokens / 14300, 1), "tokens_per_second": 14300.0,
        "train_loss": lines[-4].get("loss", final_loss), "num_params": 4_310_528, "stopped_by": "max_minutes",
    } | last  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if extras:
        _write_extras(folder)
    return folder


def _fade(good: str, broken: str, share: float, rng: random.Random) -> str:
    """Return a text that grows from noise to sense."""
    noise = "".join(rng.choice(broken) for _ in range(len(good)))
    return "".join(right if rng.random() < min(1.0, 0.15 + share) else wrong for right, wrong in zip(good, noise, strict=True))


def _write_extras(folder: Path) -> None:
    machine = {
        "cpu": "Example CPU, AVX-512 BF16",
        "cores": 2,
        "memory_bytes": 8_589_934_592,
        "torch": "2.13.0",
        "precision": "bf16",
        "threads": 2,
    }
    data = {
        "format": 1, "kind": "text", "dtype": "uint16", "vocab_size": 4096, "seed": 7, "tokenizer_fingerprint": "9f2c" * 16,
        "splits": {
            "train": {"tokens": 3_104_221, "bytes": 11_702_913, "documents": 41_230},
            "val": {"tokens": 163_876, "bytes": 617_402, "documents": 2_170},
        },
        "sources": [{"name": "builtin:microworld", "documents": 45_000, "bytes": 12_480_022}],
        "dropped": {"duplicate": 1_588, "too_short": 12}, "documents_in": 45_000, "documents_out": 43_400,
    }  # fmt: skip
    for name, value in (("machine.json", machine), ("data.json", data), ("figures.json", FIGURES)):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
