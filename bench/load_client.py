"""The caller of bench/serve_load.py, as a worker of its own: many streams at once, callers that leave, and more than fit."""

import argparse
import asyncio
import time
from typing import Any

import psutil
import workers

from inkstone.infer.speed import Load, random_prompts
from inkstone.serve.child import NAME
from inkstone.serve.load import Address, Answer, ask, ask_together, completion_body, gauge, percentile, summarize

PHASES = (0, 1, 2, 8)  # events after which callers leave: at once, at the first, in the midst
LEAVERS = 8  # at a time
FULL_SECONDS = 60.0
LOOK_SECONDS = 0.02


def streams(address: Address, load: Load, vocab_size: int, seed: int) -> dict[str, Any]:
    """Return the figures of streams that are sent at once."""
    answers, seconds = asyncio.run(ask_together(address, _bodies(load, vocab_size, seed)))
    return summarize(answers, seconds) | {
        "firsts": [a.first_seconds for a in answers],
        "gaps": [g for a in answers for g in a.gaps],
    }


def disconnects(address: Address, load: Load, vocab_size: int, seed: int) -> dict[str, Any]:
    """Return how long after `streams` callers left their streams every slot was free, and whether a last one is answered."""

    async def leave(waiting: list[tuple[int, bytes]]) -> int:
        refused = 0
        while waiting:
            number, body = waiting.pop()
            leave_after = PHASES[number % len(PHASES)]
            while not (answer := await ask(address, body, leave_after=leave_after)).left or answer.status not in (0, 200):
                refused += answer.status == 429
                leave_after = 1  # the stream was over before
                await asyncio.sleep(LOOK_SECONDS)
        return refused

    async def leave_all() -> int:
        waiting = list(enumerate(_bodies(load, vocab_size, seed)))
        return sum(await asyncio.gather(*(leave(waiting) for _ in range(LEAVERS))))

    refused = asyncio.run(leave_all())
    seconds = _wait_for(address, running=0, waiting=0)
    (last, *_), _ = asyncio.run(ask_together(address, _bodies(Load(1, load.prompt_tokens, 4), vocab_size, seed + 1)))
    return {
        "left": load.streams,
        "refused": refused,
        "seconds_until_free": seconds,
        "running": gauge(address, "running"),
        "waiting": gauge(address, "waiting"),
        "free_slots": gauge(address, "free_slots"),
        "slots": gauge(address, "slots"),
        "last_status": last.status,
    }


def overload(address: Address, load: Load, vocab_size: int, seed: int, room: int) -> dict[str, Any]:
    """Return how quickly a server that `room` long streams fill refuses more: one after the other, then `streams` at once."""

    async def refuse() -> tuple[list[Answer], list[Answer]]:
        fillers = [
            asyncio.create_task(ask(address, body))
            for body in _bodies(Load(room, load.prompt_tokens, load.new_tokens), vocab_size, seed)
        ]
        try:
            await asyncio.to_thread(_wait_for, address, at_least=room)
            more = _bodies(load, vocab_size, seed + 1)
            calm = [await ask(address, body, leave_after=1) for body in more]
            burst, _ = await ask_together(address, more)
            return calm, burst
        finally:
            for filler in fillers:
                filler.cancel()
            await asyncio.gather(*fillers, return_exceptions=True)

    calm, burst = asyncio.run(refuse())
    return {"calm": _refusals(calm), "burst": _refusals(burst), "seconds_until_free": _wait_for(address, running=0, waiting=0)}


def _refusals(answers: list[Answer]) -> dict[str, Any]:
    refused = [answer for answer in answers if answer.status == 429]
    seconds = [answer.first_seconds for answer in refused]
    return {
        "sent": len(answers),
        "refused": len(refused),
        "with_retry_after": sum(answer.retry_after is not None for answer in refused),
        "seconds_p50": percentile(seconds, 0.5),
        "seconds_p99": percentile(seconds, 0.99),
        "seconds_max": max(seconds, default=0.0),
    }


def _bodies(load: Load, vocab_size: int, seed: int) -> list[bytes]:
    return [completion_body(NAME, prompt, load.new_tokens) for prompt in random_prompts(load, vocab_size, seed)]


def _wait_for(address: Address, *, at_least: int = 0, **exactly: int) -> float:
    """Return the seconds until the server's figures are these, or as many streams run or wait; FULL_SECONDS when that never comes."""
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < FULL_SECONDS:
        found = {name: gauge(address, name) for name in ("running", "waiting")}
        if sum(found.values()) >= at_least and all(found[name] == value for name, value in exactly.items()):
            break
        time.sleep(LOOK_SECONDS)
    return spent


def main() -> None:
    """Answer: {"kind": streams | disconnects | overload, "load": [streams, prompt, new], …} → figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--cores", type=int, nargs="+", default=[])
    args = parser.parse_args()
    if args.cores:
        psutil.Process().cpu_affinity(args.cores)
    channel = workers.take_stdout()
    kinds = {"streams": streams, "disconnects": disconnects, "overload": overload}

    def answer(kind: str, load: list[int], **how: Any) -> dict[str, Any]:
        return kinds[kind]((args.host, args.port), Load(*load), **how)

    workers.answer_questions({}, answer, channel)


if __name__ == "__main__":
    main()
