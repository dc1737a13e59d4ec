"""Models for the contract's tests: one that continues as a script says, and one of random weights; and ways to ask them."""

import functools
import json
import zlib
from types import SimpleNamespace

import anyio.from_thread
import numpy as np
import torch
from starlette.testclient import TestClient

from inkstone.infer.engine import Engine
from inkstone.infer.engine_thread import EngineThread
from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.serve.app import ServerState, build_app
from inkstone.serve.config import ServeSettings
from inkstone.serve.models import ServedModel
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)

TEXTS = ["The stone grinds the ink, 砚台研墨。\n", "a family 👨‍👩‍👧 writes, the ink dries. 墨干了。\n"] * 4
CONTEXT = 96


@functools.lru_cache
def tokenizer():
    """A small vocabulary: most characters that are not ASCII take several tokens."""
    return train_bpe(TEXTS, 300)


class ScriptRunner:
    """Scores so that after the ids [i, …] of a slot comes `follow(ids)`, with a chance that greedy and sampled draws agree on."""

    def __init__(self, follow, *, num_slots=8, max_tokens=CONTEXT, chunk_tokens=16):
        self.follow, self.num_slots, self.max_tokens, self.chunk_tokens = follow, num_slots, max_tokens, chunk_tokens
        self.vocab_size = tokenizer().vocab_size
        self.slots = [[] for _ in range(num_slots)]

    def prefill(self, slot, ids, start):
        del self.slots[slot][start:]
        rows = []
        for token in ids:
            self.slots[slot].append(token)
            rows.append(self._state(slot))
        return torch.tensor(rows)

    def decode(self, ids, slots, positions):
        rows = []
        for token, slot, position in zip(ids, slots, positions, strict=True):
            del self.slots[slot][position:]
            self.slots[slot].append(token)
            rows.append(self._state(slot))
        return torch.tensor(rows)

    def _state(self, slot):
        return [float(self.follow(list(self.slots[slot])))]

    def logits(self, hidden_RD):
        logits_RV = torch.linspace(-1, 0, self.vocab_size).repeat(len(hidden_RD), 1)
        for row, (token,) in zip(logits_RV, hidden_RD.tolist(), strict=True):
            if token != token:
                row[:] = torch.nan
            else:
                row[int(token)] = 50.0
        return logits_RV

    def copy(self, source, target, num_tokens):
        self.slots[target] = self.slots[source][:num_tokens]


class DiceRunner(ScriptRunner):
    """Scores that are a pure function of a slot's ids: a model that costs nothing and knows no neighbours."""

    def __init__(self, **options):
        super().__init__(None, **options)

    def _state(self, slot):
        return [float(zlib.crc32(repr(self.slots[slot]).encode()) >> 8)]

    def logits(self, hidden_RD):
        rows = [np.random.default_rng(int(state)).normal(0, 2, self.vocab_size) for state in hidden_RD[:, 0].tolist()]
        return torch.from_numpy(np.stack(rows).astype(np.float32))


def say(text, *, ends=True):
    """Return a script: whatever the prompt, continue with the tokens of `text`, then end (or begin again)."""
    script = tokenizer().encode(text) if isinstance(text, str) else list(text)
    script = [*script, tokenizer().eos_id] if ends else script
    return Script(script)


class Script:
    """Counts from the end of the prompt, which it learns from the first call behind each prefill."""

    def __init__(self, ids):
        self.ids, self.prompts = ids, {}

    def __call__(self, held):
        for length in range(len(held), 0, -1):
            if tuple(held[:length]) in self.prompts:
                return self.ids[(len(held) - length) % len(self.ids)]
        return self.ids[0]

    def expect(self, prompt_ids):
        """Say that a prompt of these ids comes, so that the script begins behind it."""
        self.prompts[tuple(prompt_ids)] = True


@functools.lru_cache
def random_network():
    shape = {"num_layers": 1, "num_heads": 2, "width": 32, "context": CONTEXT, "vocab_size": tokenizer().vocab_size}
    return Transformer(ModelConfig(**shape), seed=3).eval().requires_grad_(False)


def serve_runner(runner, name="m", *, max_waiting=64, network=None, **fields):
    """Return a served model around a runner; its thread runs."""
    thread = EngineThread(Engine(runner, tokenizer(), max_waiting=max_waiting))
    if isinstance(getattr(runner, "follow", None), Script):  # let the script see where each prompt ends
        submit = thread.engine.submit

        def expecting(request, listener):
            runner.follow.expect(request.prompt_ids)
            return submit(request, listener)

        thread.engine.submit = expecting
    thread.start()
    return ServedModel(
        name=name, created=1_700_000_000, tokenizer=tokenizer(), context=CONTEXT, thread=thread, is_chat_tuned=True,
        model=SimpleNamespace(network=network or random_network()), **fields,
    )  # fmt: skip


