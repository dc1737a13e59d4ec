"""One program that writes tokens, as a worker: `python bench/decode_peers.py PEER --folder CACHE` (see decode_speed.py).

Every peer reads the same random prompts, draws greedily, goes on behind end tokens, and is asked in the way that is fastest for it:
transformers through `generate`, CTranslate2 through `generate_batch` with the prompt forwarded at once, llama.cpp through its batch API
with one token a sequence in each decode, and with the better of flash attention on and off for each load.
"""

import argparse
import ctypes
import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import workers

from inkstone.infer.speed import Load, Timing, random_prompts

WARM_UP_TOKENS = 4
TRIALS = 2  # of each setting of llama.cpp


class Peer:
    """A program with a model in memory; `about` says which."""

    about: dict[str, Any]

    def prepare(self, load: Load, seed: int) -> None:
        """Do once, before the rounds, what makes a load fast: here nothing, for every measured run has a short one before it."""

    def run(self, load: Load, seed: int) -> Timing:
        """Return what the load takes."""
        raise NotImplementedError


class Inkstone(Peer):
    """The engine, stepped by hand: what a server does without the server."""

    def __init__(self, folder: Path, precision: str, how: argparse.Namespace) -> None:
        import torch

        from inkstone.cli.served_models import load_in_precision

        torch.set_num_threads(how.threads)
        model = load_in_precision(folder / "model", precision, device=how.device)
        self._network, self._tokenizer = model.network, model.tokenizer
        self._engines: dict[int, Any] = {}
        self._slots = how.slots
        self.about = {"runner": type(self._engine(1).runner).__name__}

    def run(self, load: Load, seed: int) -> Timing:
        """Return what the load takes."""
        from inkstone.infer.speed import time_engine

        return time_engine(self._engine(load.streams), load, seed=seed)

    def _engine(self, streams: int) -> Any:
        from inkstone.infer.engine import Engine
        from inkstone.infer.runners import make_runner

        if streams not in self._engines:
            self._engines = {streams: Engine(make_runner(self._network, num_slots=self._slots or streams), self._tokenizer)}
        return self._engines[streams]


class Transformers(Peer):
    """`generate` of the transformers library with its default cache."""

    def __init__(self, folder: Path, precision: str, how: argparse.Namespace) -> None:
        import torch
        import transformers

        torch.set_num_threads(how.threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self._device = how.device
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype).to(how.device).eval()
        self._model.generation_config.eos_token_id = None  # nothing ends a text
        self.about = {"version": transformers.__version__, "attention": self._model.config._attn_implementation}

    def run(self, load: Load, seed: int) -> Timing:
        """Return what the load takes; the first call of the logits processor says when the prompts are read."""
        import torch

        ids = torch.tensor(random_prompts(load, self._model.config.vocab_size, seed), device=self._device)
        seconds: list[float] = []

        def note(_: Any, scores: Any) -> Any:
            if not seconds:
                if self._device != "cpu":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
            return scores

        start = time.perf_counter()
        made = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=load.new_tokens, do_sample=False, logits_processor=[note], pad_token_id=0
        )  # fmt: skip
        tokens = made[:, load.prompt_tokens :].tolist()  # waits for the device
        return _timing(load, seconds[0], time.perf_counter() - start, tokens)


