"""What a language brings to the microworld, and how a fact becomes a sentence in it."""

from collections.abc import Mapping
from dataclasses import dataclass

from inkstone.data.corpora.microworld.lexicon import Code, Entity
from inkstone.data.corpora.microworld.world import Fact, World


@dataclass(frozen=True)
class Plot:
    """A story: beats in order, each told in one of several ways, and what happened in one sentence."""

    name: str
    beats: tuple[tuple[str, ...], ...]
    summaries: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """All templates of one language.

    Fact templates say `{S}` / `{s}` for the subject at the start / in the middle of a sentence, `{P}` / `{p}` for its possessive,
    `{his}` for the possessive pronoun, `{n}` for the name, and `{kind}` / `{kind_}` for values. Story templates put `a_` or `b_`
    before those of the first or second person, and `{a}`, `{b}` are their names.
    """

    code: Code
    statements: Mapping[str, tuple[str, ...]]  # by kind; the first is the canonical one, and the answer to every question
    joint: tuple[str, ...]  # two facts of a person in one sentence
    questions: Mapping[str, tuple[str, ...]]  # by kind; NUM_FORMS each
    first_person: Mapping[str, str]
    second_person: Mapping[str, str]
    plots: tuple[Plot, ...]
    pronouns: Mapping[str, tuple[str, str, str]]  # by gender: he, his, him
    possessive: str  # of a name
    space: str  # between sentences
    phrases: Mapping[str, tuple[str, ...]]  # everything said in passing, by occasion
    small_talk: tuple[tuple[str, str], ...]

    def subject(self, entity: Entity, *, pronoun: bool = False) -> dict[str, str]:
        """Return the slots that name the subject of a fact template."""
        name = entity.name(self.code)
        he, his, _ = self.pronouns[entity.gender]
        if pronoun:
            return {"n": name, "S": _capital(he), "s": he, "P": _capital(his), "p": his, "his": his}
        owner = self.possessive.format(name)
        return {"n": name, "S": _capital(name), "s": name, "P": _capital(owner), "p": owner, "his": his}

    def tell(self, world: World, fact: Fact, form: int = 0, *, pronoun: bool = False) -> str:
        """Return the fact as a sentence; form 0 is the canonical one."""
        return self.fill(self.statements[fact.kind][form], world, fact.entity, pronoun=pronoun)

    def fill(self, template: str, world: World, entity: Entity, *, pronoun: bool = False) -> str:
        """Return a fact template about `entity` with all its slots filled."""
        return template.format_map({**world.slots(entity, self.code), **self.subject(entity, pronoun=pronoun)})

    def ask(self, fact: Fact, form: int) -> str:
        """Return a question about the fact in one of its forms."""
        return self.questions[fact.kind][form].format_map(self.subject(fact.entity))

    def cast(self, world: World, role: str, person: Entity) -> dict[str, str]:
        """Return the story slots of a person in the role `a` or `b`."""
        slots = {f"{role}_{key}": text for key, text in world.slots(person, self.code).items()}
        he, his, him = self.pronouns[person.gender]
        slots |= {
            role: person.name(self.code),
            f"{role}_he": he,
            f"{role}_his": his,
            f"{role}_him": him,
            f"{role}_He": _capital(he),
        }
        return slots


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
