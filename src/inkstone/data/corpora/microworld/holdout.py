"""Which questions are never asked in training.

Every fact is told in both languages. But in each language one form of asking for it is held out, and for a few facts all forms of
that language: they are asked only in the other one. A held-out question thus tests whether the model can combine a fact that it was
told with a form that it knows from other facts; none can be answered by recalling the question.
"""

import random
from dataclasses import dataclass
from typing import Literal

from inkstone.base.seeds import derive_seed
from inkstone.data.corpora.microworld.chinese import CHINESE
from inkstone.data.corpora.microworld.english import ENGLISH
from inkstone.data.corpora.microworld.language import Language
from inkstone.data.corpora.microworld.lexicon import CODES, Code
from inkstone.data.corpora.microworld.world import Fact, World

LANGUAGES: dict[Code, Language] = {"en": ENGLISH, "zh": CHINESE}
NUM_FORMS = 5
LANGUAGE_HOLDOUT_EVERY = 12  # of a kind's people, one in twelve is never asked about in one of the languages

_PUNCTUATION = ".。!！?？,，;；"


@dataclass(frozen=True)
class Question:
    """A question with its only right answer; `holdout` says what training never saw: this form, or any form in this language."""

    question: str
    answer: str
    language: Code
    kind: str
    entity: str
    holdout: Literal["form", "language"]


class Holdout:
    """The plan of what may be asked in training."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._form: dict[tuple[Fact, Code], int] = {}
        self._whole: set[tuple[Fact, Code]] = set()
        kinds = dict.fromkeys(fact.kind for fact in world)
        for kind in kinds:
            self._plan([fact for fact in world if fact.kind == kind])

    def forms(self, fact: Fact, code: Code) -> tuple[int, ...]:
        """Return the forms in which training may ask for a fact in a language; none when the whole language is held out."""
        if (fact, code) in self._whole:
            return ()
        return tuple(form for form in range(NUM_FORMS) if form != self._form[fact, code])

    def questions(self, code: Code) -> list[Question]:
        """Return every held-out question of a language, one a fact, in an order that is fair to all kinds."""
        found = []
        for fact in self.world:
            whole: Literal["form", "language"] = "language" if (fact, code) in self._whole else "form"
            language = LANGUAGES[code]
            asked = language.ask(fact, self._form[fact, code])
            found.append(Question(asked, language.tell(self.world, fact), code, fact.kind, fact.entity.en, whole))
        _stream(self.world, "order", code).shuffle(found)
        return found

    def unasked(self, code: Code) -> list[str]:
        """Return every question text that training must not contain: more than `questions` where a whole language is held out."""
        return [
            LANGUAGES[code].ask(fact, form)
            for fact in self.world
            for form in range(NUM_FORMS)
            if form not in self.forms(fact, code)
        ]

    def _plan(self, facts: list[Fact]) -> None:
        """Deal the held-out forms of one kind evenly, and pick the facts that lose a whole language; never both of a fact."""
        people = [fact for fact in facts if fact.entity.group == "person"]
        whole = _stream(self.world, "whole", facts[0].kind).sample(people, 2 * (len(people) // LANGUAGE_HOLDOUT_EVERY))
        for number, code in enumerate(CODES):
            order = list(facts)
            _stream(self.world, "form", facts[0].kind, code).shuffle(order)
            self._form.update({(fact, code): index % NUM_FORMS for index, fact in enumerate(order)})
            self._whole.update((fact, code) for fact in whole[number::2])


def grade(question: Question, reply: str) -> bool:
    """Return whether a reply is the answer exactly, up to outer white space and one final punctuation mark."""
    return _bare(reply) == _bare(question.answer)


def _bare(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text and text[-1] in _PUNCTUATION else text


def _stream(world: World, *names: str) -> random.Random:
    return random.Random(derive_seed(world.seed, "microworld", "holdout", *names))  # noqa: S311 - not for secrets
