"""Exact answers: a chat model is asked questions whose one right answer is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from inkstone.evaluate.intervals import Interval, proportion_interval
from inkstone.infer.batch import continue_greedily
from inkstone.nn.transformer import Transformer
from inkstone.text.chat import render_chat
from inkstone.text.special import IM_END
from inkstone.text.tokenizer import Tokenizer

MAX_ANSWER_TOKENS = 40


class Asked(Protocol):
    """What a question must have."""

    @property
    def question(self) -> str:
        """The user's words."""


Q = TypeVar("Q", bound=Asked)


@dataclass(frozen=True)
class ExactMatch:
    """How many questions were answered exactly, and each reply in the order of the questions."""

    num_right: int
    replies: list[str]
    interval: Interval


def ask(model: Transformer, tokenizer: Tokenizer, questions: Sequence[Q], grade: Callable[[Q, str], bool]) -> ExactMatch:
    """Return the exact-match result of greedy replies to single-turn questions."""
    prompts = [
        render_chat([{"role": "user", "content": q.question}], tokenizer, add_generation_prompt=True)[0] for q in questions
    ]  # fmt: skip
    stops = {tokenizer.eos_id, tokenizer.special[IM_END]}
    replies = [tokenizer.decode(ids) for ids in continue_greedily(model, prompts, stop_ids=stops, max_tokens=MAX_ANSWER_TOKENS)]
    num_right = sum(grade(question, reply) for question, reply in zip(questions, replies, strict=True))
    return ExactMatch(num_right, replies, proportion_interval(num_right, len(questions)))
