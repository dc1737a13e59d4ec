"""Inkstone for notebooks and other programs: `inkstone.pretrain(…)` makes a run, `inkstone.load(path)` gives its `Model`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pydantic
import torch

from inkstone.base.errors import ConfigError, RequestError
from inkstone.base.family import nearest
from inkstone.base.log import warn
from inkstone.base.settings import Settings
from inkstone.checkpoint.model_folder import GENERATION_NAME, load_model
from inkstone.checkpoint.weights import read_json
from inkstone.infer.beam import BeamSettings, BeamText, beam_texts
from inkstone.infer.config import SamplingSettings
from inkstone.infer.constraint_compile import ConstraintCompiler
from inkstone.infer.conversation import fit_conversation, require_answerable, require_chat_tokens
from inkstone.infer.embed import embed_texts
from inkstone.infer.generate import Generation, Reply, make_engine
from inkstone.infer.prompt import encode_prompt
from inkstone.infer.score import Score, score_text, score_texts
from inkstone.machine import fast_precision

if TYPE_CHECKING:
    from inkstone.infer.engine import Engine
    from inkstone.infer.request import Constraint
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer
    from inkstone.train.config import PretrainSettings


_SLOTS = 2  # a conversation keeps its place in the cache beside one text of another kind
_FEWEST_POSITIONS = 512
_FORMS = ("json_schema", "regex", "choice")
_RECOMMENDABLE = frozenset(SamplingSettings.model_fields) - {"seed", "stop", "logit_bias"}
_HUGGING_FACE_NAMES = {"max_new_tokens": "max_tokens", "no_repeat_ngram_size": "no_repeat_ngram"}


class Model:
    """A transformer with its tokenizer, ready to be asked.

    Sampling is given by name wherever text is made: max_tokens, temperature, top_k, top_p, min_p, typical_p, repetition_penalty,
    presence_penalty, frequency_penalty, no_repeat_ngram, logit_bias, seed, stop. What is not given is as the model's
    generation_config.json has it. One of json_schema (a dict), regex (matched as a whole) and choice (a list of texts) may be given
    the same way: the text then has that form, unless max_tokens cuts it off.
    Prompts that begin alike are read once: the beginning of the last ones stays in the cache.
    """

    def __init__(
        self, network: "Transformer", tokenizer: "Tokenizer", *, is_chat_tuned: bool = True, sampling: dict[str, Any] | None = None
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.sampling = sampling or {}  # what its folder recommends; lies below what a caller gives
        self.is_chat_tuned = is_chat_tuned  # a base model goes on with a text, where a tuned one answers
        self._engine: Engine | None = None
        self._compiler = ConstraintCompiler(tokenizer)

    def generate(self, prompt: str = "", **sampling: Any) -> Generation:
        """Return the text that follows `prompt`; an empty prompt begins a new document.

        Raises: RequestError when the prompt is longer than the model's context, or a sampling value is out of bounds.
        """
        return self.reply(prompt, *self._asked(sampling)).finish()

    def stream(self, prompt: str = "", **sampling: Any) -> Iterator[str]:
        """Return the same text piece by piece, each of whole characters. Raises: as `generate`, at once."""
        return iter(self.reply(prompt, *self._asked(sampling)))

    def chat(self, messages: list[dict[str, str]], **sampling: Any) -> Generation:
        """Return the assistant's answer to `messages` ({"role": system | user | assistant, "content": text}).

        The oldest turns are left out where the conversation is longer than the context.
        Raises: RequestError for messages that cannot be answered, ConfigError when the tokenizer has no chat tokens.
        """
        return self.chat_reply(messages, *self._asked(sampling))[0].finish()

    def stream_chat(self, messages: list[dict[str, str]], **sampling: Any) -> Iterator[str]:
        """Return the same answer piece by piece. Raises: as `chat`, at once."""
        return iter(self.chat_reply(messages, *self._asked(sampling))[0])

    def beam(
        self, prompt: str = "", *, num_beams: int = 4, num_results: int = 1, max_tokens: int = 256, length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False, no_repeat_ngram: int = 0,
    ) -> list[BeamText]:  # fmt: skip
        """Return the likeliest texts that beam search finds behind `prompt`, best first; nothing is drawn. Raises: RequestError.

        The settings are those of `inkstone.infer.beam.BeamSettings`.
        """
        settings = BeamSettings(num_beams, max_tokens, length_penalty, early_stopping, num_results, no_repeat_ngram)
        ids = encode_prompt(prompt, self.tokenizer, self.network.config.context)
        return beam_texts(self.network, self.tokenizer, ids, settings)

    @overload
    def score(self, text: str) -> Score: ...

    @overload
    def score(self, text: list[str]) -> list[Score]: ...

    def score(self, text: str | list[str]) -> Score | list[Score]:
        """Return how likely the model finds a text, or each of several. Raises: RequestError when one has fewer than two tokens."""
        if isinstance(text, str):
            return score_text(self.network, self.tokenizer, text)
        return score_texts(self.network, self.tokenizer, text)

    def embed(self, text: str | list[str], *, normalize: bool = False) -> np.ndarray:
        """Return a text's vector, or one for each of several: the mean of the last hidden states over its tokens.

        `normalize` gives it length 1. Shapes: (D,) float32 for one text, (N, D) for a list. Raises: RequestError.
        """
        vectors_ND = embed_texts(self.network, self.tokenizer, [text] if isinstance(text, str) else text, normalize=normalize)
        return vectors_ND[0].numpy() if isinstance(text, str) else vectors_ND.numpy()

    def constraint(
        self, *, json_schema: dict[str, Any] | None = None, regex: str | None = None, choice: Sequence[str] | None = None
    ) -> "Constraint | None":
        """Return what holds one text to a form; None without one. Raises: RequestError when it cannot be kept, or there are several."""
        given = {"json_schema": json_schema, "regex": regex, "choice": choice}
        forms = [name for name, value in given.items() if value is not None]
        if len(forms) > 1:
            raise RequestError(f"expected one form of the text, found {' and '.join(forms)}")
        return getattr(self._compiler, forms[0])(given[forms[0]]) if forms else None

    def complete(self, settings: SamplingSettings) -> SamplingSettings:
        """Return `settings` with what nobody chose replaced by what the model's folder recommends."""
        return self._settings(settings.model_dump(exclude_unset=True))

    def _asked(self, given: dict[str, Any]) -> tuple[SamplingSettings, "Constraint | None"]:
        forms = {name: given[name] for name in _FORMS if name in given}
        settings = self._settings({name: value for name, value in given.items() if name not in forms})
        return settings, self.constraint(**forms)

    def _settings(self, given: dict[str, Any]) -> SamplingSettings:
        return sampling_settings(self.sampling | given)

    def reply(self, prompt: str, settings: SamplingSettings, constraint: "Constraint | None" = None) -> Reply:
        """Return the text after `prompt` as a `Reply`: pieces first, figures afterwards."""
        return self._reply(encode_prompt(prompt, self.tokenizer, self.network.config.context), settings, constraint)

    def chat_reply(
        self, messages: list[dict[str, str]], settings: SamplingSettings, constraint: "Constraint | None" = None
    ) -> tuple[Reply, int]:
        """Return the answer as a `Reply`, and how many of the oldest messages were left out."""
        require_chat_tokens(self.tokenizer)
        require_answerable(messages)
        context = self.network.config.context
        ids, num_dropped = fit_conversation(messages, self.tokenizer, context=context, max_tokens=settings.max_tokens)
        return self._reply(ids, settings, constraint), num_dropped

    def _reply(self, ids: list[int], settings: SamplingSettings, constraint: "Constraint | None") -> Reply:
        engine = self._engine_for(len(ids) + settings.max_tokens)
        return Reply(self.network, self.tokenizer, ids, settings, engine=engine, constraint=constraint)

    def _engine_for(self, num_tokens: int) -> "Engine":
        """Return an engine for so many tokens of prompt and text: the last one, or one of twice its size where that is too small.

        A context can be much longer than what is asked for, and its cache larger than the memory.
        """
        needed = min(num_tokens, self.network.config.context)
        if self._engine is None or self._engine.runner.max_tokens < needed:
            size = max(_FEWEST_POSITIONS, 1 << (needed - 1).bit_length())
            self._engine = make_engine(self.network, self.tokenizer, num_tokens=size, num_slots=_SLOTS)
        return self._engine


