"""Texts that tell: portraits of people, lists, town and animal pages, and stories with their summaries."""

import random

from inkstone.data.corpora.microworld.language import Language, Plot
from inkstone.data.corpora.microworld.lexicon import ENTITIES, KINDS, PEOPLE, TOWNS, WEEKDAYS, Entity, Group
from inkstone.data.corpora.microworld.world import Fact, World

NAME_AGAIN = 0.6  # of the sentences about a person, how many say the name and not the pronoun
CANONICAL = 0.4  # how many tell a fact in its canonical form


def facts_text(rng: random.Random, world: World, language: Language) -> str:
    """Return a page of facts: a portrait of one person, one kind of fact about several people, a town or some animals."""
    pick = rng.random()
    if pick < 0.5:
        return _portrait(rng, world, language, rng.choice(PEOPLE))
    if pick < 0.58:
        return _town_page(rng, world, language)
    group: Group = "person" if pick < 0.86 else "town" if pick < 0.95 else "animal"
    return _list_page(rng, world, language, group)


def story_text(rng: random.Random, world: World, language: Language) -> tuple[str, str]:
    """Return (story, summary in one sentence). The two people live in different towns."""
    first = rng.choice(PEOPLE)
    second = rng.choice([person for person in PEOPLE if world.town_of(person) != world.town_of(first)])
    plot = rng.choice(language.plots)
    slots = _story_slots(rng, world, language, first, second)
    intro = _introduction(rng, world, language, first) + _introduction(rng, world, language, second)
    sentences = intro + [rng.choice(beat).format_map(slots) for beat in plot.beats]
    return language.space.join(sentences), _summary(rng, plot, slots)


def _portrait(rng: random.Random, world: World, language: Language, person: Entity) -> str:
    facts = rng.sample(world.facts_of(person), rng.randint(5, 8))
    sentences = [_told(rng, world, language, facts[0])]
    for fact in facts[1:]:
        pronoun = rng.random() > NAME_AGAIN
        if rng.random() < 0.2:
            sentences.append(language.fill(rng.choice(language.joint), world, person, pronoun=pronoun))
        else:
            sentences.append(_told(rng, world, language, fact, pronoun=pronoun))
    return language.space.join(sentences)


def _town_page(rng: random.Random, world: World, language: Language) -> str:
    town = rng.choice(TOWNS)
    sentences = [_told(rng, world, language, fact) for fact in rng.sample(world.facts_of(town), 2)]
    residents = [person for person in PEOPLE if world.town_of(person) == town]
    rng.shuffle(residents)
    sentences.append(_residents(rng, language, town, residents))
    sentences += [_told(rng, world, language, world.facts["city", person]) for person in residents]
    return language.space.join(sentences)


def _list_page(rng: random.Random, world: World, language: Language, group: Group) -> str:
    kind = rng.choice(KINDS[group])
    facts = [world.facts[kind, entity] for entity in rng.sample(ENTITIES[group], rng.randint(5, 8))]
    return language.space.join(_told(rng, world, language, fact) for fact in facts)


def _residents(rng: random.Random, language: Language, town: Entity, people: list[Entity]) -> str:
    names = [person.name(language.code) for person in people]
    if not names:
        return language.phrases["nobody"][0].format(town=town.name(language.code))
    listed = names[0]
    if len(names) > 1:
        listed = language.phrases["comma"][0].join(names[:-1]) + language.phrases["and"][0] + names[-1]
    return rng.choice(language.phrases["residents"]).format(town=town.name(language.code), names=listed)


def _introduction(rng: random.Random, world: World, language: Language, person: Entity) -> list[str]:
    """Return one or two facts that present a person."""
    facts = rng.sample(world.facts_of(person), rng.randint(1, 2))
    return [_told(rng, world, language, fact, pronoun=index > 0 and rng.random() > NAME_AGAIN) for index, fact in enumerate(facts)]


def _told(rng: random.Random, world: World, language: Language, fact: Fact, *, pronoun: bool = False) -> str:
    form = 0 if rng.random() < CANONICAL else rng.randrange(1, len(language.statements[fact.kind]))
    return language.tell(world, fact, form, pronoun=pronoun and fact.entity.group == "person")


def _story_slots(rng: random.Random, world: World, language: Language, first: Entity, second: Entity) -> dict[str, str]:
    x, y = rng.randint(2, 9), rng.randint(2, 9)
    weekday = rng.choice(WEEKDAYS)
    slots = {"weekday": weekday.en if language.code == "en" else weekday.zh, "x": str(x), "y": str(y), "z": str(x + y)}
    slots["they"] = "她们" if first.gender == second.gender == "f" else "他们"
    return slots | language.cast(world, "a", first) | language.cast(world, "b", second)


def _summary(rng: random.Random, plot: Plot, slots: dict[str, str]) -> str:
    return rng.choice(plot.summaries).format_map(slots)
