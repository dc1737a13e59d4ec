"""A family answers like a table, and a wrong name with the nearest right one."""

import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.family import Family, nearest

FRUIT = Family("fruit", {"apple": 1, "pear": 2})


def test_a_family_is_a_table():
    assert (FRUIT["pear"], list(FRUIT), len(FRUIT), "apple" in FRUIT, "plum" in FRUIT) == (2, ["apple", "pear"], 2, True, False)


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"unknown fruit 'aple'; did you mean 'apple'\? \(one of: apple, pear\)"):
        FRUIT["aple"]


def test_a_name_like_no_other_gets_no_guess():
    assert nearest("zzz", FRUIT) == ""
    assert nearest("", FRUIT) == ""


def test_a_family_does_not_change_with_the_table_it_was_made_of():
    rows = {"a": 1}
    family = Family("letter", rows)
    rows["b"] = 2
    assert "b" not in family
