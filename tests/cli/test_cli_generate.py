"""`inkstone generate` and `inkstone.load` on a tiny saved model: streams, JSON, stdin, and what is refused with which exit code."""

import io
import json
import sys
import types

import pytest
import torch

import inkstone
from inkstone.base.errors import ConfigError, RequestError
from inkstone.checkpoint.model_folder import load_model, save_model
from inkstone.cli.main import run
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate") / "final"
    tokenizer = train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)
    shape = {"num_layers": 1, "num_heads": 2, "width": 32, "context": 64, "vocab_size": tokenizer.vocab_size}
    save_model(folder, Transformer(ModelConfig(**shape), seed=3), tokenizer)
    return folder


@pytest.fixture
def give_stdin(monkeypatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))

    return give


def generate(capsys, *argv):
    """Return (exit code, stdout, stderr) of one command line."""
    code = run(["generate", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_text_goes_to_stdout_and_the_figures_to_stderr(model_folder, capsys):
    code, out, err = generate(capsys, model_folder, "--prompt", "墨", "--max-tokens", "8", "--seed", "5")
    again = inkstone.load(model_folder).generate("墨", max_tokens=8, seed=5)
    assert (code, out) == (0, again.text + "\n")
    assert "seed 5" in err and "tokens/s" in err


def test_json_is_one_object_with_the_promised_keys(model_folder, capsys):
    code, out, err = generate(capsys, model_folder.parent, "--prompt", "墨", "--max-tokens", "8", "--json")
    figures = json.loads(out)
    assert code == 0 and err == ""
    assert set(figures) >= {"text", "tokens", "finish_reason", "prompt_tokens", "tokens_per_second", "seed"}
    again = inkstone.load(model_folder).generate("墨", max_tokens=8, seed=figures["seed"])
    assert (again.text, again.tokens, again.finish_reason) == (figures["text"], figures["tokens"], figures["finish_reason"])


@pytest.fixture(scope="module")
def advised_folder(model_folder, tmp_path_factory):
    """The same model whose generation_config.json says how to sample, one value of it nonsense."""
    folder = tmp_path_factory.mktemp("advised") / "final"
    network, tokenizer = load_model(model_folder)
    save_model(folder, network, tokenizer, {"temperature": 0.0, "max_new_tokens": 5, "top_p": "most", "top_k": None})
    return folder


def test_what_the_model_recommends_lies_below_the_flags(advised_folder, capsys):
    code, out, err = generate(capsys, advised_folder, "--prompt", "墨", "--json")
    likeliest = inkstone.load(advised_folder).generate("墨", temperature=0, max_tokens=5).text
    assert code == 0 and json.loads(out)["tokens"] <= 5 and json.loads(out)["text"] == likeliest
    assert "top_p is left out" in err and "'most'" in err and "top_k" not in err
    _, out, _ = generate(
        capsys, advised_folder, "--prompt", "墨", "--json", "--temperature", "2", "--max-tokens", "9", "--seed", "4"
    )
    chosen = inkstone.load(advised_folder).generate("墨", temperature=2, max_tokens=9, seed=4)
    assert json.loads(out)["text"] == chosen.text != likeliest


def test_chat_takes_what_the_model_recommends(advised_folder, capsys, give_stdin):
    for flags, most in (([], 5), (["--max-tokens", "2"], 2)):
        give_stdin("墨?".encode())
        assert run(["chat", str(advised_folder), "--json", *flags]) == 0
        assert json.loads(capsys.readouterr().out)["tokens"] == most


def test_the_python_api_takes_what_the_model_recommends(advised_folder, model_folder):
    model = inkstone.load(advised_folder)
    assert model.sampling == {"temperature": 0.0, "max_tokens": 5}
    assert model.generate("墨").text == model.generate("墨", seed=7).text == "".join(model.stream("墨", seed=8))
    assert inkstone.load(model_folder).sampling == {}


def test_stdin_is_the_prompt_less_its_last_line_break(model_folder, capsys, give_stdin):
    give_stdin("砚台\n".encode())
    _, piped, _ = generate(capsys, model_folder, "--max-tokens", "6", "--seed", "1")
    _, given, _ = generate(capsys, model_folder, "--max-tokens", "6", "--seed", "1", "--prompt", "砚台")
    assert piped == given


def test_an_empty_prompt_begins_a_new_document(model_folder, capsys, give_stdin):
    give_stdin(b"")
    for prompt in ([], ["--prompt", ""]):
        code, out, _ = generate(capsys, model_folder, "--max-tokens", "4", "--json", *prompt)
        assert code == 0 and json.loads(out)["prompt_tokens"] == 1


@pytest.mark.parametrize(
    ("argv", "code", "expected"),
    [
        (["--temperature", "2.5"], 2, "temperature: "), (["--top-p", "1.1"], 2, "top_p: "), (["--seed", "-1"], 2, "seed: "),
        (["--temprature", "1"], 2, "did you mean"), (["--stop", '""'], 2, "stop: "), (["--device", "cuda:99"], 2, "device: expected one of cpu"),
        (["--prompt", "0!" * 50], 2, "found 100"), (["--prompt", "a\udcff"], 2, "lone surrogate"),
    ],
)  # fmt: skip
def test_wrong_settings_and_prompts_exit_2_with_a_line(model_folder, capsys, argv, code, expected):
    given = ["--prompt", "x", *argv] if argv[0] != "--prompt" else argv
    actual, out, err = generate(capsys, model_folder, *given)
    assert (actual, out) == (code, "")
    assert err.startswith("error: ") and expected in err and len(err.splitlines()) == 1


def test_stdin_that_is_not_utf8_exits_2_with_the_byte(model_folder, capsys, give_stdin):
    give_stdin(b"ab\xff")
    code, _, err = generate(capsys, model_folder)
    assert code == 2 and "0xff at 2" in err


def test_a_folder_without_a_model_exits_4(tmp_path, capsys):
    code, _, err = generate(capsys, tmp_path, "--prompt", "x")
    assert code == 4 and str(tmp_path) in err


def test_recipe_values_lie_below_flags(model_folder, capsys, tmp_path):
    recipe = tmp_path / "sampling.toml"
    recipe.write_text("max_tokens = 3\nseed = 9\n")
    _, out, _ = generate(capsys, model_folder, "--prompt", "x", "--config", recipe, "--json", "--seed", "8")
    assert (json.loads(out)["tokens"] <= 3, json.loads(out)["seed"]) == (True, 8)


def test_stream_and_generate_give_the_same_text(model_folder):
    model = inkstone.load(model_folder)
    pieces = model.stream("The", max_tokens=30, seed=2, temperature=1.5)
    assert isinstance(pieces, types.GeneratorType)
    assert "".join(pieces) == model.generate("The", max_tokens=30, seed=2, temperature=1.5).text


def test_chat_answers_messages_and_drops_the_oldest(model_folder):
    model = inkstone.load(model_folder)
    messages = [{"role": "user", "content": "砚台?"}]
    answer = model.chat(messages, max_tokens=8, seed=1)
    assert "".join(model.stream_chat(messages, max_tokens=8, seed=1)) == answer.text
    talk = [{"role": role, "content": "0!" * 10} for role in ("user", "assistant", "user")]
    reply, num_dropped = model.chat_reply(talk, inkstone.api.sampling_settings({"max_tokens": 4}))
    assert num_dropped == 2 and reply.finish().prompt_tokens <= 60


def test_score_prefers_nothing_but_is_finite(model_folder):
    score = inkstone.load(model_folder).score("The stone")
    assert score.tokens > 0 and 0 < score.bits_per_byte < 100


def test_calls_with_wrong_sampling_are_request_errors_that_name_each_value(model_folder):
    model = inkstone.load(model_folder)
    with pytest.raises(RequestError) as failure:
        model.generate("x", temperature="1", top_q=0.5, seed=-1, max_tokens=True)
    assert sorted(line.split(":")[0] for line in str(failure.value).splitlines()) == ["max_tokens", "seed", "temperature", "top_q"]
    assert "did you mean 'top_p'" in str(failure.value)


def test_load_refuses_a_device_that_is_not_there(model_folder):
    with pytest.raises(ConfigError, match="expected one of cpu"):
        inkstone.load(model_folder, device="tpu")


def test_the_package_has_no_other_lazy_names():
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = inkstone.absent
