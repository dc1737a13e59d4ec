"""Sentences with ground truth for the applications: mood, topic, entities, formal and informal, and their translations."""

import random
from dataclasses import dataclass
from string import Formatter
from typing import Literal

from inkstone.data.corpora.microworld.lexicon import ANIMALS, MONTHS, PEOPLE, TOWNS, VALUES, WEEKDAYS, Code, Entity, Value

Sentiment = Literal["positive", "negative", "neutral"]
LABELS: dict[Code, dict[str, str]] = {
    "en": {name: name for name in ("positive", "negative", "neutral", "food", "travel", "work", "animals", "weather")},
    "zh": {
        "positive": "正面",
        "negative": "负面",
        "neutral": "中性",
        "food": "美食",
        "travel": "旅行",
        "work": "工作",
        "animals": "动物",
        "weather": "天气",
    },
}
# Slot → the label of an entity; the other slots are plain words.
ENTITY_LABELS = {
    "person": "PERSON",
    "friend": "PERSON",
    "town": "PLACE",
    "food": "FOOD",
    "animals": "ANIMAL",
    "month": "DATE",
    "weekday": "DATE",
}


@dataclass(frozen=True)
class Span:
    """An entity in a text, by character offsets; `end` is exclusive."""

    start: int
    end: int
    label: str
    text: str


@dataclass(frozen=True)
class Sample:
    """One sentence template and its filling, the same in both languages; `key` identifies it."""

    sentiment: Sentiment
    topic: str
    template: tuple[str, str]
    slots: dict[Code, dict[str, str]]

    def render(self, code: Code) -> tuple[str, list[Span]]:
        """Return the sentence in a language with its entities."""
        return render(self.template[0 if code == "en" else 1], self.slots[code])

    @property
    def key(self) -> str:
        return self.render("en")[0]


# (mood, topic, English, Chinese)
_LABELLED: tuple[tuple[Sentiment, str, str, str], ...] = (
    ("positive", "food", "{person} loved the {food} in {town}.", "{person}太喜欢{town}的{food}了。"),
    ("positive", "food", "The {food} that {person} made for {friend} was wonderful.", "{person}给{friend}做的{food}好吃极了。"),
    ("negative", "food", "{person} was angry because the {food} in {town} was cold.", "{town}的{food}是凉的，{person}很生气。"),
    ("negative", "food", "The {food} on {weekday} was terrible, said {person}.", "{person}说，{weekday}的{food}难吃极了。"),
    ("neutral", "food", "{person} buys {food} in {town} every {weekday}.", "{person}每个{weekday}都在{town}买{food}。"),
    ("neutral", "food", "{person} and {friend} eat {food} on {weekday}.", "{person}和{friend}在{weekday}吃{food}。"),
    ("positive", "travel", "{person} had a wonderful trip to {town} in {month}.", "{person}{month}去{town}的旅行棒极了。"),
    ("positive", "travel", "{friend} was happy to see {person} in {town}.", "{friend}很高兴在{town}见到{person}。"),
    ("negative", "travel", "{person} lost a bag in {town} and was very sad.", "{person}在{town}丢了包，非常难过。"),
    ("negative", "travel", "The train to {town} broke down, and {person} hated it.", "去{town}的火车坏了，{person}烦透了。"),
    ("neutral", "travel", "{person} takes the train to {town} on {weekday}.", "{person}{weekday}坐火车去{town}。"),
    ("neutral", "travel", "In {month}, {person} and {friend} will go to {town}.", "{month}，{person}和{friend}要去{town}。"),
    ("positive", "work", "{person} is proud of the new job in {town}.", "{person}为在{town}的新工作感到自豪。"),
    ("positive", "work", "{friend} thanked {person} for the good work on {weekday}.", "{friend}感谢{person}{weekday}的出色工作。"),
    ("negative", "work", "{person} was tired and unhappy after work on {weekday}.", "{weekday}下班后，{person}又累又不开心。"),
    ("negative", "work", "{person} made a bad mistake at work in {month}.", "{month}，{person}在工作上犯了大错。"),
    ("neutral", "work", "{person} works in {town} from {weekday} on.", "{person}从{weekday}起在{town}上班。"),
    ("neutral", "work", "{person} meets {friend} at work on {weekday}.", "{person}{weekday}上班时和{friend}见面。"),
    ("positive", "animals", "The {animals} of {town} made {person} laugh.", "{town}的{animals}把{person}逗笑了。"),
    ("positive", "animals", "{person} is glad that {friend} likes {animals}.", "{friend}喜欢{animals}，{person}很开心。"),
    ("negative", "animals", "{person} was afraid of the {animals} in {town}.", "{person}害怕{town}的{animals}。"),
    ("negative", "animals", "The {animals} were ill, and {person} cried on {weekday}.", "{animals}病了，{person}{weekday}哭了。"),
    ("neutral", "animals", "There are many {animals} in {town} in {month}.", "{month}，{town}有很多{animals}。"),
    ("neutral", "animals", "{person} and {friend} talk about {animals}.", "{person}和{friend}在谈论{animals}。"),
    ("positive", "weather", "The sun was shining in {town}, and {person} felt great.", "{town}阳光明媚，{person}心情很好。"),
    ("positive", "weather", "{person} enjoyed the beautiful snow on {weekday}.", "{person}很享受{weekday}的美丽雪景。"),
    ("negative", "weather", "The storm in {town} ruined the {weekday} of {person}.", "{town}的暴风雨毁了{person}的{weekday}。"),
    ("negative", "weather", "{person} hates the cold rain in {month}.", "{person}讨厌{month}的冷雨。"),
    ("neutral", "weather", "It rains in {town} in {month}.", "{town}{month}会下雨。"),
    ("neutral", "weather", "{person} reads about the weather in {town}.", "{person}在看{town}的天气消息。"),
)

