"""Inkstone through HTTP beside its bare engine in the same run; then callers that leave, and more callers than there is room for.

    python bench/serve_load.py CACHE_FOLDER [--precision int8] [--streams 1 8 32] [--rounds 3] [--disconnects 1000] [--json OUT.json]

The model is GPT-2 124M with random weights, kept in CACHE_FOLDER (see decode_speed.py). Server, bare engine and caller are processes of
their own; the engine is suspended while the server is measured, and the server while the engine is. All streams of a load begin at once:
64 tokens of prompt, 128 new ones, greedy. Both sides have the same slots and threads. Wanted: at least 0.9 of the engine's tokens/s; no
slot taken after all callers left; refusals with Retry-After within 50 ms.
"""

import argparse
import contextlib
import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from decode_speed import LOADS, MAX_IDLE_SHARE, SHAPES, make_model
from workers import THREAD_VARIABLES, Worker, ask_alone, worker_command

from inkstone import machine
from inkstone.infer.speed import Load
from inkstone.serve.child import Child, serving
from inkstone.serve.load import percentile

BEHIND = 50  # callers behind a full line


def main() -> None:
    """Start the three processes, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CACHE_FOLDER")
    parser.add_argument("--precision", default="int8", choices=["fp32", "bf16", "int8", "int4"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--parallel", type=int, default=32, help="slots of the server and of the bare engine")
    parser.add_argument("--max-waiting", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--server-cores", type=int, nargs="+", default=[], help="pin server and engine to these")
    parser.add_argument("--client-cores", type=int, nargs="+", default=[], help="pin the caller to these")
    parser.add_argument("--shape", choices=list(SHAPES), default="gpt2")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args()
    folder = args.folder / args.shape
    make_model(folder, args.shape)
    report: dict[str, Any] = {"machine": machine.describe(), "arguments": vars(args)}
    with bench(args, folder) as (child, client, engine):
        report["throughput"] = measure_throughput(args, child, client, engine)
        shape, about = LOADS[args.shape]["one"], {"vocab_size": SHAPES[args.shape]["vocab_size"]}
        if args.disconnects:
            report["disconnects"] = measure_disconnects(args, child, client, shape, about)
        report["overload"] = measure_overload(args, client, shape, about)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


@contextlib.contextmanager
def bench(args: argparse.Namespace, folder: Path) -> Iterator[tuple[Child, Worker, Worker]]:
    """Give the server, the caller and the bare engine, all ready."""
    all_cores = os.sched_getaffinity(0)
    if args.server_cores:
        os.sched_setaffinity(0, args.server_cores)  # what is started now inherits it
    flags = ["--parallel", str(args.parallel), "--max-waiting", str(args.max_waiting), "--precision", args.precision]
    name, slots = f"inkstone-{args.precision}", ["--slots", str(args.parallel)]
    engine_flags = ["--folder", str(folder), "--threads", str(args.threads), *slots]
    with contextlib.ExitStack() as stack:
        variables = dict.fromkeys(THREAD_VARIABLES, str(args.threads))
        child = stack.enter_context(serving(folder / "model", flags, variables=variables))
        engine = Worker(name, worker_command("decode_peers.py", name, *engine_flags), threads=args.threads)
        stack.enter_context(engine)
        os.sched_setaffinity(0, all_cores)
        cores = ["--cores", *map(str, args.client_cores)] if args.client_cores else []
        command = worker_command("load_client.py", child.address[0], str(child.address[1]), *cores)
        yield child, stack.enter_context(Worker("client", command, threads=1)), engine


def measure_throughput(args: argparse.Namespace, child: Child, client: Worker, engine: Worker) -> list[dict[str, Any]]:
    """Alternate bare engine and server at each number of streams; print and return a row for each number."""
    server, shape = psutil.Process(child.pid), LOADS[args.shape]["one"]
    vocab_size = SHAPES[args.shape]["vocab_size"]
    rows = []
    for streams in args.streams:
        load = (streams, shape.prompt_tokens, shape.new_tokens)
        answers: list[dict[str, Any]] = []
        bare: list[float] = []
        for number in range(args.rounds + 1):  # the first warms up
            server.suspend()
            told, idle = ask_alone(engine, [client, engine], load=load, seed=number + 1)
            server.resume()
            bare.append(told["rates"]["total"])
            answer, also_idle = ask_alone(
                client, [client, engine], kind="streams", load=load, vocab_size=vocab_size, seed=1000 + number
            )
            if max(idle, also_idle) > MAX_IDLE_SHARE:
                print(f"WARNING: suspended programs kept {max(idle, also_idle):.2f} cores busy")
            if answer["failed"] or answer["tokens"] != streams * shape.new_tokens:
                raise RuntimeError(f"expected {streams} whole streams of {shape.new_tokens} tokens, got {answer['tokens']} tokens")
            answers.append(answer)
        rows.append(_throughput_row(streams, answers[1:], bare[1:]))
        _print_throughput(rows[-1])
    return rows


def _throughput_row(streams: int, answers: list[dict[str, Any]], bare: list[float]) -> dict[str, Any]:
    http = [answer["tokens_per_second"] for answer in answers]
    firsts, gaps = ([value for answer in answers for value in answer[key]] for key in ("firsts", "gaps"))
    return {
        "streams": streams,
        "http": http,
        "engine": bare,
        "ratios": [ours / theirs for ours, theirs in zip(http, bare, strict=True)],
        "first_token_p50": percentile(firsts, 0.5),
        "first_token_p99": percentile(firsts, 0.99),
        "inter_token_p50": percentile(gaps, 0.5),
        "inter_token_p99": percentile(gaps, 0.99),
    }


def _print_throughput(row: dict[str, Any]) -> None:
    ratio = statistics.median(row["ratios"])
    print(
        f"{row['streams']:3} streams: HTTP {statistics.median(row['http']):8,.1f} tok/s, engine {statistics.median(row['engine']):8,.1f},"
        f" ratio {ratio:.2f} ({min(row['ratios']):.2f} … {max(row['ratios']):.2f}) {'met' if ratio >= 0.9 else 'MISSED'};"
        f" first token p50 {1000 * row['first_token_p50']:.0f} ms, p99 {1000 * row['first_token_p99']:.0f} ms;"
        f" between tokens p50 {1000 * row['inter_token_p50']:.1f} ms, p99 {1000 * row['inter_token_p99']:.1f} ms",
        flush=True,
    )


def measure_disconnects(
    args: argparse.Namespace, child: Child, client: Worker, shape: Load, about: dict[str, Any]
) -> dict[str, Any]:
    """Let callers leave, a tenth of them to warm up; print and return what is left taken, of slots and of memory."""
    server = psutil.Process(child.pid)
    warm_up = (max(1, args.disconnects // 10), shape.prompt_tokens, shape.new_tokens)
    client.ask(kind="disconnects", load=warm_up, seed=1, **about)
    before = server.memory_info().rss
    found = client.ask(kind="disconnects", load=(args.disconnects, *warm_up[1:]), seed=2, **about)
    found["grown_bytes"] = server.memory_info().rss - before
    print(
        f"{found['left']} callers left: {found['free_slots']} of {found['slots']} slots are free {found['seconds_until_free']:.2f} s later,"
        f" memory grew by {found['grown_bytes'] / 2**20:.1f} MiB, the next caller got {found['last_status']}",
        flush=True,
    )
    return found


def measure_overload(args: argparse.Namespace, client: Worker, shape: Load, about: dict[str, Any]) -> dict[str, Any]:
    """Fill slots and line, then ask for more; print and return how the others were refused."""
    room = args.parallel + args.max_waiting
    longest = LOADS[args.shape]["prefill"].prompt_tokens - shape.prompt_tokens
    load = (BEHIND, shape.prompt_tokens, longest)
    found = client.ask(kind="overload", load=load, seed=3, room=room, **about)
    for kind, words in (("calm", "one after the other"), ("burst", "at once")):
        row = found[kind]
        verdict = "met" if row["refused"] == row["with_retry_after"] == row["sent"] and row["seconds_p99"] <= 0.05 else "MISSED"
        print(
            f"{row['sent']} callers behind {room} {words}: {row['refused']} x 429, {row['with_retry_after']} with Retry-After,"
            f" p50 {1000 * row['seconds_p50']:.0f} ms, p99 {1000 * row['seconds_p99']:.0f} ms, {verdict}",
            flush=True,
        )
    return found


if __name__ == "__main__":
    main()
