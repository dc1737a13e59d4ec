"""Tokens/s of Inkstone and its peers on GPT-2 124M with random weights: one stream, eight streams, and a long prompt.

    python bench/decode_speed.py CACHE_FOLDER [--rounds 3] [--only inkstone llama.cpp-q8_0 …] [--threads 2] [--json OUT.json]

The model and what the peers' converters make of it are kept in CACHE_FOLDER. Each program is a process of its own that lives over all
rounds and is suspended while another is measured; in a round, every one runs every load once, behind a short run that warms it up.
All draw greedily and go on behind end tokens. Prints medians with the rounds' spread, and the ratio of ours to a peer in each round.
"""

import argparse
import contextlib
import json
import signal
import statistics
import time
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from decode_peers import PEERS
from workers import Worker, ask_alone, worker_command

from inkstone import machine
from inkstone.infer.speed import Load

SHAPES = {
    "gpt2": {"preset": "gpt2", "vocab_size": 50257},
    "gpt2-xl": {"preset": "gpt2-xl", "vocab_size": 50257},
    "tiny": {"preset": "gpt2", "num_layers": 2, "num_heads": 2, "width": 64, "context": 256, "vocab_size": 1000},  # for tests
}
_GPT2_LOADS = {"one": Load(1, 64, 128), "eight": Load(8, 64, 128), "prefill": Load(1, 1000, 1)}
LOADS = {
    "gpt2": _GPT2_LOADS,
    "gpt2-xl": _GPT2_LOADS,
    "tiny": {"one": Load(1, 8, 12), "eight": Load(8, 8, 12), "prefill": Load(1, 200, 1)},
}
FIGURES = {"one": ("decode", "total"), "eight": ("total", "decode"), "prefill": ("prefill",)}  # the first is what targets speak of
MAX_IDLE_SHARE = 0.02


class Target(NamedTuple):
    """What ours should be, as a multiple of a peer."""

    load: str
    ours: str
    peer: str
    at_least: float


TARGETS = (
    Target("one", "inkstone-fp32", "ctranslate2-fp32", 1.0),
    Target("one", "inkstone-bf16", "llama.cpp-bf16", 1.0),
    Target("one", "inkstone-int8", "llama.cpp-q8_0", 1.0),
    Target("one", "inkstone-int4", "llama.cpp-q4_0", 1.0),
    Target("one", "inkstone-int4", "llama.cpp-q4_0+", 1.0),
    Target("one", "inkstone-int8", "transformers-fp32", 3.0),
    Target("one", "inkstone-int8", "transformers-bf16", 3.0),
    *(Target("eight", f"inkstone-{name}", "ctranslate2-int8", 2.5) for name in ("bf16", "int8", "int4")),
    *(
        Target("prefill", f"inkstone-{ours}", peer, 1.0)
        for ours, peer in (
            ("fp32", "transformers-fp32"), ("bf16", "transformers-bf16"), ("int8", "transformers-bf16"), ("fp32", "llama.cpp-bf16"),
            ("bf16", "llama.cpp-bf16"), ("int8", "llama.cpp-q8_0"), ("int4", "llama.cpp-q4_0"), ("int4", "llama.cpp-q4_0+"),
        )
    ),
)  # fmt: skip

Rates = dict[tuple[str, str, str], list[float]]  # (load, peer, figure) → a value a round


@dataclass
class Found:
    """What was measured so far. `agreement`: leading tokens that are those of the first peer; `idle_cores`: kept busy by idle ones."""

    rates: Rates = field(default_factory=dict)
    agreement: dict[str, int] = field(default_factory=dict)
    idle_cores: float = 0.0


