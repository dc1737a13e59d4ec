"""The microworld: one seed, one world, and nothing held out ever gets into training."""

import hashlib
import re
from collections import Counter
from itertools import pairwise

import pytest

from inkstone.base.errors import ConfigError
from inkstone.data.corpora.microworld import SHARES, SPLITS, TASKS, Microworld
from inkstone.data.corpora.microworld.holdout import LANGUAGES, NUM_FORMS
from inkstone.data.corpora.microworld.lexicon import CODES, ENTITIES, KINDS, VALUES
from inkstone.data.corpora.microworld.sentences import _LABELLED, ENTITY_LABELS

BYTES = 3_000_000
RECORDED_DOCUMENTS = "f7bb956ead2f43da54c339e9a3f6629cc97121cbf7bbb91078cef2eb9fcd7ba7"
RECORDED_CONVERSATIONS = "8f0080030b766e427debe74294135060fd6265291f9f7f3ba7f23c493391ec7a"
TELLING = ("facts", "story", "summary", "dialogue", "translation")  # documents that tell facts without the assistant


@pytest.fixture(scope="module")
def micro():
    return Microworld(0)


@pytest.fixture(scope="module")
def documents(micro):
    return list(micro.documents(BYTES))


@pytest.fixture(scope="module")
def conversations(micro):
    return list(micro.conversations(4000))


