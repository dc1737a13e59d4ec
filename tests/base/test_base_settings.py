"""Settings: three layers, every problem at once, and a file that repeats the run."""

import re
from typing import Annotated, Literal

import pydantic
import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.settings import MAX_RECIPE_BYTES, Settings, field_rows, load_recipe, resolve, setting, to_toml


class Inner(Settings):
    """A section."""

    rate: float = setting(0.5, "learning rate", gt=0)
    steps: int = setting(10, "updates", ge=0)
    name: str = setting("", "a name")
    kind: Literal["a", "b"] = setting("a", "which")
    shares: tuple[float, ...] = setting((0.5,), "list")
    is_on: bool = setting(False, "switch")
    depth: int | None = setting(None, "maybe a number")


class Root(Settings):
    """A command's settings."""

    inner: Inner = Inner()
    other: Inner = Inner()
    size: Annotated[int, pydantic.BeforeValidator(lambda v: 10**6 if v == "1M" else v)] = setting(1, "size")


def recipe(tmp_path, text, name="recipe.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def flag(name, text):
    return resolve(Root, flags=[(name, text)])


def problems(**how):
    with pytest.raises(ConfigError) as caught:
        resolve(Root, **how)
    return str(caught.value).splitlines()


def test_layers_lie_on_one_another(tmp_path):
    path = recipe(tmp_path, "[inner]\nrate = 0.1\nsteps = 3\n")
    found = resolve(Root, recipe=path, flags=[("inner.rate", "0.2")])
    assert (found.inner.rate, found.inner.steps, found.other.rate) == (0.2, 3, 0.5)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("inner.rate", ".9", 0.9), ("inner.rate", "1e-3", 0.001), ("inner.rate", "1E-3", 0.001), ("inner.rate", "5", 5.0),
        ("inner.rate", "+5", 5.0), ("inner.rate", "1.", 1.0), ("inner.steps", "1_000", 1000), ("inner.steps", "1e3", 1000),
        ("inner.shares", "[0.2, 0.8]", (0.2, 0.8)), ("inner.shares", "[]", ()), ("inner.is_on", "true", True),
        ("inner.is-on", "true", True), ("inner.name", "true", "true"), ("inner.name", "1e-3", "1e-3"), ("inner.name", '"', '"'),
        ("inner.name", "none", "none"), ("inner.depth", "none", None), ("inner.depth", "4", 4), ("inner.kind", "b", "b"),
        ("size", "1M", 10**6),
    ],
)  # fmt: skip
def test_a_flag_is_read_as_its_field_wants(name, text, value):
    found = flag(name, text)
    for part in name.replace("-", "_").split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("inner.rate", "fast", r"^inner\.rate: .*number.*found 'fast' \(--inner\.rate\)$"),
        ("inner.rate", "nan", r"inner\.rate: .*finite.*\(--inner\.rate\)"),
        ("inner.rate", "inf", r"inner\.rate: .*finite"),
        ("inner.rate", "0", r"greater than 0, found 0 \(--inner\.rate\)"),
        ("inner.steps", "-1", r"greater than or equal to 0, found -1"),
        ("inner.steps", "2.5", r"inner\.steps: .*2\.5"),
        ("inner.steps", "true", r"inner\.steps: .*number.*True"),
        ("inner.rate", "false", r"inner\.rate: .*number.*False"),
        ("inner.depth", "true", r"inner\.depth: .*number.*True"),
        ("inner.kind", "c", r"inner\.kind: .*'a' or 'b'.*found 'c'"),
        ("inner.is_on", "maybe", r"inner\.is_on: .*boolean.*found 'maybe'"),
        ("inner.shares", "0.5", r"inner\.shares: .*tuple.*found 0\.5"),
        ("inner.shares", "[0.5, 'x']", r"inner\.shares\.1: .*found 'x'"),
        ("inner.rat", "1", r"^inner\.rat: unknown setting \(--inner\.rat\); did you mean 'rate'\?$"),
        ("inner.zzzzz", "1", r"unknown setting \(--inner\.zzzzz\) \(one of: rate, steps, .*\)"),
        ("iner.rate", "1", r"^iner: unknown setting.*did you mean 'inner'\?"),
        ("inner", "1", r"^inner: "),
        ("inner.rate.x", "1", r"^inner\.rate: "),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line_with_path_value_and_source(name, text, words):
    (line,) = problems(flags=[(name, text)])
    assert re.search(words, line), line


