"""The ground truth of a microworld: one seed fixes every fact."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from inkstone.base.seeds import derive_seed
from inkstone.data.corpora.microworld.lexicon import ANIMALS, DIETS, ENTITIES, KINDS, TOWNS, VALUES, Code, Entity, Value


@dataclass(frozen=True)
class Fact:
    """One thing that is true: the `kind` of `entity` is `value`."""

    kind: str
    entity: Entity
    value: Value


class World:
    """People, towns and animals with their facts."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.facts: dict[tuple[str, Entity], Fact] = {}
        for group, kinds in KINDS.items():
            for kind in kinds:
                for entity, value in zip(ENTITIES[group], _deal(seed, kind, len(ENTITIES[group])), strict=True):
                    self.facts[kind, entity] = Fact(kind, entity, value)
        self.all_facts = tuple(self.facts.values())
        # What questions are drawn from. There are few towns and animals, so each form about them would be seen too rarely: twice each.
        self.ask_facts = self.all_facts + tuple(fact for fact in self.all_facts if fact.entity.group != "person")
        self._town_of = {town.en: town for town in TOWNS}
        self._slots: dict[tuple[Entity, Code], dict[str, str]] = {}

    def facts_of(self, entity: Entity) -> list[Fact]:
        """Return everything that is known about an entity."""
        return [self.facts[kind, entity] for kind in KINDS[entity.group]]

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.all_facts)

    def value(self, kind: str, entity: Entity) -> Value:
        """Return the value of one fact."""
        return self.facts[kind, entity].value

    def town_of(self, person: Entity) -> Entity:
        """Return the town where a person lives."""
        return self._town_of[self.value("city", person).en]

    def slots(self, entity: Entity, code: Code) -> dict[str, str]:
        """Return what templates may say of an entity (and of a person's town): `{job}` is the phrase, `{job_}` the bare word."""
        key = (entity, code)
        if key not in self._slots:
            known = self.facts_of(entity)
            if entity.group == "person":
                known = known + self.facts_of(self.town_of(entity))
            slots = {fact.kind: fact.value.phrase(code) for fact in known}
            slots.update({f"{fact.kind}_": fact.value.bare(code) for fact in known})
            self._slots[key] = slots
        return self._slots[key]


def _deal(seed: int, kind: str, count: int) -> list[Value]:
    """Return `count` values, each dealt about equally often, so that no guess is better than another."""
    values = list(VALUES[kind])
    if kind == "diet":
        assert len(DIETS) == len(ANIMALS)
        return values
    rng = random.Random(derive_seed(seed, "microworld", "facts", kind))  # noqa: S311 - not for secrets
    dealt: list[Value] = []
    while len(dealt) < count:
        dealt += rng.sample(values, len(values))
    return dealt[:count]
