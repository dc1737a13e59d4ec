"""Numbers as people write them, read and written."""

import pytest

from inkstone.base.quantity import format_bytes, format_count, format_seconds, parse_count, parse_minutes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("10M", 10_000_000), ("1.5k", 1500), ("2B tokens", 2 * 10**9), ("1_000", 1000), (" 3 k ", 3000), ("1e3", 1000),
        ("2g", 2 * 10**9), ("1T", 10**12), ("300 steps", 300), ("0", 0), (7, 7), (7.0, 7), ("0.5k", 500), ("5.", 5),
    ],
)  # fmt: skip
def test_a_count_is_read(text, value):
    assert parse_count(text) == value


@pytest.mark.parametrize(
    "text", ["", "M", "ten", "-5", "1.5", "1..5", "1,000", "10 MM", "1e-3", "0x10", "１０", True, 1.5, "nan", "_5"]
)
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("8", 8),
        ("90s", 1.5),
        ("1h30m", 90),
        ("2min", 2),
        ("1d", 1440),
        (3, 3),
        (0.5, 0.5),
        ("1 h 30 m", 90),
        ("0.5h", 30),
        ("1m30s", 1.5),
    ],
)
def test_a_duration_is_read(text, minutes):
    assert parse_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1x", "1h-30m", "h", "1:30", True])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_minutes(text)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (1_234_567, "1.23M"), (175e9, "175B"), (2.5e12, "2.5T")]
)
def test_a_count_is_written_short(value, text):
    assert format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**52, "4096.0 TiB")]
)
def test_bytes_are_written_in_binary_units(value, text):
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (10, "10s"), (60, "1m00s"), (119.6, "2m00s"), (3599, "59m59s"), (3725, "1h02m")],
)
def test_seconds_are_written_short(value, text):
    assert format_seconds(value) == text


@pytest.mark.parametrize("value", [1, 999, 1000, 12_300, 4_560_000, 7 * 10**9])
def test_a_short_count_reads_back(value):
    assert parse_count(format_count(value)) == value
