"""The microworld as a corpus: documents to pretrain on, conversations to tune on, held-out questions to be measured by."""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from inkstone.base.errors import ConfigError
from inkstone.base.seeds import derive_seed
from inkstone.data.corpora.microworld import dialogue, exercises, narrative
from inkstone.data.corpora.microworld.holdout import LANGUAGES, Holdout, Question, grade
from inkstone.data.corpora.microworld.language import Language
from inkstone.data.corpora.microworld.lexicon import CODES, Code
from inkstone.data.corpora.microworld.sentences import LABELS
from inkstone.data.corpora.microworld.world import World
from inkstone.data.document import Document

# Share of the bytes by kind of document.
SHARES: dict[str, float] = {
    "facts": 0.26,
    "questions": 0.42,
    "story": 0.1,
    "dialogue": 0.06,
    "translation": 0.07,
    "summary": 0.03,
    "style": 0.02,
    "labels": 0.02,
    "numbers": 0.02,
}
# Share of the first turns of conversations by what the user wants.
_WANTS = {"question": 0.62, "translate": 0.1, "summarize": 0.07, "restyle": 0.06, "classify": 0.05, "number": 0.06, "talk": 0.04}


class Microworld:
    """A small world, told in Chinese and English; a seed fixes everything, on every machine."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.world = World(seed)
        self.holdout = Holdout(self.world)

    def documents(self, num_bytes: int, *, shares: Mapping[str, float] | None = None) -> Iterator[Document]:
        """Yield plain documents until they hold at least `num_bytes` UTF-8 bytes; a smaller corpus is a prefix of a larger one.

        `shares` (kind of document → weight, default `SHARES`) are kept by bytes, and so are the languages, half each.
        Raises: ConfigError for an unknown kind or weights that are not positive.
        """
        weights = _checked_shares(SHARES if shares is None else shares)
        written = {(kind, code): 0.0 for kind in weights for code in CODES}
        total = 0
        for index in count():
            if total >= num_bytes:
                return
            kind, code = min(written, key=lambda slot: written[slot] / weights[slot[0]])
            text = _MAKERS[kind](self._rng("document", index), self, LANGUAGES[code])
            size = len(text.encode())
            written[kind, code] += size
            total += size
            yield Document(text, f"builtin:microworld/{kind}/{code}", index)

    def conversations(self, count: int) -> Iterator[Document]:
        """Yield `count` chats, English and Chinese in turn, of one to four questions."""
        for index in range(count):
            rng = self._rng("conversation", index)
            code = CODES[index % len(CODES)]
            turns = [self._turn(rng, LANGUAGES[code]) for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]
            messages = [
                {"role": role, "content": content}
                for turn in turns
                for role, content in zip(("user", "assistant"), turn, strict=True)
            ]
            yield Document(dialogue.transcript(turns), f"builtin:microworld/chat/{code}", index, tuple(messages))

    def heldout_questions(self, language: Code, n: int | None = None) -> list[Question]:
        """Return held-out questions (all of them when `n` is None), one a fact: training never asked this, but told the fact."""
        return self.holdout.questions(language)[:n]

    def grade(self, question: Question, reply: str) -> bool:
        """Return whether a reply is right: exact, up to outer white space and one final punctuation mark."""
        return grade(question, reply)

    def examples(self, task: str, split: str, n: int) -> Iterator[dict[str, Any]]:
        """Yield `n` examples of classify, tag, translate, summarize or restyle; train, val and test share no input.

        Raises: ConfigError for an unknown task or split.
        """
        return exercises.stream_examples(self.world, task, split, n)

    def _rng(self, *names: str | int) -> random.Random:
        return random.Random(derive_seed(self.seed, "microworld", *names))  # noqa: S311 - not for secrets

    def _turn(self, rng: random.Random, language: Language) -> dialogue.Turn:
        want = rng.choices(list(_WANTS), list(_WANTS.values()))[0]
        if want == "question":
            return dialogue.ask_fact(rng, self.holdout, language)
        if want == "number":
            return dialogue.ask_number(rng, language)
        if want == "talk":
            return rng.choice(language.small_talk)
        return self._exercise(rng, language, want)

    def _exercise(self, rng: random.Random, language: Language, task: str) -> dialogue.Turn:
        """Return a task put as a request; only inputs of the train split are used."""
        example = exercises.draw_example(rng, self.world, task, "train", language.code)  # type: ignore[arg-type]
        if task == "translate":
            request, text, answer = f"to_{example['target_language']}", example["source"], example["target"]
        elif task == "summarize":
            request, text, answer = "summarize", example["text"], example["summary"]
        elif task == "restyle":
            request, text, answer = example["style"], example["text"], example["target"]
        else:
            request, key = rng.choice((("sentiment", "label"), ("topic", "topic")))
            text, answer = example["text"], LABELS[language.code][example[key]]
        return rng.choice(language.phrases[request]).format(text=text), answer


def _facts(rng: random.Random, micro: Microworld, language: Language) -> str:
    return narrative.facts_text(rng, micro.world, language)


def _story(rng: random.Random, micro: Microworld, language: Language) -> str:
    return exercises.draw_example(rng, micro.world, "summarize", "train", language.code)["text"]


def _summary(rng: random.Random, micro: Microworld, language: Language) -> str:
    example = exercises.draw_example(rng, micro.world, "summarize", "train", language.code)
    return f"{example['text']}\n{language.phrases['summary_title'][0]}{example['summary']}"


def _questions(rng: random.Random, micro: Microworld, language: Language) -> str:
    return dialogue.transcript([dialogue.ask_fact(rng, micro.holdout, language) for _ in range(rng.randint(4, 9))])


def _numbers(rng: random.Random, micro: Microworld, language: Language) -> str:
    return dialogue.transcript([dialogue.ask_number(rng, language) for _ in range(rng.randint(3, 7))])


def _dialogue(rng: random.Random, micro: Microworld, language: Language) -> str:
    return dialogue.dialogue_text(rng, micro.holdout, language)


def _translation(rng: random.Random, micro: Microworld, language: Language) -> str:
    pairs = []
    for _ in range(rng.randint(3, 6)):
        example = exercises.draw_example(rng, micro.world, "translate", "train", language.code)
        pair = {example["source_language"]: example["source"], example["target_language"]: example["target"]}
        pairs.append(language.phrases["pair"][0].format(**pair))
    return "\n".join(pairs)


def _style(rng: random.Random, micro: Microworld, language: Language) -> str:
    pairs = []
    for _ in range(rng.randint(2, 4)):
        example = exercises.draw_example(rng, micro.world, "restyle", "train", language.code)
        texts = (example["text"], example["target"])
        informal, formal = texts if example["style"] == "formal" else texts[::-1]
        pairs.append(language.phrases["restyled"][0].format(informal=informal, formal=formal))
    return "\n".join(pairs)


def _labels(rng: random.Random, micro: Microworld, language: Language) -> str:
    names = LABELS[language.code]
    lines = []
    for _ in range(rng.randint(2, 5)):
        example = exercises.draw_example(rng, micro.world, "classify", "train", language.code)
        slots = {"text": example["text"], "label": names[example["label"]], "topic": names[example["topic"]]}
        lines.append(language.phrases["labelled"][0].format(**slots))
    return "\n".join(lines)


_MAKERS: dict[str, Callable[[random.Random, Microworld, Language], str]] = {
    "facts": _facts,
    "questions": _questions,
    "story": _story,
    "dialogue": _dialogue,
    "translation": _translation,
    "summary": _summary,
    "style": _style,
    "labels": _labels,
    "numbers": _numbers,
}


def _checked_shares(shares: Mapping[str, float]) -> dict[str, float]:
    problems = [
        f"microworld shares: expected a kind among {', '.join(_MAKERS)}, found '{kind}'" for kind in shares if kind not in _MAKERS
    ]
    problems += [
        f"microworld shares: expected a weight ≥ 0 for '{kind}', found {weight}" for kind, weight in shares.items() if weight < 0
    ]
    if not problems and not any(shares.values()):
        problems = ["microworld shares: expected at least one weight above 0, found none"]
    if problems:
        raise ConfigError("\n".join(problems))
    return {kind: weight for kind, weight in shares.items() if weight > 0}
