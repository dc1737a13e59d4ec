"""What a model is: presets, the depth dial, what is filled in and what is refused."""

import pydantic
import pytest

from inkstone.base.errors import ConfigError
from inkstone.base.settings import resolve, to_toml
from inkstone.nn.config import PRESETS, ModelConfig


def refused(**values) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        ModelConfig(**values)
    return str(caught.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_whole_and_reads_back_from_toml(preset, tmp_path):
    config = ModelConfig(preset=preset)
    assert config.head_width * config.num_heads == config.width
    assert config.num_kv_heads == config.num_heads
    (tmp_path / "a.toml").write_text(to_toml(config))
    assert resolve(ModelConfig, recipe=tmp_path / "a.toml") == config


@pytest.mark.parametrize(
    ("preset", "layers", "heads", "width", "context"),
    [
        ("gpt1", 12, 12, 768, 512), ("gpt2", 12, 12, 768, 1024), ("gpt2-medium", 24, 16, 1024, 1024), ("gpt2-large", 36, 20, 1280, 1024),
        ("gpt2-xl", 48, 25, 1600, 1024), ("gpt3-small", 12, 12, 768, 2048), ("gpt3-medium", 24, 16, 1024, 2048),
        ("gpt3-large", 24, 16, 1536, 2048), ("gpt3-xl", 24, 16, 2048, 2048), ("gpt3-2.7b", 32, 32, 2560, 2048),
        ("gpt3-6.7b", 32, 32, 4096, 2048), ("gpt3-13b", 40, 40, 5120, 2048), ("gpt3-175b", 96, 96, 12288, 2048),
    ],
)  # fmt: skip
def test_published_models_have_their_published_sizes(preset, layers, heads, width, context):
    config = ModelConfig(preset=preset)
    assert (config.num_layers, config.num_heads, config.width, config.context) == (layers, heads, width, context)
    assert (config.position, config.norm, config.bias, config.ffn_width) == ("learned", "layernorm", True, 4 * width)
    assert config.norm_place == ("post" if preset == "gpt1" else "pre")


@pytest.mark.parametrize("depth", [1, 4, 24])
def test_depth_sizes_the_modern_family(depth):
    config = ModelConfig(depth=depth)
    assert (config.num_layers, config.num_heads, config.width, config.head_width) == (depth, depth, 64 * depth, 64)


@pytest.mark.parametrize("depth", ["6", 6.0])
def test_depth_sizes_however_it_is_written(depth):
    assert ModelConfig(depth=depth) == ModelConfig(depth=6)


def test_what_is_given_lies_on_the_preset_and_the_depth():
    assert ModelConfig(depth=4, num_heads=2).num_heads == 2
    assert ModelConfig(preset="gpt2", dropout=0.0, context=7).context == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 128}, "depth 6 means num_layers 6, width 384, but width 128 is given too"),
        ({"num_layers": 3}, "but num_layers 3 is given too"),
        ({"num_layers": "3", "width": 1}, "but num_layers 3 and width 1 is given too"),
    ],
)
def test_sizes_beside_a_depth_that_disagree_with_it_are_refused_by_name(values, words):
    assert words in refused(depth=6, **values)


def test_a_run_lists_its_depth_with_the_sizes_it_means(tmp_path):
    config = ModelConfig(depth=6)
    assert ModelConfig(**config.model_dump()) == config == ModelConfig(depth="6", num_layers="6", width=384.0)
    (tmp_path / "a.toml").write_text(to_toml(config))
    assert "num_layers = 6" in (tmp_path / "a.toml").read_text()
    assert resolve(ModelConfig, recipe=tmp_path / "a.toml") == config
    with pytest.raises(ConfigError, match="depth 4 means num_layers 4, width 256, but num_layers 6 and width 384"):
        resolve(ModelConfig, recipe=tmp_path / "a.toml", flags=[("depth", "4")])


def test_depth_with_another_preset_is_refused():
    assert "depth sizes only the preset 'modern'" in refused(preset="gpt2", depth=4)


@pytest.mark.parametrize(
    ("activation", "width", "ffn"),
    [("gelu", 96, 384), ("swiglu", 96, 256), ("swiglu", 97, 320), ("swiglu", 8, 64), ("relu2", 8, 32)],
)
def test_the_hidden_width_is_filled_in(activation, width, ffn):
    assert ModelConfig(width=width, num_heads=1, head_width=2, activation=activation).ffn_width == ffn


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 10, "num_heads": 4}, "width 10 is not a multiple of num_heads 4 (nearest: 8)"),
        ({"width": 1, "num_heads": 4}, "(nearest: 4)"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3 (possible: [1, 2, 4])"),
        ({"num_heads": 4, "num_kv_heads": 8}, "(possible: [1, 2, 4])"),
        ({"width": 12, "num_heads": 4}, "head_width 3 is odd, and rope needs pairs (nearest: 4)"),
        ({"width": 9, "num_heads": 1, "position": "sinusoidal"}, "width 9 is odd"),
        ({"full_every": 2}, "full_every has no meaning without a window"),
        ({"preset": "gpt5"}, "unknown preset 'gpt5'; did you mean 'gpt"),
        ({"preset": 5}, "unknown preset '5'"),
        ({"dropout": 1.0}, "less than 1"),
        ({"dropout": -0.1}, "greater than or equal to 0"),
        ({"num_layers": 0}, "greater than or equal to 1"),
        ({"depth": 0}, "greater than or equal to 1"),
        ({"depth": "deep"}, "valid integer"),
        ({"depth": 2.5}, "valid integer"),
        ({"context": 0}, "greater than or equal to 1"),
        ({"norm_eps": float("nan")}, "finite number"),
        ({"heads": 4}, "Extra inputs are not permitted"),
    ],
)
def test_an_impossible_model_is_refused_with_a_way_out(values, words):
    assert words in refused(**values)


def test_all_impossible_combinations_are_named_at_once():
    message = refused(num_heads=4, num_kv_heads=3, width=10, full_every=2)
    assert all(words in message for words in ("num_kv_heads 3", "width 10", "full_every"))


def test_an_unknown_switch_is_a_config_error_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'num_layers'"):
        resolve(ModelConfig, flags=[("num-layer", "3")])


@pytest.mark.parametrize(
    ("window", "every", "windows"), [(0, 0, [0] * 4), (8, 0, [8] * 4), (8, 2, [8, 0, 8, 0]), (8, 3, [8, 8, 0, 8]), (8, 1, [0] * 4)]
)
def test_each_nth_layer_attends_to_all(window, every, windows):
    config = ModelConfig(window=window, full_every=every)
    assert [config.layer_window(layer) for layer in range(4)] == windows
