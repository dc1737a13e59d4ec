"""Examples of the applications with their ground truth, in three splits that share no input."""

import random
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

from inkstone.base.errors import ConfigError
from inkstone.base.seeds import derive_seed
from inkstone.data.corpora.microworld.dialogue import statement_pair
from inkstone.data.corpora.microworld.holdout import LANGUAGES
from inkstone.data.corpora.microworld.lexicon import CODES, Code
from inkstone.data.corpora.microworld.narrative import story_text
from inkstone.data.corpora.microworld.sentences import draw_sample, draw_style
from inkstone.data.corpora.microworld.world import World

Task = Literal["classify", "tag", "translate", "summarize", "restyle"]
TASKS: tuple[Task, ...] = ("classify", "tag", "translate", "summarize", "restyle")
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Example = dict[str, Any]


def draw_example(rng: random.Random, world: World, task: Task, split: Split, code: Code) -> Example:
    """Return one example whose input is in the language `code`; the input alone decides which split it belongs to."""
    while True:
        key, example = _DRAW[task](rng, world, code)
        if _split_of(world, task, key) == split:
            return example


def stream_examples(world: World, task: str, split: str, count: int) -> Iterator[Example]:
    """Yield `count` examples, the languages in turn.

    Raises: ConfigError for an unknown task or split.
    """
    if task not in TASKS:
        raise ConfigError(f"microworld task: expected one of {', '.join(TASKS)}, found '{task}'")
    if split not in SPLITS:
        raise ConfigError(f"microworld split: expected one of {', '.join(SPLITS)}, found '{split}'")
    for index in range(count):
        rng = random.Random(derive_seed(world.seed, "microworld", "example", task, split, index))  # noqa: S311 - not for secrets
        yield draw_example(rng, world, task, split, CODES[index % len(CODES)])


def _classify(rng: random.Random, world: World, code: Code) -> tuple[str, Example]:
    sample = draw_sample(rng)
    return sample.key, {"text": sample.render(code)[0], "label": sample.sentiment, "topic": sample.topic, "language": code}


def _tag(rng: random.Random, world: World, code: Code) -> tuple[str, Example]:
    sample = draw_sample(rng)
    text, spans = sample.render(code)
    return sample.key, {"text": text, "entities": [asdict(span) for span in spans], "language": code}


def _translate(rng: random.Random, world: World, code: Code) -> tuple[str, Example]:
    if rng.random() < 0.5:
        pair = statement_pair(rng, world)
    else:
        sample = draw_sample(rng)
        pair = {language: sample.render(language)[0] for language in CODES}
    target: Code = "zh" if code == "en" else "en"
    return pair["en"], {"source": pair[code], "target": pair[target], "source_language": code, "target_language": target}


def _summarize(rng: random.Random, world: World, code: Code) -> tuple[str, Example]:
    story, summary = story_text(rng, world, LANGUAGES[code])
    return story, {"text": story, "summary": summary, "language": code}


def _restyle(rng: random.Random, world: World, code: Code) -> tuple[str, Example]:
    informal, formal = draw_style(rng, code)
    style = rng.choice(("formal", "informal"))
    text, target = (informal, formal) if style == "formal" else (formal, informal)
    return informal, {"text": text, "target": target, "style": style, "language": code}


_DRAW = {"classify": _classify, "tag": _tag, "translate": _translate, "summarize": _summarize, "restyle": _restyle}


def _split_of(world: World, task: Task, key: str) -> Split:
    """Return the split of an input: 80 % train, 10 % val, 10 % test. Sentences are split alike for every task that shares them."""
    family = task if task in ("summarize", "restyle") else "sentence"
    draw = derive_seed(world.seed, "microworld", "split", family, key) % 10
    return "test" if draw == 0 else "val" if draw == 1 else "train"
