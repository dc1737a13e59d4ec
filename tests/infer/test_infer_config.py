"""Rows P06, P07, P09, P10 and C23: settings of one reply, refused with their dotted path."""

import math

import pydantic
import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.settings import resolve, to_toml
from inkstone.infer.config import MAX_SEED, SamplingSettings

REFUSED = [
    ("temperature", "2.0001"), ("temperature", "-0.1"), ("temperature", "nan"), ("temperature", '"1"'), ("temperature", "true"),
    ("top_p", "1.1"), ("top_p", "-0.1"), ("top_k", "-1"), ("top_k", "1.5"), ("min_p", "2"), ("typical_p", "1.01"),
    ("repetition_penalty", "0"), ("repetition_penalty", "inf"), ("presence_penalty", "2.1"), ("frequency_penalty", "-3"),
    ("no_repeat_ngram", "-1"), ("max_tokens", "0"), ("max_tokens", "many"),
    ("seed", "-1"), ("seed", str(2**63)), ("seed", "1" + "0" * 400), ("seed", "0.5"),
    ("logit_bias", "5"), ("logit_bias", '{"x": 1}'), ("logit_bias", '{"5": 101}'), ("logit_bias", '{"-5": 1}'),
    ("logit_bias", '{"5": true}'), ("logit_bias", '{"5": NaN}'), ("logit_bias", "{" * 50_000), ("logit_bias", "many"),
    ("logit_bias", "{" + ", ".join(f'"{i}": 1' for i in range(1025)) + "}"),
    ("stop", '""'), ("stop", '["a", "b", "c", "d", "e"]'), ("stop", "x" * 10_000),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), REFUSED, ids=lambda value: value[:24])
def test_a_value_out_of_bounds_is_a_config_error_that_names_the_setting(name, text):
    with pytest.raises(ConfigError) as failure:
        resolve(SamplingSettings, flags=[(name.replace("_", "-"), text)])
    assert str(failure.value).startswith(f"{name}")
    assert failure.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("temperature", "-0.0", 0.0), ("temperature", "1e-9", 1e-9), ("temperature", "2", 2.0), ("top_p", "0", 0.0), ("top_p", "1e-9", 1e-9),
        ("top_k", "0", 0), ("seed", str(MAX_SEED), MAX_SEED), ("seed", "none", None),
        ("logit_bias", '{"5": -100, "7": 0.5}', {5: -100.0, 7: 0.5}), ("logit_bias", "{5 = 1}", {5: 1.0}), ("logit_bias", "none", None),
        ("stop", "###", ["###"]), ("stop", "7", ["7"]), ("stop", '["\\n", "用户："]', ["\n", "用户："]),
    ],
)  # fmt: skip
def test_a_value_at_the_border_is_taken(name, text, expected):
    assert getattr(resolve(SamplingSettings, flags=[(name, text)]), name) == expected


def test_all_problems_are_found_at_once():
    with pytest.raises(ConfigError) as failure:
        resolve(SamplingSettings, flags=[("temperature", "9"), ("top-q", "0.5"), ("seed", "-1")])
    lines = str(failure.value).splitlines()
    assert len(lines) == 3
    assert any("top_q: unknown setting" in line and "did you mean 'top_p'" in line for line in lines)


def test_biases_come_back_from_a_recipe(tmp_path):
    settings = SamplingSettings(logit_bias={3: -1.5, 40: 100.0})
    (tmp_path / "recipe.toml").write_text(to_toml(settings))
    assert resolve(SamplingSettings, recipe=tmp_path / "recipe.toml") == settings


def test_nan_is_refused_from_python_too():
    with pytest.raises(pydantic.ValidationError):
        SamplingSettings(temperature=math.nan)
