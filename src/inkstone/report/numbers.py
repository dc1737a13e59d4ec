"""Numbers as a reader of either language writes them."""

from inkstone.base.quantity import format_bytes, format_count, format_seconds
from inkstone.report.html import Html, both, escape

_CHINESE_TIME = {"h": " 小时 ", "m": " 分 ", "s": " 秒"}


def figure(value: float) -> str:
    """Return a measured value with four significant digits, short for very large and very small ones."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return format_count(value) if 1e4 <= abs(value) < 1e15 else f"{value:.2e}"


def percent(value: float) -> str:
    """Return a proportion as a percentage with three digits."""
    return f"{100 * value:.3g}%"


def count(value: float) -> Html:
    """Return a count in both languages: 3.2M, 320 万."""
    return both(format_count(value), chinese_count(value))


def size(value: float) -> Html:
    """Return a number of bytes: 1.5 KiB."""
    return escape(format_bytes(value))


def duration(value: float) -> Html:
    """Return a number of seconds in both languages: 2m51s, 2 分 51 秒."""
    return both(format_seconds(value), chinese_seconds(value))


def chinese_count(value: float) -> str:
    """Return a count with 万 and 亿: 3200000 → `320 万`."""
    for factor, unit in ((10**8, "亿"), (10**4, "万")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}" if abs(value) < 1000 * factor else f"{value / factor:,.0f} {unit}"
    return f"{value:.4g}"


def chinese_seconds(value: float) -> str:
    """Return a duration in Chinese: 171 → `2 分 51 秒`."""
    return "".join(_CHINESE_TIME.get(letter, letter) for letter in format_seconds(value)).strip()