def digest(documents):
    return hashlib.sha256("\0".join(d.source + d.text for d in documents).encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_on_every_machine():
    # Recorded: a change here changes every published figure on the microworld, so it must be on purpose.
    assert digest(Microworld(0).documents(50_000)) == RECORDED_DOCUMENTS
    assert digest(Microworld(0).conversations(50)) == RECORDED_CONVERSATIONS


def test_another_seed_gives_another_world():
    first, second = Microworld(0), Microworld(1)
    assert digest(first.documents(20_000)) != digest(second.documents(20_000))
    answers = [{q.question: q.answer for q in micro.heldout_questions("en")} for micro in (first, second)]
    assert answers[0] != answers[1]
    same = sum(a.value == b.value for a, b in zip(first.world, second.world, strict=True))
    assert same < len(list(first.world)) / 3


def test_size_is_met_by_less_than_one_document_over(micro):
    for num_bytes in (0, 1, 10_000):
        sizes = [len(d.text.encode()) for d in micro.documents(num_bytes)]
        assert sum(sizes) >= num_bytes
        assert sum(sizes[:-1]) < num_bytes or not sizes


def test_a_smaller_corpus_is_a_prefix_of_a_larger(micro):
    small = list(micro.documents(10_000))
    assert small == list(micro.documents(30_000))[: len(small)]


def test_shares_of_languages_and_kinds_are_kept_by_bytes(documents):
    sizes = Counter()
    for document in documents:
        _, kind, code = document.source.split("/")
        sizes[kind, code] += len(document.text.encode())
    total = sum(sizes.values())
    for kind, share in SHARES.items():
        for code in CODES:
            assert sizes[kind, code] / total == pytest.approx(share / 2, abs=0.002)


def test_own_shares_leave_kinds_out_and_bad_ones_are_refused_together(micro):
    kinds = {d.source.split("/")[1] for d in micro.documents(20_000, shares={"story": 1, "numbers": 3, "facts": 0})}
    assert kinds == {"story", "numbers"}
    with pytest.raises(ConfigError) as error:
        list(micro.documents(10, shares={"poems": 1, "story": -1}))
    assert "poems" in str(error.value) and "-1" in str(error.value)
    with pytest.raises(ConfigError, match="above 0"):
        list(micro.documents(10, shares={"story": 0}))


def test_documents_are_numbered_whole_and_of_moderate_length(documents, conversations):
    for docs in (documents, conversations):
        assert [d.index for d in docs] == list(range(len(docs)))
        for document in docs:
            assert document.text == document.text.strip() and document.text
            assert len(document.text.encode()) < 2000
            assert "{" not in document.text and "  " not in document.text
    assert len({d.text for d in documents}) > 0.97 * len(documents)


def test_no_heldout_question_is_in_training(micro, documents, conversations):
    text = "\n".join(d.text for d in [*documents, *conversations])
    for code in CODES:
        unasked = micro.holdout.unasked(code)
        assert {q.question for q in micro.heldout_questions(code)} <= set(unasked)
        assert [question for question in unasked if question in text] == []


def test_every_other_question_is_in_training(micro, documents):
    asked = {line for d in documents if "/questions/" in d.source for line in d.text.split("\n")}
    missing = total = 0
    for code in CODES:
        for fact in micro.world:
            for form in micro.holdout.forms(fact, code):
                total += 1
                missing += LANGUAGES[code].ask(fact, form) not in asked
    assert missing / total < 0.05


def test_every_heldout_fact_is_told_in_its_language_outside_of_questions(micro, documents):
    told = "\n".join(d.text for d in documents if d.source.split("/")[1] in TELLING)
    for code in CODES:
        for question in micro.heldout_questions(code):
            assert told.count(question.answer) >= 3, question


def test_heldout_form_is_asked_about_others_and_heldout_fact_in_other_ways(micro):
    holdout = micro.holdout
    for fact in micro.world:
        forms = {code: holdout.forms(fact, code) for code in CODES}
        assert any(forms.values())
        assert all(len(f) in (0, NUM_FORMS - 1) for f in forms.values())
    for group, kinds in KINDS.items():
        for kind in kinds:
            for code in CODES:
                forms = Counter(form for entity in ENTITIES[group] for form in holdout.forms(micro.world.facts[kind, entity], code))
                assert len(forms) == NUM_FORMS and min(forms.values()) >= 0.6 * len(ENTITIES[group])


def test_questions_are_several_hundred_unique_and_answered_once(micro):
    for code in CODES:
        questions = micro.heldout_questions(code)
        assert len(questions) == len({q.question for q in questions}) == len(list(micro.world)) >= 200
        assert {q.kind for q in questions} == {kind for kinds in KINDS.values() for kind in kinds}
        whole = [q for q in questions if q.holdout == "language"]
        assert 0.05 < len(whole) / len(questions) < 0.1
        assert micro.heldout_questions(code, 10) == questions[:10]
        assert len({q.kind for q in questions[:40]}) >= 8


def test_no_value_can_be_guessed(micro):
    for group, kinds in KINDS.items():
        for kind in kinds:
            if kind == "diet":
                continue
            counts = Counter(micro.world.value(kind, entity) for entity in ENTITIES[group])
            assert max(counts.values()) - min(counts[v] for v in VALUES[kind]) <= 1


def test_grade_accepts_the_answer_and_nothing_else(micro):
    for code in CODES:
        for question in micro.heldout_questions(code):
            assert micro.grade(question, question.answer)
            assert micro.grade(question, f"  {question.answer[:-1]}\n")
            assert not micro.grade(question, question.answer[:-2])
            assert not micro.grade(question, question.answer + question.answer)
            assert not micro.grade(question, question.answer[:-1] + "..")
            assert not micro.grade(question, "")
        for left, right in pairwise(micro.heldout_questions(code)):
            assert not micro.grade(left, right.answer)


def test_answers_in_training_are_always_the_same(micro, documents, conversations):
    answers = {}
    for document in conversations:
        for user, assistant in zip(document.messages[::2], document.messages[1::2], strict=True):
            answers.setdefault(user["content"], set()).add(assistant["content"])
    facts = [LANGUAGES[c].ask(f, form) for c in CODES for f in micro.world for form in micro.holdout.forms(f, c)]
    assert all(len(answers[q]) == 1 for q in facts if q in answers)


def test_conversations_alternate_roles_and_languages(conversations):
    for document in conversations:
        roles = [message["role"] for message in document.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and 2 <= len(roles) <= 8
        assert all(message["content"].strip() for message in document.messages)
    codes = Counter(d.source.rsplit("/", 1)[1] for d in conversations)
    assert codes["en"] == codes["zh"]
    single = sum(len(d.messages) == 2 for d in conversations)
    assert 0.4 < single / len(conversations) < 0.6


def test_chinese_has_no_stray_latin_letters_and_english_no_chinese(documents):
    for document in documents:
        _, kind, code = document.source.split("/")
        text = re.sub(r"^(user|assistant)$", "", document.text, flags=re.MULTILINE)
        if kind != "translation":
            pattern = r"[一-鿿，。！？：“”]" if code == "en" else r"[A-Za-z,.!?:\"]"
            assert re.findall(pattern, text) == [], text


def test_english_articles_agree(documents):
    text = "\n".join(d.text for d in documents if d.source.endswith("/en"))
    assert re.findall(r"\ba [aeiou]\w*", text) == []
    assert re.findall(r"\ban [^aeiou\s]\w*", text) == []


def test_both_languages_have_the_same_templates():
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    for name in ("statements", "questions", "first_person", "second_person", "phrases"):
        assert list(getattr(english, name)) == list(getattr(chinese, name)), name
    assert [p.name for p in english.plots] == [p.name for p in chinese.plots]
    for language in (english, chinese):
        assert all(len(forms) == NUM_FORMS for forms in language.questions.values())
    for _, _, en, zh in _LABELLED:
        slots = [sorted(re.findall(r"{(\w+)}", text)) for text in (en, zh)]
        assert slots[0] == slots[1], en


def test_stories_are_consistent_with_the_facts(micro):
    for code, form in (("en", r"(\w+)'s favourite colour is (\w+)"), ("zh", r"所有颜色里，(\w+?)最喜欢(\w+?)[。]")):
        language = LANGUAGES[code]
        truth = {(f.entity.name(code), f.value.bare(code)) for f in micro.world if f.kind == "colour"}
        found = [match for d in micro.documents(300_000) if d.source.endswith(code) for match in re.findall(form, d.text)]
        named = [pair for pair in found if pair[0] not in ("她", "他")]
        assert len(named) > 10 and set(named) <= truth, language.code


@pytest.mark.parametrize("task", TASKS)
def test_examples_have_their_truth_and_splits_share_no_input(micro, task):
    inputs = {}
    for split in SPLITS:
        examples = list(micro.examples(task, split, 60))
        assert examples == list(micro.examples(task, split, 60)) and len(examples) == 60
        inputs[split] = {e["source"] if task == "translate" else e["text"] for e in examples}
        assert Counter(e.get("language", e.get("source_language")) for e in examples) == {"en": 30, "zh": 30}
        for example in examples:
            check_example(task, example)
    assert not inputs["train"] & inputs["test"] and not inputs["train"] & inputs["val"] and not inputs["val"] & inputs["test"]


def check_example(task, example):
    if task == "classify":
        assert example["label"] in ("positive", "negative", "neutral") and example["topic"]
    elif task == "tag":
        assert example["entities"]
        for span in example["entities"]:
            assert example["text"][span["start"] : span["end"]] == span["text"]
            assert span["label"] in ENTITY_LABELS.values()
    elif task == "translate":
        assert {example["source_language"], example["target_language"]} == set(CODES)
        texts = {example["source_language"]: example["source"], example["target_language"]: example["target"]}
        assert re.search("[一-鿿]", texts["zh"]) and not re.search("[一-鿿]", texts["en"])
    elif task == "summarize":
        assert 0 < len(example["summary"]) < len(example["text"]) / 2
    else:
        assert example["text"] != example["target"] and example["style"] in ("formal", "informal")


def test_no_test_input_of_a_task_is_in_training(micro, documents, conversations):
    text = "\n".join(d.text for d in [*documents, *conversations])
    for task in ("classify", "summarize", "restyle"):
        assert [e["text"] for e in micro.examples(task, "test", 100) if e["text"] in text] == []


def test_unknown_task_and_split_are_refused(micro):
    with pytest.raises(ConfigError, match="classify, tag"):
        list(micro.examples("sing", "train", 1))
    with pytest.raises(ConfigError, match="train, val, test"):
        list(micro.examples("tag", "dev", 1))