def load(
    path: str | os.PathLike[str], *, device: str = "cpu", dtype: torch.dtype | None = None, scheme: str | None = None
) -> Model:
    """Return the model of a run, a checkpoint or a Hugging Face-style folder; `dtype` None is the one that is fast there.

    `scheme` (int8, int4) packs the weights.
    Raises: ConfigError for a device that is not there, CheckpointError for a folder that holds no sound model.
    """
    check_device(device)
    network, tokenizer = load_model(Path(path), device=device, dtype=dtype or _fast_dtype(device), scheme=scheme)
    if device == "cpu" and network.compute_dtype == torch.bfloat16 and fast_precision() == "fp32":
        network.compute_dtype = torch.float32  # bf16 weights halve what is read; products of it are very slow on this processor
    generation = _generation_config(Path(path))
    return Model(network, tokenizer, is_chat_tuned=generation.get("chat") is True, sampling=_recommended(generation))


def pretrain(
    *, data: str | os.PathLike[str], out: str | os.PathLike[str], init: str | os.PathLike[str] | None = None, overwrite: bool = False,
    **sections: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train a model on a prepared data folder and return the run's figures, as `inkstone pretrain --json` does.

    `sections` are the settings of a recipe, by section: `model={"depth": 4}, train={"max_steps": 100}`. The same call goes on with a
    run that was interrupted.
    Raises: ConfigError that lists every wrong setting; else as `inkstone.train.run.pretrain`.
    """
    from inkstone.cli.pretrain import make_hooks, write_pages
    from inkstone.data.shards import load_manifest
    from inkstone.train.run import pretrain as train

    settings = pretrain_settings(sections)
    load_manifest(Path(data))
    hooks = make_hooks(settings, Path(data), Path(out))
    start = None if init is None else Path(init)
    figures = train(settings, data=Path(data), out=Path(out), overwrite=overwrite, init=start, hooks=hooks)
    write_pages(Path(out))
    return figures


def _fast_dtype(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device == "cpu" and fast_precision() == "bf16" else torch.float32


def is_chat_tuned(path: Path) -> bool:
    """Return what the model's generation_config.json says under "chat"; a folder without that file is a base model."""
    return _generation_config(path).get("chat") is True


def _generation_config(path: Path) -> dict[str, Any]:
    for folder in (path, path / "best", path / "final"):
        if (folder / GENERATION_NAME).is_file():
            return read_json(folder, GENERATION_NAME)
    return {}


def _recommended(generation: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling defaults of a generation_config.json under our names; one that makes no sense is left out with a warning."""
    found: dict[str, Any] = {}
    for name, value in generation.items():
        ours = _HUGGING_FACE_NAMES.get(name, name)
        if ours not in _RECOMMENDABLE or value is None:
            continue
        try:
            found |= SamplingSettings.model_validate({ours: value}).model_dump(include={ours})
        except pydantic.ValidationError as error:
            warn(
                f"{GENERATION_NAME}: {name} is left out: {error.errors()[0]['msg'].removeprefix('Value error, ')}, found {value!r:.80}"
            )
    return found


def check_device(name: str) -> None:
    """Raises: ConfigError that lists the devices that are there, when `name` is none of them."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        there.append("cuda")
    if torch.backends.mps.is_available():
        there.append("mps")
    if name not in there:
        raise ConfigError(f"device: expected one of {', '.join(there)}, found '{name}'")


def sampling_settings(values: dict[str, Any]) -> SamplingSettings:
    """Return the settings of one call. Raises: RequestError that lists every problem, one a line."""
    try:
        return SamplingSettings.model_validate(values)
    except pydantic.ValidationError as error:
        raise RequestError(
            "\n".join(_explain(SamplingSettings, detail, "sampling setting") for detail in error.errors())
        ) from error


def pretrain_settings(sections: dict[str, Any]) -> "PretrainSettings":
    """Return the settings of one run. Raises: ConfigError that lists every problem, one a line."""
    from inkstone.train.config import PretrainSettings

    try:
        return PretrainSettings.model_validate(sections)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_explain(PretrainSettings, detail, "setting") for detail in error.errors())) from error


def _explain(root: type[Settings], detail: Any, what: str) -> str:
    name = ".".join(map(str, detail["loc"]))
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        owner: Any = root
        for part in detail["loc"][:-1]:
            owner = owner.model_fields[part].annotation
        return f"{name}: unknown {what}{nearest(detail['loc'][-1], owner.model_fields)}"
    if not name or isinstance(detail["input"], dict):  # of a whole section: the message says what does not go together
        return f"{name}: {message}" if name else message
    return f"{name}: {message}, found {detail['input']!r:.80}"
