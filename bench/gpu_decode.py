"""Decoding and prefill on a GPU in bf16, GPT-2 124M and 1.5B: Inkstone beside transformers, and the share of the memory's bandwidth.

    python bench/gpu_decode.py CACHE_FOLDER [--shapes gpt2 gpt2-xl] [--rounds 3] [--json OUT.json]

Random weights, greedy, 64 tokens of prompt and 128 new ones for 1, 8 and 32 streams, and prompts of 896 tokens. Every program is a
process of its own, suspended while the other is measured. About four minutes on a large GPU; without one it says so and ends with 0.
"""

import argparse
import contextlib
import json
import statistics
from dataclasses import astuple
from pathlib import Path
from typing import Any

from decode_speed import SHAPES, make_model, start
from workers import Worker

from inkstone import machine
from inkstone.infer.speed import Load, bytes_per_step, memory_bandwidth

GPU_SHAPES = ("gpt2", "gpt2-xl", "tiny")
LOADS = {
    "1": Load(1, 64, 128),
    "8": Load(8, 64, 128),
    "32": Load(32, 64, 128),
    "prefill": Load(1, 896, 1),
    "prefill 8": Load(8, 896, 1),
}
TINY_LOADS = {"1": Load(1, 8, 12), "8": Load(8, 8, 12), "prefill": Load(1, 200, 1)}
PEERS = ("transformers-bf16", "inkstone-bf16")


def main() -> None:
    """Measure each shape, where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CACHE_FOLDER")
    parser.add_argument("--shapes", nargs="+", choices=GPU_SHAPES, default=["gpt2", "gpt2-xl"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=4, help="of the processor, which only launches kernels")
    parser.add_argument("--device", default="cuda", help="cpu checks the script itself, on a tiny shape")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU that torch can use is here: nothing was measured")
        return
    bandwidth = memory_bandwidth(args.device)
    print(f"{_device_name(args.device)}: reads {bandwidth / 1e9:,.0f} GB/s", flush=True)
    report: dict[str, Any] = {"machine": machine.describe(), "bandwidth": bandwidth, "shapes": {}}
    for shape in args.shapes:
        folder = args.folder / shape
        make_model(folder, shape)
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(start(name, folder, args.threads, args.device)) for name in PEERS]
            rates = alternate(workers, TINY_LOADS if shape == "tiny" else LOADS, rounds=args.rounds)
        report["shapes"][shape] = print_shape(shape, rates, bandwidth, args.device)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def alternate(workers: list[Worker], loads: dict[str, Load], *, rounds: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return load → peer → the rates of each round."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {worker.name: [] for worker in workers} for name in loads}
    for name, load in loads.items():
        for worker in workers:
            worker.ask(load=astuple(load), seed=-1, prepare=True)
        for number in range(rounds):
            for worker in workers:
                found[name][worker.name].append(worker.ask(load=astuple(load), seed=number + 1)["rates"])
    return found


def print_shape(shape: str, rates: dict[str, dict[str, list[dict[str, float]]]], bandwidth: float, device: str) -> dict[str, Any]:
    """Print a line a load, and return the figures."""
    loads = TINY_LOADS if shape == "tiny" else LOADS
    network = _network(shape)
    rows: dict[str, Any] = {}
    for name, peers in rates.items():
        load = loads[name]
        figure = "decode" if load.new_tokens > 1 else "prefill"
        theirs, ours = ([row[figure] for row in peers[peer]] for peer in PEERS)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        row = {"figure": figure, "inkstone": ours, "transformers": theirs, "ratio": statistics.median(ratios)}
        share = ""
        if figure == "decode":
            row["bandwidth_share"] = statistics.median(ours) / load.streams * bytes_per_step(network, load) / bandwidth
            share = f", {row['bandwidth_share']:.0%} of the bandwidth"
        rows[name] = row
        print(
            f"{shape:8} {name:9} {figure:8} inkstone {statistics.median(ours):10,.0f} tok/s ({min(ours):,.0f} … {max(ours):,.0f}){share};"
            f" transformers {statistics.median(theirs):10,.0f} ({min(theirs):,.0f} … {max(theirs):,.0f}), ratio {row['ratio']:.2f}",
            flush=True,
        )
    return rows


def _network(shape: str) -> Any:
    """Return a model of the shape that has sizes and no weights."""
    import torch

    from inkstone.nn.config import ModelConfig
    from inkstone.nn.transformer import Transformer

    with torch.device("meta"):
        return Transformer(ModelConfig.model_validate(SHAPES[shape]), compute_dtype=torch.bfloat16).to(torch.bfloat16)


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else machine.cpu_name()


if __name__ == "__main__":
    main()