class CTranslate2(Peer):
    """`generate_batch` of a converted model. Its callback for the first token runs in its own thread, once a token and stream."""

    def __init__(self, folder: Path, precision: str, how: argparse.Namespace) -> None:
        import ctranslate2

        names = {"fp32": "float32", "int8": "int8"}
        path = _once(folder / "ctranslate2", lambda out: _convert_ctranslate2(folder / "model", out))
        self._generator = ctranslate2.Generator(
            str(path), device=how.device, compute_type=names[precision], intra_threads=how.threads, inter_threads=1
        )
        self._vocabulary = _vocabulary(folder / "model")
        self.about = {"version": ctranslate2.__version__, "compute_type": self._generator.compute_type}

    def run(self, load: Load, seed: int) -> Timing:
        """Return what the load takes."""
        prompts = [[self._vocabulary[i] for i in row] for row in random_prompts(load, len(self._vocabulary), seed)]
        seconds: list[float] = []

        def note(step: Any) -> bool:
            if len(seconds) < load.streams:
                seconds.append(time.perf_counter() - start)
            return False

        start = time.perf_counter()
        results = self._generator.generate_batch(
            prompts, max_length=load.new_tokens, min_length=load.new_tokens, sampling_topk=1, include_prompt_in_result=False,
            callback=note,
        )  # fmt: skip
        total = time.perf_counter() - start
        return _timing(load, seconds[-1], total, [result.sequences_ids[0] for result in results])


class Setting(NamedTuple):
    """How llama.cpp computes: with flash attention or not, and how many tokens of a batch at a time."""

    flash: bool
    ubatch: int


class LlamaCpp(Peer):
    """llama.cpp's own batches; the token is the first of the largest logits, found by numpy."""

    def __init__(self, folder: Path, precision: str, how: argparse.Namespace) -> None:
        import llama_cpp

        self._api, self._threads = llama_cpp, how.threads
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        path = _gguf(folder, precision)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._best: dict[tuple[int, int], Any] = {}  # a context for each number of streams and prompt tokens
        system = llama_cpp.llama_print_system_info().decode()
        self.about = {"version": llama_cpp.__version__, "file_bytes": path.stat().st_size, "system": system, "best": {}}

    def prepare(self, load: Load, seed: int) -> None:
        """Find the fastest setting for the load."""
        most = load.streams * load.prompt_tokens
        settings = [Setting(flash, ubatch) for ubatch in sorted({512, max(512, most)}) for flash in (False, True)]
        tried = {}
        for setting in settings:
            context = self._context(load, setting)
            tried[setting] = min(self._timed(context, load, seed).total_seconds for _ in range(TRIALS))
            self._api.llama_free(context)
        best = min(tried, key=tried.__getitem__)
        self._best[load.streams, load.prompt_tokens] = self._context(load, best)
        self.about["best"] |= {f"{load.streams} x {load.prompt_tokens}": best._asdict()}

    def run(self, load: Load, seed: int) -> Timing:
        """Return what the load takes in its fastest setting."""
        return self._timed(self._best[load.streams, load.prompt_tokens], load, seed)

    def _timed(self, context: Any, load: Load, seed: int) -> Timing:
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(context), True)
        prompts = random_prompts(load, self._vocab_size, seed)
        drawn: list[list[int]] = [[] for _ in prompts]
        batch = api.llama_batch_init(load.streams * load.prompt_tokens, 0, 1)
        try:
            start = time.perf_counter()
            self._forward(context, batch, prompts, 0, drawn)
            first = time.perf_counter() - start
            for position in range(load.prompt_tokens, load.prompt_tokens + load.new_tokens - 1):
                self._forward(context, batch, [[row[-1]] for row in drawn], position, drawn)
            total = time.perf_counter() - start
        finally:
            api.llama_batch_free(batch)
        return _timing(load, first, total, drawn)

    def _forward(self, context: Any, batch: Any, rows: list[list[int]], position: int, drawn: list[list[int]]) -> None:
        """Decode rows of equal length at the same position, and append each one's likeliest next token."""
        import numpy as np

        at, length = 0, len(rows[0])
        for row, ids in enumerate(rows):
            for i, token in enumerate(ids):
                batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, position + i, 1, row
                batch.logits[at] = i == length - 1
                at += 1
        batch.n_tokens = at
        if self._api.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        for row, made in enumerate(drawn):
            logits = self._api.llama_get_logits_ith(context, (row + 1) * length - 1)
            made.append(int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax()))

    def _context(self, load: Load, setting: Setting) -> Any:
        api, params = self._api, self._api.llama_context_default_params()
        params.n_ctx = load.streams * api.llama_model_n_ctx_train(self._model)
        params.n_batch, params.n_ubatch = max(512, load.streams * load.prompt_tokens), setting.ubatch
        params.n_seq_max, params.n_threads, params.n_threads_batch = load.streams, self._threads, self._threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED if setting.flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return api.llama_init_from_model(self._model, params)


