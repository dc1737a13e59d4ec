"""From a JSON schema, a regular expression or a list of choices to a constraint: checked, tried, compiled and kept."""

import collections
import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from inkstone.base.errors import RequestError
from inkstone.infer.constraint import GrammarConstraint, explain_panic, reason_of
from inkstone.infer.constraint_limits import check_choices, check_regex, check_schema
from inkstone.infer.constraint_trial import parser_limits, shared_trial
from inkstone.infer.prompt import stop_ids

if TYPE_CHECKING:
    import llguidance
    from llguidance._lib import JsonCompileOptions

    from inkstone.text.tokenizer import Tokenizer

Kind = Literal["json_schema", "regex", "choice"]

MAX_KEPT = 64
# Sequences of one grammar share the automaton that the library builds as they go on. It only grows, and beyond a limit all of them
# fail: so each is used for so many sequences only.
_USES = 64
_JSON_OPTIONS: "JsonCompileOptions" = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_pattern": r" |\n {0,32}",  # free whitespace is where a small model would stay for ever
    # One spelling a string: with \u or \/ a key could be written twice in two ways, and the second counts.
    "json_allowed_escapes": '"\\bfnrt',
    "lenient": False,
    "coerce_one_of": False,
}
_ANY_OBJECT = {"type": "object"}


class ConstraintCompiler:
    """Makes constraints for one tokenizer; keeps the last `MAX_KEPT` grammars. Thread-safe: compile outside the engine's thread.

    A grammar that is new takes about 0.05 s, at most about 2 s of one processor; one that is kept, a few microseconds.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary = _Vocabulary(tokenizer)
        self._library: llguidance.LLTokenizer | None = None
        self._kept: collections.OrderedDict[tuple[Kind, str], _Grammar] = collections.OrderedDict()

    def json_schema(self, schema: dict[str, Any]) -> GrammarConstraint:
        """Return a constraint to JSON that satisfies `schema`, keys in its order.

        Raises: RequestError when it is no JSON schema, uses a keyword that cannot be promised, no text can satisfy it, or it is too large.
        """
        import llguidance

        text = check_schema(schema)
        self._require_bytes("json_schema")
        with explain_panic():
            grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
        return self._constrain("json_schema", grammar)

    def json_object(self) -> GrammarConstraint:
        """Return a constraint to any JSON object."""
        return self.json_schema(_ANY_OBJECT)

    def regex(self, pattern: str) -> GrammarConstraint:
        """Return a constraint to texts that match `pattern` as a whole.

        The syntax is that of Rust's regex: no look-around, no back-references; \\d is 0 to 9, \\w has the letters of all languages.
        Raises: RequestError when it is no such pattern, no text can match it, or it is too large.
        """
        import llguidance

        check_regex(pattern)
        self._require_bytes("regex")
        with explain_panic():
            written = llguidance.regex_to_lark(pattern, use_ascii="d")
        return self._constrain("regex", llguidance.LLMatcher.grammar_from_lark(f"start: /{written}/"))

    def choice(self, choices: Sequence[str]) -> GrammarConstraint:
        """Return a constraint to exactly one of `choices`; where one begins another, the end token decides.

        Raises: RequestError when they are no list of texts, too many, or of characters that the tokenizer does not have.
        """
        import llguidance

        texts = check_choices(choices)
        for i, text in enumerate(texts):
            if (unknown := self._tokenizer.first_unknown(text)) is not None:
                raise RequestError(f"choice[{i}]: expected characters that the tokenizer has, found {unknown!r}")
        written = " | ".join(json.dumps(text) for text in texts)
        return self._constrain("choice", llguidance.LLMatcher.grammar_from_lark(f"start: {written}"))

    def _constrain(self, kind: Kind, grammar: str) -> GrammarConstraint:
        kept = self._grammar(kind, grammar)
        if kept.problem:
            raise RequestError(f"{kind}: {kept.problem}")
        tokenizer = self._library_tokenizer()
        constraint = GrammarConstraint(kept.matcher(tokenizer), self._tokenizer.vocab_size)
        try:
            constraint.allowed()  # the first is the slowest: not in the engine's thread
        except RequestError:  # another sequence has filled the automaton that they share
            constraint = GrammarConstraint(kept.matcher(tokenizer, anew=True), self._tokenizer.vocab_size)
            constraint.allowed()
        return constraint

    def _grammar(self, kind: Kind, grammar: str) -> "_Grammar":
        key = (kind, grammar)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = _Grammar(kind, grammar)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return made

    def _library_tokenizer(self) -> "llguidance.LLTokenizer":
        import llguidance

        with self._lock:
            if self._library is None:
                eos, size = self._tokenizer.eos_id, self._tokenizer.vocab_size
                ends = [eos, *sorted(stop_ids(self._tokenizer) - {eos})]
                wrapped = llguidance.TokenizerWrapper(self._vocabulary)
                self._library = llguidance.LLTokenizer(wrapped, n_vocab=size, eos_token=ends)
            return self._library

    def _require_bytes(self, kind: Kind) -> None:
        """Where a byte has no token, a text could come to where nothing goes on."""
        if num_missing := 256 - len(self._vocabulary.single_bytes):
            raise RequestError(
                f"{kind}: needs a tokenizer with a token for every byte, and this model's ({self._tokenizer.kind}) lacks {num_missing} "
                "— use choice with it, or train a model with a byte-level BPE tokenizer"
            )


class _Grammar:
    """One grammar, tried, and the matcher that its sequences are copies of. `problem` says why it cannot be used, else ""."""

    def __init__(self, kind: Kind, grammar: str) -> None:
        self._lock = threading.Lock()
        self._grammar = grammar
        self._matcher: llguidance.LLMatcher | None = None
        self._uses = 0
        problem = "" if kind == "choice" else shared_trial().problem_of(grammar)  # a list of checked size needs no trial
        self.problem = reason_of(problem) if problem else ""

    def matcher(self, tokenizer: "llguidance.LLTokenizer", *, anew: bool = False) -> "llguidance.LLMatcher":
        """Return a matcher at the beginning of a text."""
        import llguidance

        with self._lock, explain_panic():
            if self._matcher is None or anew or self._uses >= _USES:
                self._matcher = llguidance.LLMatcher(tokenizer, self._grammar, log_level=0, limits=parser_limits())
                self._uses = 0
            self._uses += 1
            return self._matcher.deep_copy()


class _Vocabulary:
    """The tokenizer as the library wants to see it: bytes in, and what a text would be cut into where it has no choice."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, None
        self.tokens = tokenizer.token_bytes
        self.special_token_ids = sorted(tokenizer.special.values())
        self.single_bytes = {token: index for index, token in enumerate(self.tokens) if len(token) == 1}
        self._encode = tokenizer.encode

    def __call__(self, text: bytes) -> list[int]:
        ids = self._encode(text.decode("utf-8", "replace"))
        if b"".join([self.tokens[index] for index in ids]) == text:
            return ids
        # A tokenizer that composes characters first would write another text. (One of characters has no single bytes.)
        return [self.single_bytes[bytes([byte])] for byte in text if bytes([byte]) in self.single_bytes]
