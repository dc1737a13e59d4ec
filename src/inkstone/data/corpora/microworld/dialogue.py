"""Texts that ask and answer: questions, small sums, people talking to each other. No held-out question gets out of here."""

import random

from inkstone.data.corpora.microworld.holdout import LANGUAGES, Holdout
from inkstone.data.corpora.microworld.language import Language
from inkstone.data.corpora.microworld.lexicon import KINDS, MONTHS, PEOPLE, WEEKDAYS, Code, Entity, Value
from inkstone.data.corpora.microworld.world import Fact, World

Turn = tuple[str, str]  # what the user says, what the assistant answers


def transcript(turns: list[Turn]) -> str:
    """Return a conversation as plain text, laid out like a rendered chat without its special tokens."""
    return "\n".join(f"user\n{question}\nassistant\n{answer}" for question, answer in turns)


def ask_fact(rng: random.Random, holdout: Holdout, language: Language, *, present: tuple[Entity, ...] = ()) -> Turn:
    """Return a question that training may ask, with its answer; not about those who are present."""
    while True:
        fact = rng.choice(holdout.world.ask_facts)
        forms = holdout.forms(fact, language.code)
        if forms and fact.entity not in present:
            return language.ask(fact, rng.choice(forms)), language.tell(holdout.world, fact)


def ask_sum(rng: random.Random, language: Language) -> Turn:
    """Return a small addition or subtraction."""
    x, y = rng.randint(1, 20), rng.randint(1, 20)
    slots = {"x": x, "y": y, "z": x + y}
    name = rng.choice(("plus", "minus"))
    return rng.choice(language.phrases[name]).format(**slots), language.phrases[f"{name}_answer"][0].format(**slots)


def ask_calendar(rng: random.Random, language: Language) -> Turn:
    """Return a question about the order of months or weekdays."""
    name, cycle = rng.choice((("month_after", MONTHS), ("day_after", WEEKDAYS)))
    index = rng.randrange(len(cycle))
    slots = {"first": _word(cycle[index], language), "second": _word(cycle[(index + 1) % len(cycle)], language)}
    return language.phrases[name][0].format(**slots), language.phrases[f"{name}_answer"][0].format(**slots)


def ask_number(rng: random.Random, language: Language) -> Turn:
    """Return a sum or a calendar question."""
    return ask_sum(rng, language) if rng.random() < 0.5 else ask_calendar(rng, language)


def statement_pair(rng: random.Random, world: World) -> dict[Code, str]:
    """Return a fact told in both languages."""
    fact = rng.choice(world.all_facts)
    return {code: language.tell(world, fact) for code, language in LANGUAGES.items()}


def dialogue_text(rng: random.Random, holdout: Holdout, language: Language) -> str:
    """Return two people who greet, ask each other about themselves and about others, and part."""
    world = holdout.world
    first, second = rng.sample(PEOPLE, 2)
    names = {"a": first.name(language.code), "b": second.name(language.code), "weekday": _word(rng.choice(WEEKDAYS), language)}
    lines = [(names["a"], _phrase(rng, language, "hello", names)), (names["b"], _phrase(rng, language, "hello_back", names))]
    for kind in rng.sample(KINDS["person"], rng.randint(2, 3)):
        lines.append((names["a"], language.second_person[kind]))
        answer = _first_person(language, world, world.facts[kind, second])
        lines.append((names["b"], answer + language.space + _phrase(rng, language, "and_you", names)))
        lines.append((names["a"], _first_person(language, world, world.facts[kind, first])))
    for _ in range(rng.randint(0, 2)):
        question, answer = ask_fact(rng, holdout, language, present=(first, second))
        lines += [(names["b"], question), (names["a"], answer)]
    lines += [(names["a"], _phrase(rng, language, "goodbye", names)), (names["b"], _phrase(rng, language, "goodbye_back", names))]
    colon = ": " if language.code == "en" else "："
    return "\n".join(f"{name}{colon}{said}" for name, said in lines)


def _first_person(language: Language, world: World, fact: Fact) -> str:
    return language.first_person[fact.kind].format_map(world.slots(fact.entity, language.code))


def _phrase(rng: random.Random, language: Language, name: str, slots: dict[str, str]) -> str:
    return rng.choice(language.phrases[name]).format_map(slots)


def _word(value: Value, language: Language) -> str:
    return value.bare(language.code)