FAMILIES: dict[str, Callable[[Path, str, argparse.Namespace], Peer]] = {
    "inkstone": Inkstone, "transformers": Transformers, "ctranslate2": CTranslate2, "llama.cpp": LlamaCpp,
}  # fmt: skip
PEERS = (
    "transformers-fp32", "transformers-bf16", "ctranslate2-fp32", "ctranslate2-int8", "llama.cpp-bf16", "llama.cpp-q8_0",
    "llama.cpp-q4_0", "llama.cpp-q4_0+", "inkstone-fp32", "inkstone-bf16", "inkstone-int8", "inkstone-int4",
)  # fmt: skip


def main() -> None:
    """Load one peer and answer: {"load": [streams, prompt, new], "seed": n} → what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--folder", type=Path, required=True, help="where decode_speed.py has put the model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slots", type=int, default=0, help="of Inkstone's engine; 0 = as many as streams")
    args = parser.parse_args()
    channel = workers.take_stdout()
    family, _, precision = args.peer.partition("-")
    peer = FAMILIES[family](args.folder, precision, args)

    def answer(load: list[int], seed: int, prepare: bool = False) -> dict[str, Any]:
        asked = Load(*load)
        if prepare:
            peer.prepare(asked, seed)
            return peer.about
        peer.run(Load(asked.streams, asked.prompt_tokens, min(WARM_UP_TOKENS, asked.new_tokens)), -seed)
        gc.collect()
        timing = peer.run(asked, seed)
        rates = {"prefill": timing.prefill_rate, "decode": timing.decode_rate, "total": timing.total_rate}
        return {"rates": rates, "tokens": timing.tokens}

    workers.answer_questions(peer.about, answer, channel)


def _timing(load: Load, first: float, total: float, tokens: list[list[int]]) -> Timing:
    assert [len(row) for row in tokens] == [load.new_tokens] * load.streams, "a stream ended early"
    return Timing(load, first, total, load.streams * (load.new_tokens - 1), tuple(map(tuple, tokens)))


def _once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return the path after making it where it is not there; a half-made one never stands under its name."""
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        make(unfinished)
        unfinished.rename(path)
    return path


def _convert_ctranslate2(model: Path, out: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(model)).convert(str(out))
    config = json.loads((out / "config.json").read_text())
    config |= {name: config[name] or config["eos_token"] for name in ("bos_token", "unk_token")}  # must be there; nothing uses them
    (out / "config.json").write_text(json.dumps(config))


def _gguf(folder: Path, precision: str) -> Path:
    """Return the exported file; `q4_0+` has four bits in the head too, where the exporter, as llama.cpp's tools, keeps more."""
    from inkstone.checkpoint.exchange import export_gguf

    if precision != "q4_0+":
        return _once(
            folder / f"model-{precision}.gguf", lambda out: _ignore(export_gguf(folder / "model", out, type_name=precision))
        )
    source = _gguf(folder, "bf16")
    return _once(folder / "model-q4_0-pure.gguf", lambda out: _quantize_purely(source, out))


def _quantize_purely(source: Path, out: Path) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp does not quantize {source}")


def _ignore(_: object) -> None:
    """A converter's figures are not wanted."""


def _vocabulary(model: Path) -> list[str]:
    from inkstone.text.tokenizer import Tokenizer

    document = Tokenizer.load(model).document
    known = document["model"]["vocab"] | {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    return sorted(known, key=known.__getitem__)


if __name__ == "__main__":
    main()
