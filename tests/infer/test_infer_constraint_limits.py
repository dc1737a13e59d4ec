"""Grammars made to hurt (rows P12 and S-20): each is refused with a RequestError within bounded work, and the next one compiles."""

import signal
import threading
import types

import pytest
import torch

from inkstone.base.errors import RequestError
from inkstone.infer import constraint_compile, constraint_trial
from inkstone.infer.constraint_compile import ConstraintCompiler
from inkstone.infer.constraint_limits import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, count_positions
from inkstone.infer.constraint_trial import TOO_LONG, Trial, shared_trial
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["The stone 砚台 and the ink 墨。"] * 3, 280)


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return ConstraintCompiler(tokenizer)


def nested(levels):
    schema = {"type": "integer"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def endless():
    schema = {}
    schema["items"] = schema
    return schema


def intersections(num):
    return {"allOf": [{"type": "string", "pattern": f"a{{{i}}}b*c"} for i in range(1, num)]}


REFUSED = {
    "number": (123, "expected an object, found int"), "nothing": (None, "found NoneType"), "boolean": (True, "found bool"),
    "type_number": ({"type": 123}, "type must be"), "type_unknown": ({"type": "sound"}, "Invalid type: sound"),
    "only_itself": ({"$ref": "#"}, "no text can satisfy it"),
    "circle": ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "no text can satisfy it"),
    "no_target": ({"$ref": "#/nowhere"}, "does not exist"), "from_the_net": ({"$ref": "http://localhost/x.json"}, "does not fetch"),
    "deep": (nested(1_000), f"at most {MAX_SCHEMA_DEPTH} levels"), "endless": (endless(), f"at most {MAX_SCHEMA_DEPTH} levels"),
    "just_too_deep": (nested(MAX_SCHEMA_DEPTH), f"at most {MAX_SCHEMA_DEPTH} levels"),
    "huge_enum": ({"enum": list(range(10**6))}, "at most 1,000 enum values, found 1,000,000"),
    "many_enums": ({"anyOf": [{"enum": list(range(600))}] * 2}, "enum values, found 1,200"),
    "long_text": ({"const": "x" * MAX_SCHEMA_BYTES}, "bytes of JSON"), "wide": ({"required": ["a"] * 40_000}, "bytes of JSON"),
    "repetitions": ({"type": "string", "pattern": "((((a{100}){100}){100}){100})"}, "100,000,000"),
    "repetitions_of_keys": ({"patternProperties": {"(a{1000}){1000}": {}}}, "1,000,000"),
    "half_regex": ({"type": "string", "pattern": "("}, "unclosed group"), "look_around": ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    "slow_intersection": (intersections(20), ""),
    "slow_multiples": ({"allOf": [{"type": "integer", "multipleOf": n} for n in (97, 89, 83, 79)]}, TOO_LONG),
    "never_true": ({"type": "integer", "minimum": 5, "maximum": 4}, "Unsatisfiable"), "false_inside": ({"allOf": [False]}, "Unsatisfiable"),
    "unknown_keyword": ({"not": {"type": "string"}}, "not"), "distinct": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "count_of_keys": ({"type": "object", "minProperties": 2}, "minProperties"),
    "surrogate": ({"const": "\ud800"}, "expected JSON"), "not_a_number": ({"const": float("nan")}, "expected JSON"),
    "not_json": ({"const": {1, 2}}, "expected JSON"), "control": ({"const": "a\x01"}, "U+0001"), "control_key": ({"required": ["\x1b"]}, "U+001B"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason_and_the_next_one_compiles(compiler, name):
    schema, expected = REFUSED[name]
    with pytest.raises(RequestError) as failure:
        compiler.json_schema(schema)
    message = str(failure.value)
    assert message.startswith("json_schema: ") and expected in message and len(message.splitlines()) == 1 and len(message) < 500
    assert compiler.json_schema({"type": "integer"}).allowed().any()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a" * 4_097, "at most 4,096 characters, found 4,097"), ("a" + "{9}" * 20, "100,000 positions"), ("(" * 2_000 + ")" * 2_000, "nested"),
        ("(", "unclosed"), (r"(a)\1", "backreferences"), ("a{2,1}", "invalid"), ("a\\", "backslash"), (r"[^\s\S]", "no text can satisfy"),
        ("a\ud800", "surrogate"), (None, "expected text"), (".*" * 500, "too many expressions"), (r"(?-u:\xff)", "UTF-8"),
    ],
)  # fmt: skip
def test_a_regular_expression_that_cannot_be_kept_is_refused_with_the_reason(compiler, pattern, expected):
    with pytest.raises(RequestError, match=r"^regex: ") as failure:
        compiler.regex(pattern)
    assert expected in str(failure.value)


@pytest.mark.parametrize("pattern", ["(a+)+$", "^(a|aa)+$", "(a|a?)+b", "(.*)*x", "(x+x+)+y"])
def test_expressions_that_other_libraries_go_back_and_forth_on_are_harmless(compiler, pattern):
    constraint = compiler.regex(pattern)
    for _ in range(50):
        tokens = constraint.allowed().nonzero()[:, 0].tolist()
        constraint.advance(tokens[-1])


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ([], "list of texts"), ("abc", "list of texts"), (None, "list of texts"), (["a", ""], r"choice\[1\]: expected text, found none"),
        (["a", 1], r"choice\[1\]: expected text, found int"), (["a"] * 1_001, "at most 1,000 choices"), (["x" * 32_769], "bytes in all"),
        (["\ud800"], "surrogate"),
    ],
)  # fmt: skip
def test_choices_that_are_none_are_refused(compiler, choices, expected):
    with pytest.raises(RequestError, match=expected):
        compiler.choice(choices)


