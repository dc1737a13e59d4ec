"""Which script a text is in, by its letters: enough to tell Chinese from English, not Chinese from Japanese."""

import re

_SAMPLE_CHARS = 400
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")
SCRIPTS = ("Han", "Latin", "mixed", "other")


def script_of(text: str) -> str:
    """Return "Han", "Latin", "mixed" or "other" from the first characters of a text; a Han character weighs as two letters."""
    sample = text[:_SAMPLE_CHARS]
    han, latin, letters = (len(pattern.findall(sample)) for pattern in (_HAN, _LATIN, _LETTER))
    if letters == 0 or han + latin < letters / 2:
        return "other"
    share = 2 * han / (2 * han + latin)
    return "Han" if share > 0.8 else "Latin" if share < 0.2 else "mixed"
