"""How tokens are chosen, as settings: one field for each sampling rule, and the limits of one reply. No torch here."""

import json
from typing import Any

import pydantic

from inkstone.base.settings import Settings, setting

MAX_STOPS = 4  # as in the OpenAI API
MAX_STOP_CHARACTERS = 256
MAX_SEED = 2**63 - 1
MAX_BIASED_TOKENS = 1024
MAX_BIAS = 100  # as in the OpenAI API: nearly a ban, or nearly the only choice


class SamplingSettings(Settings):
    """How one reply is drawn. Types are strict: the text "1" is not a number, and neither is true."""

    model_config = pydantic.ConfigDict(strict=True)

    max_tokens: int = setting(256, "most tokens to generate; a full context ends the text earlier", ge=1, le=2**20)
    temperature: float = setting(0.8, "0 = always the likeliest token; 1 = the model's own distribution", ge=0, le=2)
    top_k: int = setting(0, "keep the k likeliest tokens; 0 = all", ge=0, le=2**24)
    top_p: float = setting(0.95, "keep the likeliest tokens up to this probability; 1 = all", ge=0, le=1)
    min_p: float = setting(0.0, "keep tokens at least this share as likely as the likeliest; 0 = all", ge=0, le=1)
    typical_p: float = setting(1.0, "keep the tokens of most typical surprise up to this probability; 1 = all", ge=0, le=1)
    repetition_penalty: float = setting(1.0, "divide the scores of tokens already in prompt or text; 1 = off", ge=0.1, le=10)
    presence_penalty: float = setting(0.0, "lower the scores of tokens already generated, once; 0 = off", ge=-2, le=2)
    frequency_penalty: float = setting(0.0, "lower the scores of tokens by how often they were generated; 0 = off", ge=-2, le=2)
    no_repeat_ngram: int = setting(0, "never repeat a run of this many tokens; 0 = off", ge=0, le=1024)
    logit_bias: dict[int, float] | None = setting(None, "raise or lower single tokens' scores: '{\"50256\": -100}'; none = off")
    seed: int | None = setting(None, "the same seed gives the same text; none = a new one each time", ge=0, le=MAX_SEED)
    stop: list[str] | None = setting(None, 'end before this text; several as a list: \'["\\n", "###"]\'')

    @pydantic.field_validator("logit_bias", mode="before")
    @classmethod
    def _read_bias(cls, given: Any) -> Any:
        """Return the biases with numbers as keys, which in JSON are text, as is the whole on a command line."""
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                raise ValueError('expected a JSON object such as {"50256": -100}') from None
        if not isinstance(given, dict):
            return given
        return {int(key) if isinstance(key, str) and _is_id(key) else key: bias for key, bias in given.items()}

    @pydantic.field_validator("logit_bias")
    @classmethod
    def _check_bias(cls, biases: dict[int, float] | None) -> dict[int, float] | None:
        if biases is None:
            return None
        if len(biases) > MAX_BIASED_TOKENS:
            raise ValueError(f"expected at most {MAX_BIASED_TOKENS:,} tokens, found {len(biases):,}")
        for token, bias in biases.items():
            if token < 0 or not -MAX_BIAS <= bias <= MAX_BIAS:
                raise ValueError(f"expected token ids from 0 and biases from -{MAX_BIAS} to {MAX_BIAS}, found {token}: {bias}")
        return biases

    @pydantic.field_validator("stop", mode="before")
    @classmethod
    def _list_stops(cls, given: Any) -> Any:
        """Return the stop strings as a list: on a command line a single one needs no brackets, and may look like a number."""
        if given is None or isinstance(given, list | tuple):
            return None if given is None else list(given)
        return [str(given).lower() if isinstance(given, bool) else str(given)]

    @pydantic.field_validator("stop")
    @classmethod
    def _check_stops(cls, stops: list[str] | None) -> list[str] | None:
        if stops is None:
            return None
        if len(stops) > MAX_STOPS:
            raise ValueError(f"expected at most {MAX_STOPS} stop strings, found {len(stops)}")
        for stop in stops:
            if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
                raise ValueError(f"expected stop strings of 1 to {MAX_STOP_CHARACTERS} characters, found one of {len(stop)}")
        return stops


def _is_id(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) <= 9
