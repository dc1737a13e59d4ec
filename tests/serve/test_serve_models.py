"""Names of models, and the table in which they are looked up."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_double import fake_model

from inkstone.serve.errors import ApiError
from inkstone.serve.models import ServedModels
from inkstone.serve.names import clean_name, is_clean_name, model_names


@given(st.lists(st.sampled_from(["run", "run-2", "run 2", "运行", "..", "a/../b", "x" * 300]), max_size=8))
def test_names_are_unique_and_clean(folders):
    names = model_names([Path(folder) for folder in folders])
    assert len(set(names)) == len(names) == len(folders)
    assert all(clean_name(name)[:90] == name[:90] and len(name) <= 103 for name in names)


@given(st.text(max_size=200))
def test_a_clean_name_holds_nothing_that_paths_or_addresses_need(text):
    name = clean_name(text)
    assert name and is_clean_name(name) and not set(name) & set("/\\?#%\x00 :\"'<>") and name.strip(".") == name


def test_folders_of_one_name_are_numbered_and_given_names_come_first():
    folders = [Path("a/run"), Path("b/run"), Path("c/运行 1")]
    assert model_names(folders) == ["run", "run-2", "运行-1"]
    assert model_names(folders, ["small"]) == ["small", "run", "运行-1"]
    assert model_names(folders, ["run-2"]) == ["run-2", "run", "运行-1"]


@pytest.mark.parametrize("name", ["nope", "", "../../etc/passwd", "x" * 100_000, "\ud800", "FAKE", "fake "])
def test_an_unknown_model_is_404_and_lists_the_names(name):
    with pytest.raises(ApiError, match="there are: fake") as refused:
        ServedModels([fake_model()]).get(name)
    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")
    assert len(refused.value.message) < 500


def test_models_are_found_by_name_in_the_order_in_which_they_were_given():
    first, second = fake_model("b"), fake_model("a")
    models = ServedModels([first, second])
    assert models.get("a") is second and models.all() == [first, second]
    with pytest.raises(ValueError, match="called 'a'"):
        models.add(fake_model("a"))
