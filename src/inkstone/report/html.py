"""Markup that is safe by construction: plain text is escaped wherever it is put, and only `Html` goes through as it is."""

import html
import re
from typing import Any

_VOID = ("meta", "input", "br", "line", "link")
# What no browser may show raw: C0/C1 controls except tab and newline, lone surrogates (they have no UTF-8 form), non-characters,
# and the bidirectional overrides that would reorder the page around a sample.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Return any value as text that is safe between tags and inside quoted attributes."""
    if isinstance(text, Html):
        return text
    return Html(_escaped(str(text)))


def el(tag: str, *children: object, **attributes: Any) -> Html:
    """Return one element; `class_` is `class`, `data_x` is `data-x`, True is a bare attribute, None and False are left out.

    >>> el("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    written = ""
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        written += f" {key}" if value is True else f' {key}="{_escaped(str(value))}"'
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: object) -> Html:
    """Return the children one after the other, escaped where they are not markup; None is nothing."""
    return Html("".join(escape(child) for child in children if child is not None))


def both(english: object, chinese: object) -> Html:
    """Return a text in both languages; the page shows the reader's."""
    return join(el("span", english, class_="en", lang="en"), el("span", chinese, class_="zh", lang="zh-CN"))


def localized(value: object) -> Html:
    """Return a title from a file: `{"en": …, "zh": …}` in both languages, anything else as it stands."""
    if isinstance(value, dict) and value:
        first = next(iter(value.values()))
        return both(value.get("en", first), value.get("zh", first))
    return escape("" if value is None else value)


def has_chinese(text: str) -> bool:
    """Return whether the text has a Chinese (or Japanese) character."""
    return _CJK.search(text) is not None


def language_of(text: str) -> str | None:
    """Return the `lang` attribute a text needs for the right glyphs; None is the page's own."""
    return "zh-CN" if has_chinese(text) else None


def _escaped(text: str) -> str:
    return html.escape(_UNSHOWABLE.sub("\ufffd", text.replace("\r\n", "\n")), quote=True)