@pytest.mark.parametrize(
    ("pattern", "positions"),
    [
        ("a{2,3}(b[cd]){10}", 23), ("a" + "{2}" * 10, 1024), ("[a{3}]{5}", 5), (r"\p{Han}{4}", 4), ("a|b(c|d){2,}", 6), ("((", 0), ("))a", 1),
        ("[[a]b]{3}", 3), ("[", 1), ("\\", 1), (r"[\]]{4}", 4), ("", 0), ("a{,3}", 5), ("(?:ab){0}", 3), (r"\x{4e2d}", 1),
    ],
)  # fmt: skip
def test_positions_are_counted_with_the_repetitions_written_out(pattern, positions):
    assert count_positions(pattern) == positions


def test_a_refusal_is_remembered_and_the_memory_has_a_bound(tokenizer, monkeypatch):
    tried = []
    refusing = types.SimpleNamespace(problem_of=lambda grammar: tried.append(grammar) or "bad")
    monkeypatch.setattr(constraint_compile, "shared_trial", lambda: refusing)
    monkeypatch.setattr(constraint_compile, "MAX_KEPT", 3)
    compiler = ConstraintCompiler(tokenizer)
    for pattern in ("a", "a", "b", "c", "a", "d", "a", "b"):
        with pytest.raises(RequestError, match="regex: bad"):
            compiler.regex(pattern)
    assert tried == [f"start: /{pattern}/" for pattern in "abcdb"]
    assert len(compiler._kept) == 3


def test_sequences_of_one_grammar_do_not_disturb_each_other(compiler):
    first, second = compiler.regex("a+b"), compiler.regex("a+b")
    first.advance(int(first.allowed().nonzero()[0]))
    assert first.allowed().sum() > second.allowed().sum()


def test_a_grammar_whose_shared_automaton_is_full_is_compiled_anew(tokenizer, monkeypatch):
    """Copies share an automaton; where one fills it, the others of that time fail, and the next ones must not."""
    import llguidance

    limits = llguidance.LLParserLimits(max_lexer_states=60, verbose_errors=False)
    monkeypatch.setattr(constraint_compile, "parser_limits", lambda: limits)
    compiler = ConstraintCompiler(tokenizer)
    for _ in range(3):
        constraint = compiler.regex("[ab]*a[ab]{40}")
        with pytest.raises(RequestError, match="cannot go on: lexer error: too many states"):
            for step in range(300):
                tokens = constraint.allowed().nonzero()[:, 0].tolist()
                constraint.advance(tokens[step * step % len(tokens)])
        assert step > 5


def test_a_matcher_is_used_for_a_bounded_number_of_sequences(tokenizer, monkeypatch):
    import llguidance

    made, original = [], llguidance.LLMatcher

    class Counting:
        grammar_from_lark = staticmethod(original.grammar_from_lark)

        def __new__(cls, *args, **kwargs):
            made.append(args)
            return original(*args, **kwargs)

    monkeypatch.setattr(llguidance, "LLMatcher", Counting)
    compiler = ConstraintCompiler(tokenizer)
    for _ in range(constraint_compile._USES * 2 + 1):
        compiler.choice(["a", "b"])
    assert len(made) == 3


def test_many_threads_may_compile_at_once(tokenizer):
    compiler, failures = ConstraintCompiler(tokenizer), []

    def work(number):
        try:
            for i in range(8):
                assert compiler.json_schema({"enum": [(number + i) % 5, "墨"]}).allowed().any()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


GOOD = '{"grammars": [{"lark_grammar": "start: /ab/"}]}'


def test_a_trial_outlives_its_process_and_leaves_none_behind():
    trial = Trial()
    assert trial.problem_of(GOOD) == ""
    trial._process.kill()
    trial._process.wait()
    assert trial.problem_of(GOOD) == ""
    process = trial._process
    trial.close()
    assert process.poll() is not None


def test_ctrl_c_does_not_end_a_trial():
    trial = Trial()
    assert trial.problem_of(GOOD) == ""
    process = trial._process
    process.send_signal(signal.SIGINT)
    assert trial.problem_of(GOOD) == "" and trial._process is process
    trial.close()


def test_what_the_process_does_not_survive_is_refused():
    trial = Trial()
    assert trial.problem_of(GOOD) == ""
    trial._process.send_signal(signal.SIGSTOP)
    killer = threading.Timer(0.2, trial._process.send_signal, [signal.SIGKILL])
    killer.start()
    assert trial.problem_of(GOOD) == TOO_LONG  # as where the system ends it for its time or memory
    trial._started().send_signal(signal.SIGSTOP)
    killer = threading.Timer(0.2, lambda: (trial._process.send_signal(signal.SIGSEGV), trial._process.send_signal(signal.SIGCONT)))
    killer.start()
    assert trial.problem_of(GOOD) == constraint_trial.CRASHED
    assert trial.problem_of(GOOD) == ""
    trial.close()


def test_a_trial_that_gets_no_time_is_ended(monkeypatch):
    monkeypatch.setattr(constraint_trial, "_WAIT_SECONDS", 0.0)
    trial = Trial()
    assert trial.problem_of(GOOD) == TOO_LONG
    assert trial._process is None


def test_a_trial_refuses_nonsense_and_goes_on():
    for grammar in ("", "nonsense", "{}", "[" * 10_000, "\x00砚", '{"grammars": [{"lark_grammar": "start: /(/"}]}'):
        assert shared_trial().problem_of(grammar) not in ("", TOO_LONG, constraint_trial.CRASHED)