def main() -> None:
    """Make the model, start the programs, alternate them, and print what each reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CACHE_FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PEER", help=f"peers, or the beginnings of names: {', '.join(PEERS)}"
    )
    parser.add_argument("--loads", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", choices=list(SHAPES), default="gpt2")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure of every round")
    args = parser.parse_args()
    names = choose_peers(args.only)
    loads = {name: LOADS[args.shape][name] for name in args.loads}
    folder = args.folder / args.shape
    make_model(folder, args.shape)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was measured until then is printed
    found = Found()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(start(name, folder, args.threads)) for name in names]
        try:
            alternate(workers, loads, found, rounds=args.rounds)
        except KeyboardInterrupt:
            print("interrupted: what stands below is not all")
        about = {worker.name: worker.about for worker in workers}
    print_rates(found)
    print_ratios(found.rates)
    if found.idle_cores > MAX_IDLE_SHARE:
        print(f"WARNING: suspended programs kept {found.idle_cores:.2f} cores busy: the figures are worth nothing")
    if args.json:
        rows = [{"load": key[0], "peer": key[1], "figure": key[2], "rounds": values} for key, values in found.rates.items()]
        report = {
            "machine": machine.describe(),
            "arguments": vars(args),
            "peers": about,
            "rates": rows,
            "idle_cores": found.idle_cores,
        }
        args.json.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def choose_peers(only: list[str]) -> list[str]:
    """Return the names of the peers to measure, without --only all that have a chance on this machine."""
    if only:
        chosen = [name for name in PEERS if any(name == begin or name.startswith(f"{begin}-") for begin in only)]
        unknown = [begin for begin in only if not any(name == begin or name.startswith(f"{begin}-") for name in PEERS)]
        if unknown:
            raise SystemExit(f"no peer is called {', '.join(unknown)} (there are: {', '.join(PEERS)})")
        return chosen
    if machine.fast_precision() == "bf16":
        return list(PEERS)
    print("transformers-bf16 is left out: this processor has no bf16 products (name it with --only to measure it all the same)")
    return [name for name in PEERS if name != "transformers-bf16"]


def make_model(folder: Path, shape: str) -> None:
    """Write the model with random weights, once."""
    from inkstone.infer.made_up import write_made_up_model
    from inkstone.nn.config import ModelConfig

    if not (folder / "model").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_made_up_model(folder / "model", ModelConfig.model_validate(SHAPES[shape]))


def start(name: str, folder: Path, threads: int, device: str = "cpu") -> Worker:
    """Return a peer that has loaded its model."""
    print(f"starting {name} …", flush=True)
    flags = ["--folder", str(folder), "--threads", str(threads), "--device", device]
    return Worker(name, worker_command("decode_peers.py", name, *flags), threads=threads)


def alternate(workers: list[Worker], loads: dict[str, Load], found: Found, *, rounds: int) -> None:
    """Let every worker run every load once a round, and put what they reach into `found`."""
    for worker in workers:
        for load in loads.values():
            worker.about = worker.ask(load=astuple(load), seed=-1, prepare=True)
    for number in range(rounds):
        began = time.perf_counter()
        turn = number % len(workers)
        answers: dict[str, dict[str, Any]] = {}
        for load_name, load in loads.items():
            for worker in workers[turn:] + workers[:turn]:  # who comes first changes: turbo and heat favour the early
                answer, share = ask_alone(worker, workers, load=astuple(load), seed=number + 1)
                found.idle_cores = max(found.idle_cores, share)
                for figure in FIGURES[load_name]:
                    found.rates.setdefault((load_name, worker.name, figure), []).append(answer["rates"][figure])
                answers.setdefault(worker.name, answer)
        found.agreement = found.agreement or _agreement(answers, workers[0].name)
        print(f"round {number + 1} of {rounds}: {time.perf_counter() - began:.0f} s", flush=True)


def _agreement(answers: dict[str, dict[str, Any]], reference: str) -> dict[str, int]:
    """Return how many leading tokens of the first stream are those of the reference."""
    expected = answers[reference]["tokens"][0]
    found = {}
    for name, answer in answers.items():
        same = [ours == theirs for ours, theirs in zip(answer["tokens"][0], expected, strict=True)]
        found[name] = same.index(False) if False in same else len(same)
    return found


def print_rates(found: Found) -> None:
    """Print a line for each load, figure and peer."""
    print(f"\n{'load':8} {'figure':8} {'peer':20} {'median':>10}   {'rounds':>21}   tokens/s")
    for (load, peer, figure), values in sorted(found.rates.items(), key=_by_load):
        spread = f"{min(values):,.1f} … {max(values):,.1f}"
        print(f"{load:8} {figure:8} {peer:20} {statistics.median(values):10,.1f}   {spread:>21}")
    same = ", ".join(f"{name} {count}" for name, count in found.agreement.items())
    print(f"\nleading tokens that are those of {next(iter(found.agreement), 'nobody')}: {same}")


def _by_load(row: tuple[tuple[str, str, str], list[float]]) -> tuple[int, int, int]:
    load, peer, figure = row[0]
    return list(FIGURES).index(load), FIGURES[load].index(figure), PEERS.index(peer)


def print_ratios(rates: Rates) -> None:
    """Print ours over theirs for each target whose two sides were measured."""
    print(f"\n{'load':8} {'ours':16} {'peer':20} {'ratio':>6}   {'rounds':>13}   wanted")
    for target in TARGETS:
        figure = FIGURES[target.load][0]
        ours = rates.get((target.load, target.ours, figure), [])
        theirs = rates.get((target.load, target.peer, figure), [])
        if not ours or not theirs:
            continue
        ratios = [a / b for a, b in zip(ours, theirs, strict=False)]  # the last round may be cut short
        middle = statistics.median(ratios)
        spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
        verdict = "met" if middle >= target.at_least else "MISSED"
        print(f"{target.load:8} {target.ours:16} {target.peer:20} {middle:6.2f}   {spread:>13}   {target.at_least:g} {verdict}")


if __name__ == "__main__":
    main()