def test_all_problems_are_found_at_once(tmp_path):
    path = recipe(tmp_path, "[inner]\nrate = 'fast'\nstps = 3\n[other]\nkind = 'x'\n")
    lines = problems(recipe=path, flags=[("other.steps", "-3"), ("inner.rate.x", "1")])
    assert len(lines) == 5
    assert all(str(path) in line or "--" in line or "section" in line for line in lines), lines


def test_unknown_keys_are_found_at_every_level(tmp_path):
    lines = problems(recipe=recipe(tmp_path, "size2 = 1\n[inner]\nrates = 1\n[inner.deep]\nx = 1\n"))
    assert [line.split(":")[0] for line in sorted(lines)] == ["inner.deep", "inner.rates", "size2"]


def test_settings_cannot_be_changed():
    with pytest.raises(pydantic.ValidationError):
        Root().inner.rate = 2.0


def test_written_settings_read_back_equal(tmp_path):
    settings = resolve(
        Root, flags=[("inner.name", '墨"\n\\'), ("inner.shares", "[0.1, 1e-9]"), ("size", "7"), ("other.rate", "1e-300")]
    )
    assert resolve(Root, recipe=recipe(tmp_path, to_toml(settings))) == settings


def test_field_rows_name_every_leaf_as_a_flag():
    rows = {row[0]: row[1:] for row in field_rows(Root)}
    assert set(rows) == {
        "size",
        *(f"{s}.{f}" for s in ("inner", "other") for f in ("rate", "steps", "name", "kind", "shares", "is-on", "depth")),
    }
    assert rows["inner.rate"] == ("float", "0.5", "learning rate")
    assert rows["inner.kind"][0] == "a|b"


# Recipes


def test_a_recipe_extends_another_relative_to_itself(tmp_path):
    (tmp_path / "sub").mkdir()
    recipe(tmp_path, "size = 2\n[inner]\nrate = 0.1\nsteps = 3\n", "base.toml")
    recipe(tmp_path, "extends = '../base.toml'\n[inner]\nsteps = 4\nname = 'x'\n", "sub/middle.toml")
    top = recipe(tmp_path, "extends = 'middle.toml'\n[inner]\nname = 'y'\n", "sub/top.toml")
    found = resolve(Root, recipe=top)
    assert (found.size, found.inner.rate, found.inner.steps, found.inner.name) == (2, 0.1, 4, "y")


@pytest.mark.parametrize("chain", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_of_extends_is_named(chain, tmp_path):
    for name, following in zip(chain, [*chain[1:], chain[0]], strict=True):
        recipe(tmp_path, f"extends = '{following}.toml'\n", f"{name}.toml")
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = no", "not valid TOML.*line 1"),
        (b"a = on", "not valid TOML"),
        (b"a = 010", "not valid TOML"),
        (b"a = 1\na = 2\n", "not valid TOML: Cannot overwrite a value"),
        (b"[a]\n[a]", "not valid TOML.*line 2"),
        (b"\ta: 1", "not valid TOML"),
        (b"a = [" + b"[" * 50_000, "not valid TOML"),
        (b"a = 1\0", "not valid TOML"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"# " + b"x" * MAX_RECIPE_BYTES, "larger than"),
        (b"extends = 'none.toml'", "none.toml is missing"),
    ],
)
def test_a_broken_recipe_is_named(content, words, tmp_path):
    path = recipe(tmp_path, content)
    with pytest.raises(ConfigError, match=words):
        load_recipe(path)


def test_a_recipe_just_at_the_size_cap_is_read(tmp_path):
    assert load_recipe(recipe(tmp_path, b"# " + b"x" * (MAX_RECIPE_BYTES - 2))) == {}


def test_a_recipe_that_is_not_a_file_says_what_it_is(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(ConfigError, match="is missing"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="too long"):
        load_recipe(tmp_path / ("x" * 5000))
    with pytest.raises(ConfigError, match=r"null byte|is missing"):
        load_recipe(tmp_path / "a\0b")


def test_a_byte_order_mark_is_read_over(tmp_path):
    assert load_recipe(recipe(tmp_path, b"\xef\xbb\xbfa = 1")) == {"a": 1}


def test_a_section_in_one_place_and_a_value_in_another_is_named(tmp_path):
    lines = problems(recipe=recipe(tmp_path, "inner = 5\n"), flags=[("inner.rate", "1")])
    assert any("a section in one place and a value in another" in line for line in lines)