# (English informal, English formal, Chinese informal, Chinese formal)
_STYLES = (
    (
        "Hey {person}, wanna come to {town} on {weekday}?",
        "Dear {person}, would you like to come to {town} on {weekday}?",
        "喂，{person}，{weekday}来{town}玩呗。",
        "尊敬的{person}，诚邀您于{weekday}来{town}做客。",
    ),
    (
        "Thanks for the {food}, {person}!",
        "Dear {person}, thank you very much for the {food}.",
        "{person}，{food}谢啦！",
        "尊敬的{person}，非常感谢您的{food}。",
    ),
    (
        "Sorry {person}, can't make it on {weekday}.",
        "Dear {person}, I regret that I cannot come on {weekday}.",
        "{person}，{weekday}我来不了啦。",
        "尊敬的{person}，很遗憾，{weekday}我无法前来。",
    ),
    (
        "{person}, gimme a call when you're in {town}.",
        "Dear {person}, please call me when you are in {town}.",
        "{person}，到{town}了打个电话哈。",
        "尊敬的{person}，您到{town}后请给我来电。",
    ),
    (
        "What's up, {person}? Got any news from {town}?",
        "Dear {person}, how are you? Is there any news from {town}?",
        "{person}，咋样啊？{town}有啥消息没？",
        "尊敬的{person}，您好。请问{town}有什么消息吗？",
    ),
    (
        "Yo {person}, the {food} in {town} is awesome!",
        "Dear {person}, the {food} in {town} is excellent.",
        "{person}，{town}的{food}绝了！",
        "尊敬的{person}，{town}的{food}十分美味。",
    ),
    (
        "See ya in {month}, {person}!",
        "Dear {person}, I look forward to seeing you in {month}.",
        "{person}，{month}见啦！",
        "尊敬的{person}，期待{month}与您见面。",
    ),
    (
        "{person}, don't forget the {food} on {weekday}, ok?",
        "Dear {person}, please remember the {food} on {weekday}.",
        "{person}，{weekday}别忘了{food}哈。",
        "尊敬的{person}，请您{weekday}记得带上{food}。",
    ),
)


def draw_sample(rng: random.Random) -> Sample:
    """Return a labelled sentence with random people, places and things."""
    sentiment, topic, english, chinese = rng.choice(_LABELLED)
    return Sample(sentiment, topic, (english, chinese), _draw_slots(rng))


def draw_style(rng: random.Random, code: Code) -> tuple[str, str]:
    """Return (informal, formal): the same message twice."""
    forms = rng.choice(_STYLES)
    slots = _draw_slots(rng)[code]
    informal, formal = forms[:2] if code == "en" else forms[2:]
    return informal.format_map(slots), formal.format_map(slots)


def render(template: str, slots: dict[str, str]) -> tuple[str, list[Span]]:
    """Return the filled template and where its entities stand."""
    text, spans = "", []
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot:
            start, text = len(text), text + slots[slot]
            if slot in ENTITY_LABELS:
                spans.append(Span(start, len(text), ENTITY_LABELS[slot], slots[slot]))
    return text, spans


def _draw_slots(rng: random.Random) -> dict[Code, dict[str, str]]:
    person, friend = rng.sample(PEOPLE, 2)
    drawn: dict[str, Entity | Value] = {
        "person": person,
        "friend": friend,
        "town": rng.choice(TOWNS),
        "food": rng.choice(VALUES["food"]),
        "animals": rng.choice(ANIMALS),
        "month": rng.choice(MONTHS),
        "weekday": rng.choice(WEEKDAYS),
    }
    return {"en": {k: v.en for k, v in drawn.items()}, "zh": {k: v.zh for k, v in drawn.items()}}
