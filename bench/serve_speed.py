"""What HTTP costs: tokens/s of streamed completions against the bare engine's, and the time to the first token.

    python bench/serve_speed.py CACHE_FOLDER [--model gpt2|tiny] [--precision int8] [--streams 1 8 32] [--rounds 5] [--json OUT.json]

GPT-2 124M with random weights, kept in CACHE_FOLDER. Engine and server are processes of their own, each suspended while the other is
measured; in a round both run every load once, behind a short run that warms them up. Greedy, 64 prompt and 128 new tokens a stream,
end tokens forbidden. The client reads raw sockets in one thread of this process: it has the same cores as the server.
"""

import argparse
import contextlib
import json
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from decode_speed import SHAPES
from workers import SETTLE_SECONDS, Worker, answer_questions, take_stdout, worker_command

from inkstone import machine
from inkstone.infer.speed import Load, random_prompts

AT_LEAST = 0.9  # of the bare engine
MAX_STREAMS = 32
NEW_TOKENS = {"gpt2": (64, 128), "tiny": (8, 24)}
_COMPLETION = re.compile(rb'"completion_tokens":(\d+)')


@dataclass
class Measured:
    """One load over HTTP, or of the bare engine (then without times to the first token). Units: tokens a second, seconds."""

    rate: float
    first_seconds: list[float]


def main() -> None:
    """Measure in rounds, and print a table."""
    args = _parse()
    if args.engine:
        _be_engine(args)
        return
    folder = _make_model(args)
    rates: dict[int, list[tuple[Measured, Measured]]] = {streams: [] for streams in args.streams}
    engine_command = worker_command(
        "serve_speed.py", str(args.cache), "--engine", "--model", args.model, "--precision", args.precision
    )
    with _serve(folder, args) as (url, system), Worker("engine", engine_command, threads=machine.choose_threads()) as engine:
        for number in range(-1, args.rounds):  # the first round only warms up
            for streams in args.streams:
                load = Load(streams, *NEW_TOKENS[args.model])
                bare = Measured(engine.ask(streams=streams, seed=2 * number)["rate"], [])
                system.resume()
                through = ask_server(url, load, vocab_size=SHAPES[args.model]["vocab_size"], seed=2 * number + 1)
                time.sleep(SETTLE_SECONDS)
                system.suspend()
                rates[streams] += [(bare, through)] if number >= 0 else []
    _report(rates, args)


def ask_server(url: str, load: Load, *, vocab_size: int, seed: int) -> Measured:
    """Return what the load takes over HTTP, every stream on a connection of its own and asked for at once.

    Raises: RuntimeError when a stream is not whole.
    """
    address = (urlsplit(url).hostname, urlsplit(url).port)
    bodies = [_body(prompt, load, end_id=vocab_size - 1) for prompt in random_prompts(load, vocab_size - 1, seed)]
    with selectors.DefaultSelector() as selector:
        connections = [socket.create_connection(address) for _ in bodies]
        answers, first = {connection: bytearray() for connection in connections}, {}
        start = time.perf_counter()
        for connection, body in zip(connections, bodies, strict=True):
            connection.sendall(body)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                connection = key.fileobj
                piece = connection.recv(1 << 18)  # type: ignore[union-attr]
                answers[connection] += piece  # type: ignore[index]
                if connection not in first and b"data:" in piece:
                    first[connection] = time.perf_counter() - start
                if not piece:
                    selector.unregister(connection)
        seconds = time.perf_counter() - start
    return Measured(sum(map(_count_tokens, answers.values())) / seconds, sorted(first.values()))


def _body(prompt: list[int], load: Load, *, end_id: int) -> bytes:
    asked = {
        "model": "served", "prompt": prompt, "max_tokens": load.new_tokens, "temperature": 0, "logit_bias": {str(end_id): -100},
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    content = json.dumps(asked).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def _count_tokens(answer: bytearray) -> int:
    found = _COMPLETION.search(answer)
    if found is None or b"[DONE]" not in answer:
        raise RuntimeError(f"a stream is not whole: {bytes(answer[-300:])!r}")
    return int(found[1])


@contextlib.contextmanager
def _serve(folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address of a server in a process of its own, which is suspended, and the process."""
    command = [
        sys.executable,
        "-m",
        "inkstone",
        "serve",
        str(folder),
        "--name",
        "served",
        "--port",
        "0",
        "--precision",
        args.precision,
    ]
    command += ["--parallel", str(MAX_STREAMS), "--ctx-size", str(sum(NEW_TOKENS[args.model])), "--no-ui"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = ""
        assert process.stderr is not None
        for line in process.stderr:
            url = url or next((word for word in line.split() if word.startswith("http://")), "")
            if line.startswith("Ctrl-C"):
                break
        else:
            raise RuntimeError("the server did not start")
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # its log must not fill the pipe
        time.sleep(SETTLE_SECONDS)
        system = psutil.Process(process.pid)
        system.suspend()
        yield url, system
        drain.kill()
    finally:
        process.kill()
        process.wait()


def _be_engine(args: argparse.Namespace) -> None:
    """Measure the bare engine on demand, with the runner that the server has."""
    channel = take_stdout()
    import torch

    from inkstone.cli.served_models import load_in_precision
    from inkstone.infer.engine import Engine
    from inkstone.infer.runners import make_runner
    from inkstone.infer.speed import time_engine

    torch.set_num_threads(machine.choose_threads())
    prompt_tokens, new_tokens = NEW_TOKENS[args.model]
    model = load_in_precision(args.cache / args.model, args.precision, device="cpu")
    runner = make_runner(model.network, num_slots=MAX_STREAMS, max_tokens=prompt_tokens + new_tokens)
    engine = Engine(runner, model.tokenizer)

    def answer(streams: int, seed: int) -> dict[str, Any]:
        return {"rate": time_engine(engine, Load(streams, prompt_tokens, new_tokens), seed=seed).total_rate}

    answer_questions({"runner": type(runner).__name__}, answer, channel)


def _make_model(args: argparse.Namespace) -> Path:
    from inkstone.infer.made_up import write_made_up_model
    from inkstone.nn.config import ModelConfig

    folder = args.cache / args.model
    if not folder.is_dir():
        write_made_up_model(folder, ModelConfig.model_validate(SHAPES[args.model]))
    return folder


def _report(rates: dict[int, list[tuple[Measured, Measured]]], args: argparse.Namespace) -> None:
    print(f"{machine.cpu_name()}, {machine.usable_cores()} cores: {args.model} {args.precision}, {args.rounds} rounds")
    print(f"{'streams':>7} {'engine tok/s':>13} {'http tok/s':>11} {'share':>17} {'first p50':>10} {'first p99':>10}")
    for streams, pairs in rates.items():
        shares = [through.rate / bare.rate for bare, through in pairs]
        first = sorted(seconds for _, through in pairs for seconds in through.first_seconds)
        share = statistics.median(shares)
        print(
            f"{streams:>7} {statistics.median(b.rate for b, _ in pairs):>13.1f} {statistics.median(t.rate for _, t in pairs):>11.1f} "
            f"{share:>6.3f} ({min(shares):.2f}-{max(shares):.2f}) {statistics.median(first):>9.3f}s {first[int(0.99 * (len(first) - 1))]:>9.3f}s "
            f"{'ok' if share >= AT_LEAST else 'below ' + str(AT_LEAST)}"
        )
    if args.json:
        args.json.write_text(json.dumps({str(n): [[asdict(b), asdict(t)] for b, t in pairs] for n, pairs in rates.items()}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--model", choices=list(NEW_TOKENS), default="gpt2")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
