"""Every family table answers alike, and names exactly the choices that its setting offers."""

from typing import get_args

import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.family import Family
from inkstone.base.settings import resolve
from inkstone.nn.config import PRESETS, ModelConfig
from inkstone.nn.init import INITIALIZATIONS
from inkstone.optim.config import OptimSettings
from inkstone.optim.optimizers import OPTIMIZERS
from inkstone.optim.schedule_config import ScheduleSettings
from inkstone.optim.schedules import SCHEDULES
from inkstone.train.config import ObjectiveSettings, PretrainSettings
from inkstone.train.objectives import OBJECTIVES

CHOICES = {
    "optim.kind": (OPTIMIZERS, OptimSettings, "kind"),
    "schedule.kind": (SCHEDULES, ScheduleSettings, "kind"),
    "objective.kind": (OBJECTIVES, ObjectiveSettings, "kind"),
    "model.init": (INITIALIZATIONS, ModelConfig, "init"),
}
FAMILIES = {family.noun: family for family in (OPTIMIZERS, SCHEDULES, OBJECTIVES, INITIALIZATIONS, PRESETS)}


@pytest.mark.parametrize("flag", CHOICES)
def test_a_setting_offers_exactly_its_family(flag):
    family, owner, field = CHOICES[flag]
    assert set(get_args(owner.model_fields[field].annotation)) == set(family)


@pytest.mark.parametrize("flag", CHOICES)
def test_every_row_can_be_asked_for_and_its_help_names_it(flag):
    family, owner, field = CHOICES[flag]
    for name in family:
        assert resolve(PretrainSettings, flags=[(flag, name)])
        if len(family) > 1:
            assert name in (owner.model_fields[field].description or ""), f"{flag}: the help does not name {name}"


@pytest.mark.parametrize("noun", FAMILIES)
def test_an_unknown_name_is_a_config_error_that_lists_the_rows(noun):
    family: Family = FAMILIES[noun]
    first = next(iter(family))
    with pytest.raises(ConfigError) as caught:
        family[first + "x"]
    assert f"unknown {noun} '{first}x'; did you mean '" in str(caught.value)
    assert all(name in str(caught.value) for name in family)