def random_model(name="m", *, num_slots=8, **fields):
    return serve_runner(TorchRunner(random_network(), num_slots=num_slots, chunk_tokens=16), name, **fields)


def script_model(text, name="m", *, ends=True, **fields):
    return serve_runner(ScriptRunner(say(text, ends=ends)), name, **fields)


class Api:
    """The application without a socket."""

    def __init__(self, *models, **settings):
        state = ServerState(ServeSettings(**settings), has_page=False)
        for model in models:
            state.models.add(model)
        state.lifecycle.become_ready()
        self.app = build_app(state)
        self.client = TestClient(self.app, base_url="http://127.0.0.1:8000")
        self.models = models

    def __enter__(self):
        self._portal = anyio.from_thread.start_blocking_portal()
        self.client.portal = self._portal.__enter__()  # one event loop for all requests, as in a server
        return self

    def __exit__(self, *_):
        self._portal.__exit__(None, None, None)
        for model in self.models:
            model.thread.stop()

    def post(self, path, **body):
        return self.client.post(path, json={"model": "m"} | body)

    def complete(self, prompt="The", **body):
        return good(self.post("/v1/completions", prompt=prompt, **body))

    def chat(self, messages="Hello", **body):
        return good(self.post("/v1/chat/completions", messages=as_messages(messages), **body))

    def refused(self, path, **body):
        """Return the error of a request that must be the caller's fault."""
        answer = self.post(path, **body)
        assert answer.status_code == 400, (answer.status_code, answer.text)
        return error_of(answer)

    def stream(self, path, **body):
        """Return the events of a stream: objects, and "[DONE]"."""
        answer = self.post(path, stream=True, **body)
        assert answer.status_code == 200, answer.text
        return events_of(answer.content)

    def stream_completion(self, prompt="The", **body):
        return self.stream("/v1/completions", prompt=prompt, **body)

    def stream_chat(self, messages="Hello", **body):
        return self.stream("/v1/chat/completions", messages=as_messages(messages), **body)


def as_messages(messages):
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def good(answer):
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return answer.json()


def error_of(answer):
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and len(answer.content) <= 4096
    return error


def events_of(content):
    """Return the data of each event; whatever is neither data nor a comment is a mistake."""
    assert content.endswith(b"\n\n")
    found = []
    for block in content.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        assert block.startswith("data: ") and "\n" not in block, block
        data = block.removeprefix("data: ")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found


def fold_completion(events):
    """Return {index: (text, finish, logprobs)} of a stream of /v1/completions, put together by hand."""
    assert events[-1] == "[DONE]"
    found = {}
    for event in events[:-1]:
        for choice in event["choices"]:
            whole = found.setdefault(choice["index"], {"text": "", "finish": None, "logprobs": None})
            assert whole["finish"] is None, "something came behind the end"
            whole["text"] += choice["text"]
            whole["finish"] = choice["finish_reason"]
            if choice["logprobs"] is not None:
                if whole["logprobs"] is None:
                    whole["logprobs"] = {name: [] for name in choice["logprobs"]}
                for name, values in choice["logprobs"].items():
                    whole["logprobs"][name] += values
    return found


def fold_chat(events):
    """Return {index: (text, finish, logprobs)} of a stream of /v1/chat/completions, and check the order of its parts."""
    assert events[-1] == "[DONE]"
    found, usage_seen = {}, False
    for event in events[:-1]:
        assert not usage_seen, "something came behind the usage"
        if not event["choices"]:
            usage_seen = True
        for choice in event["choices"]:
            index, delta = choice["index"], choice["delta"]
            if "role" in delta:
                assert index == len(found) and delta == {"role": "assistant", "content": "", "refusal": None}
                found[index] = {"text": "", "finish": None, "logprobs": []}
                continue
            whole = found[index]
            assert whole["finish"] is None, "something came behind the end"
            assert bool(delta) != bool(choice["finish_reason"]), "the end is a chunk of its own"
            whole["text"] += delta.get("content", "")
            whole["finish"] = choice["finish_reason"]
            whole["logprobs"] += (choice["logprobs"] or {}).get("content", [])
    return found
