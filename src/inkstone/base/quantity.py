"""Numbers as people write them: `10M` tokens, `1h30m`, `2 GB`; and back again."""

import re

_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_count(text: str | int | float) -> int:
    """Return a whole number from `12`, `10M`, `1.5k`, `2B tokens`.

    Raises: ValueError when the text is not a count or not whole.
    """
    if isinstance(text, bool):
        raise ValueError(f"expected a count such as 10M, found {text}")
    if isinstance(text, int | float):
        value = float(text)
    else:
        match = re.fullmatch(r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*([kmbgt]?)\s*(?:tokens|steps|bytes)?\s*", text.lower())
        if match is None:
            raise ValueError(f"expected a count such as 10M, found '{text}'")
        value = float(match[1].replace("_", "")) * _COUNT_UNITS[match[2]]
    if value != int(value):
        raise ValueError(f"expected a whole number, found '{text}'")
    return int(value)


def parse_minutes(text: str | int | float) -> float:
    """Return minutes from `8` (minutes), `90s`, `1h30m`.

    Raises: ValueError when the text is not a duration.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    words = str(text).lower().replace(" ", "")
    if re.fullmatch(r"[0-9]+\.?[0-9]*", words):
        return float(words)
    if not re.fullmatch(r"(?:[0-9]+\.?[0-9]*(?:min|[smhd]))+", words):
        raise ValueError(f"expected a duration such as 8, 90s or 1h30m, found '{text}'")
    return sum(float(n) * _SECONDS[u] for n, u in re.findall(r"([0-9]+\.?[0-9]*)(min|[smhd])", words)) / 60.0


def format_count(value: float) -> str:
    """Return a short form: 1234567 → `1.23M`."""
    for factor, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.4g}"


def format_bytes(value: float) -> str:
    """Return a short binary form: 1536 → `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_seconds(value: float) -> str:
    """Return a short form: 3725 → `1h02m`."""
    if value < 60:
        return f"{value:.0f}s" if value >= 10 else f"{value:.1f}s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
