"""Every setting of every verb has a type, a default that is valid, and one line of help; every recipe in the house parses."""

import importlib
import tomllib
from pathlib import Path

import pytest

from inkstone.base.settings import Settings, field_rows, resolve, to_toml
from inkstone.cli.main import VERBS, module_name
from inkstone.train.config import PretrainSettings

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("**/*.toml"))


def command_of(verb):
    return importlib.import_module("inkstone.cli." + module_name(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_keeps_the_interface_of_verbs(verb):
    command = command_of(verb)
    root = command.settings_class()
    assert root is None or issubclass(root, Settings)
    assert callable(command.add_arguments)
    assert callable(command.run)
    assert command.__doc__.startswith(f"`inkstone {verb}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_of_a_verb_is_explained_in_one_line(verb):
    root = command_of(verb).settings_class()
    if root is None:
        return
    rows = field_rows(root)
    assert len({row[0] for row in rows}) == len(rows)
    for flag, kind, _, text in rows:
        assert text, f"--{flag} has no help"
        assert "\n" not in text
        assert kind, f"--{flag} has no type"


@pytest.mark.parametrize("verb", VERBS)
def test_the_defaults_of_a_verb_are_valid_and_read_back_from_toml(verb, tmp_path):
    root = command_of(verb).settings_class()
    if root is None:
        return
    settings = resolve(root)
    (tmp_path / "a.toml").write_text(to_toml(settings), encoding="utf-8")
    assert resolve(root, recipe=tmp_path / "a.toml") == settings


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_of_the_house_parses(recipe):
    values = tomllib.loads(recipe.read_text(encoding="utf-8"))
    roots = [PretrainSettings, *(importlib.import_module(m).__dict__[c] for m, c in (("inkstone.data.config", "PrepareSettings"),))]
    fitting = [root for root in roots if set(values) - {"extends"} <= set(root.model_fields)]
    assert fitting, f"{recipe.name} belongs to no command"
    resolve(fitting[0], recipe=recipe)
