"""How many bytes a token carries, by language: what a tokenizer is good at."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

from inkstone.text.tokenizer import Tokenizer

LANGUAGES = ("zh", "en", "mixed", "other")
ZH_SHARE = 0.3  # a Chinese character says about as much as three Latin letters
EN_SHARE = 0.03
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_BATCH = 256


@dataclasses.dataclass
class _Count:
    segments: int = 0
    bytes: int = 0
    characters: int = 0
    tokens: int = 0


def language_of(text: str) -> str:
    """Return `zh`, `en`, `mixed` or `other` from the share of Han among Han and Latin letters.

    `en` stands for any language in Latin script, `zh` for any text with Han; `other` has neither.

    >>> language_of("床前明月光"), language_of("the moon"), language_of("42\\n")
    ('zh', 'en', 'other')
    """
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    if not han + latin:
        return "other"
    share = han / (han + latin)
    return "zh" if share >= ZH_SHARE else "en" if share <= EN_SHARE else "mixed"


def language_segments(text: str) -> Iterator[tuple[str, str]]:
    """Yield (language, lines): consecutive lines of one language; lines without letters stay with those before them.

    The sum of the segments is `text`.
    """
    current = "other"
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        found = language_of(line)
        if found not in (current, "other"):
            if current != "other":
                yield current, "".join(lines)
                lines = []
            current = found
        lines.append(line)
    if lines:
        yield current, "".join(lines)


def measure(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return `rows` by language, `sources` by source and `total`, from (source, text) pairs.

    Units: each has `segments`, `bytes` (UTF-8), `characters`, `tokens`, `bytes_per_token`, `characters_per_token`.
    `exact` is whether every segment came back from its ids as it was; `unused_tokens` counts ids that never occurred.
    """
    by_language = {language: _Count() for language in LANGUAGES}
    by_source: dict[str, _Count] = {}
    total, used, exact = _Count(), set(), True
    for batch in _batched((source, *segment) for source, text in texts for segment in language_segments(text)):
        encoded = tokenizer.encode_batch([text for _, _, text in batch])
        for (source, language, text), ids in zip(batch, encoded, strict=True):
            used.update(ids)
            exact = exact and tokenizer.decode(ids) == text
            for count in (total, by_language[language], by_source.setdefault(source, _Count())):
                count.segments += 1
                count.bytes += len(text.encode())
                count.characters += len(text)
                count.tokens += len(ids)
    return {
        "rows": [{"language": name, **_row(count)} for name, count in by_language.items() if count.segments],
        "sources": [{"source": name, **_row(count)} for name, count in by_source.items()],
        "total": _row(total),
        "exact": exact,
        "unused_tokens": tokenizer.vocab_size - len(tokenizer.special) - len(used),
    }


def _row(count: _Count) -> dict[str, Any]:
    tokens = max(count.tokens, 1)
    return {
        **dataclasses.asdict(count),
        "bytes_per_token": round(count.bytes / tokens, 4),
        "characters_per_token": round(count.characters / tokens, 4),
    }


def _batched(segments: Iterable[tuple[str, str, str]]) -> Iterator[list[tuple[str, str, str]]]:
    batch: list[tuple[str, str, str]] = []
    for segment in segments:
        batch.append(segment)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
