"""Export and import as folders and files: what is carried over, what is never overwritten, and what leaves nothing behind."""

import errno
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from inkstone.base.errors import CheckpointError, ConfigError, DataError, ResourceError
from inkstone.base.files import MANIFEST_NAME
from inkstone.checkpoint import exchange, weights
from inkstone.checkpoint.exchange import export_gguf, export_huggingface, import_folder
from inkstone.checkpoint.model_folder import checkpoint_files, load_model, save_model
from inkstone.checkpoint.store import CheckpointStore
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)
SMALL = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 24}
WEIGHTS, CONFIG, GENERATION, INDEX = "model.safetensors", "config.json", "generation_config.json", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the ink is ground on the stone 砚台"] * 2, 280)


def make(tokenizer, seed=0, **changes):
    return Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SMALL | changes), seed=seed)


@pytest.fixture
def run(tokenizer, tmp_path):
    save_model(tmp_path / "run" / "final", make(tokenizer), tokenizer, {"temperature": 0.7, "chat": True})
    (tmp_path / "run" / "README.md").write_text("# my model")
    return tmp_path / "run"


@pytest.fixture
def foreign(tokenizer, tmp_path):
    """A folder from elsewhere: no manifest."""
    save_model(tmp_path / "foreign", make(tokenizer), tokenizer, {"temperature": 0.7})
    (tmp_path / "foreign" / MANIFEST_NAME).unlink()
    return tmp_path / "foreign"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# What is carried over


def test_an_export_has_the_weights_the_sampling_defaults_and_the_card(run, tmp_path):
    figures = export_huggingface(run, tmp_path / "hf")
    assert same(load_file(tmp_path / "hf" / WEIGHTS), load_file(run / "final" / WEIGHTS))
    generation = json.loads((tmp_path / "hf" / GENERATION).read_text())
    assert generation["temperature"] == 0.7 and generation["chat"] is True and generation["eos_token_id"] == [0, 3]
    assert (tmp_path / "hf" / "README.md").read_text() == "# my model"
    files = list((tmp_path / "hf").iterdir())
    expected = {
        "path": str(tmp_path / "hf"),
        "files": 1,
        "tensors": 24,
        "dtype": "float32",
        "architecture": "Qwen3ForCausalLM",
        "format": "hf",
    }
    expected |= {"bytes": sum(path.stat().st_size for path in files), "source": str(run / "final")}
    assert {key: figures[key] for key in expected} == expected


@pytest.mark.parametrize("limit, fewest, most", [(None, 1, 1), (10**9, 1, 1), (3000, 2, 23), (1, 24, 24)])
def test_several_files_hold_every_tensor_once_and_no_more_than_asked(run, tmp_path, limit, fewest, most):
    export_huggingface(run, tmp_path / "hf", max_shard_bytes=limit)
    parts = [load_file(path) for path in sorted((tmp_path / "hf").glob("*.safetensors"))]
    whole = load_file(run / "final" / WEIGHTS)
    assert sum(len(part) for part in parts) == len(whole) and same({k: v for part in parts for k, v in part.items()}, whole)
    sizes = [sum(tensor.nbytes for tensor in part.values()) for part in parts]
    assert all(size <= (limit or size) or len(part) == 1 for size, part in zip(sizes, parts, strict=True))
    assert fewest <= len(parts) <= most and len(whole) == 24
    if len(parts) > 1:
        assert json.loads((tmp_path / "hf" / INDEX).read_text())["metadata"]["total_size"] == sum(sizes)
    assert same(load_model(tmp_path / "hf")[0].state_dict(), load_model(run)[0].state_dict())


@pytest.mark.parametrize(
    "dtype, expected", [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32), (None, torch.float32)]
)
def test_a_dtype_is_that_of_every_tensor(run, tmp_path, dtype, expected):
    figures = export_huggingface(run, tmp_path / "hf", dtype=dtype)
    assert {tensor.dtype for tensor in load_file(tmp_path / "hf" / WEIGHTS).values()} == {expected}
    assert f"torch.{figures['dtype']}" == f"torch.{json.loads((tmp_path / 'hf' / CONFIG).read_text())['dtype']}" == str(expected)


def test_a_checkpoint_exports_too(tokenizer, tmp_path):
    model = make(tokenizer)
    files = checkpoint_files(model.config, tokenizer)
    step = CheckpointStore(tmp_path / "run").save(5, {"model": model.state_dict()}, {}, extra_files=files)
    for source in (step, tmp_path / "run"):
        export_huggingface(source, tmp_path / "hf", overwrite=True)
        assert same(load_model(tmp_path / "hf")[0].state_dict(), model.state_dict())
    assert export_gguf(step, tmp_path / "m.gguf")["tensors"] > 10


def test_an_import_is_a_run_with_a_card_that_says_where_it_came_from(foreign, tmp_path):
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    figures = import_folder(foreign, tmp_path / "run")
    assert names(tmp_path / "run") == ["README.md", "final", "import.json"]
    assert same(load_file(tmp_path / "run" / "final" / WEIGHTS), load_file(foreign / WEIGHTS))
    assert load_model(tmp_path / "run")[1].fingerprint == load_model(foreign)[1].fingerprint
    card = (tmp_path / "run" / "README.md").read_text()
    assert str(foreign) in card and "Qwen3ForCausalLM" in card and "\n# run\n" in card
    note = json.loads((tmp_path / "run" / "import.json").read_text())
    assert note["source"] == str(foreign) and note["num_params"] == figures["num_params"] == sum(
        t.numel() for t in load_file(foreign / WEIGHTS).values()
    )
    assert {path.name: path.read_bytes() for path in foreign.iterdir()} == before


@pytest.mark.parametrize("is_chat", [True, False])
def test_chat_is_what_the_caller_or_the_folder_says(foreign, tmp_path, is_chat):
    import_folder(foreign, tmp_path / "run", is_chat=is_chat)
    assert json.loads((tmp_path / "run" / "final" / GENERATION).read_text()).get("chat", False) is is_chat
    edit(foreign / GENERATION, chat=True)
    import_folder(foreign, tmp_path / "run2")
    assert json.loads((tmp_path / "run2" / "final" / GENERATION).read_text())["chat"] is True


@pytest.mark.parametrize(
    "ends, expected",
    [(5, 5), ([4, 5], [4, 5]), ([5], 5), (50256, [0, 3]), ([0, -1], [0, 3]), ("x", [0, 3]), (None, [0, 3]), ([], [0, 3])],
)
def test_end_tokens_are_kept_where_the_vocabulary_has_them(foreign, tmp_path, ends, expected):
    edit(foreign / GENERATION, eos_token_id=ends, transformers_version="4.0", bos_token_id=50256)
    import_folder(foreign, tmp_path / "run")
    generation = json.loads((tmp_path / "run" / "final" / GENERATION).read_text())
    assert generation["eos_token_id"] == expected and "transformers_version" not in generation and "bos_token_id" not in generation


def test_a_folder_without_sampling_defaults_comes_in(foreign, tmp_path):
    (foreign / GENERATION).unlink()
    import_folder(foreign, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "final" / GENERATION).read_text())["eos_token_id"] == [0, 3]


def test_every_tensor_keeps_its_own_dtype(foreign, tmp_path):
    tensors = load_file(foreign / WEIGHTS)
    mixed = {name: tensor.half() if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    save_file(mixed, foreign / WEIGHTS)
    import_folder(foreign, tmp_path / "run")
    found = load_file(tmp_path / "run" / "final" / WEIGHTS)
    assert same(found, mixed) and {name: tensor.dtype for name, tensor in found.items()} == {n: t.dtype for n, t in mixed.items()}
    save_file({name: tensor.double() for name, tensor in tensors.items()}, foreign / WEIGHTS)
    import_folder(foreign, tmp_path / "double")
    assert same(load_file(tmp_path / "double" / "final" / WEIGHTS), tensors)


def test_a_character_model_goes_to_hugging_face_folders_only(tmp_path):
    tokenizer = build_char(["abc 砚台"])
    save_model(tmp_path / "m", make(tokenizer), tokenizer)
    with pytest.raises(ConfigError, match="character tokenizer"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf")
    export_huggingface(tmp_path / "m", tmp_path / "hf")
    assert load_model(tmp_path / "hf")[1].kind == "char" and names(tmp_path) == ["hf", "m"]


def test_a_model_without_a_class_is_refused_with_its_switches(tokenizer, tmp_path):
    save_model(tmp_path / "m", make(tokenizer, attention_gate=True), tokenizer)
    with pytest.raises(ConfigError, match="Qwen3ForCausalLM is closest: attention_gate is True, must be False"):
        export_huggingface(tmp_path / "m", tmp_path / "hf")
    with pytest.raises(ConfigError, match="qwen3 is closest: attention_gate is True, must be False"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf")
    assert names(tmp_path) == ["m"]


def test_a_weight_too_large_for_the_dtype_leaves_nothing_behind(tokenizer, tmp_path):
    model = make(tokenizer)
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[0, 0] = 1e5
    save_model(tmp_path / "m", model, tokenizer)
    with pytest.raises(DataError, match=r"not written: NaN or infinite values in blocks.0.mlp.up.weight"):
        export_huggingface(tmp_path / "m", tmp_path / "hf", dtype="fp16")
    assert names(tmp_path) == ["m"]


# What is never overwritten


def test_what_is_there_stays_without_overwrite(run, foreign, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine.txt").write_text("x")
    (tmp_path / "m.gguf").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for overwrite, message in ((False, "already exists"), (True, "--overwrite does not touch it")):
        with pytest.raises(ConfigError, match=message):
            export_huggingface(run, tmp_path / "hf", overwrite=overwrite)
        with pytest.raises(ConfigError, match=message):
            import_folder(foreign, tmp_path / "hf", overwrite=overwrite)
        with pytest.raises(ConfigError, match=message):
            export_gguf(run, tmp_path / "m.gguf", overwrite=overwrite)
        with pytest.raises(ConfigError, match="is a file, expected a folder"):
            export_huggingface(run, tmp_path / "file", overwrite=overwrite)
        with pytest.raises(ConfigError, match=r"is a folder, expected a file to make, as in .*hf/model.gguf"):
            export_gguf(run, tmp_path / "hf", overwrite=overwrite)
    assert names(tmp_path / "hf") == ["mine.txt"] and (tmp_path / "m.gguf").read_text() == (tmp_path / "file").read_text() == "mine"


def test_an_export_or_import_that_is_there_is_replaced_on_request(tokenizer, run, foreign, tmp_path):
    for seed in (0, 1):
        save_model(run / "final", make(tokenizer, seed), tokenizer)
        save_model(foreign, make(tokenizer, seed), tokenizer)
        export_huggingface(run, tmp_path / "hf", overwrite=True)
        export_gguf(run, tmp_path / "m.gguf", overwrite=True)
        import_folder(foreign, tmp_path / "in", overwrite=True)
    for folder in ("hf", "in"):
        assert same(load_model(tmp_path / folder)[0].state_dict(), make(tokenizer, 1).state_dict())
    assert names(tmp_path) == ["foreign", "hf", "in", "m.gguf", "run"]


def test_a_run_is_never_replaced_by_an_export(tokenizer, run, tmp_path):
    save_model(tmp_path / "other" / "best", make(tokenizer, 5), tokenizer)
    for out in (run, run / "final", tmp_path, tmp_path / "other" / "best"):
        with pytest.raises(ConfigError, match=r"holds the model that is read|does not touch it"):
            export_huggingface(run, out, overwrite=True)
    assert same(load_model(tmp_path / "other")[0].state_dict(), make(tokenizer, 5).state_dict())


def test_an_empty_folder_is_no_obstacle(run, foreign, tmp_path):
    for name, write in (("hf", export_huggingface), ("in", import_folder)):
        (tmp_path / name).mkdir()
        write(run if name == "hf" else foreign, tmp_path / name)
        load_model(tmp_path / name)


# What leaves nothing behind (K20), and what is never read (K01-K12, K17: the same reader as every other verb's)


@pytest.mark.parametrize("write", [export_huggingface, import_folder])
def test_a_full_disk_leaves_the_old_folder_and_no_part(run, foreign, tmp_path, monkeypatch, write):
    source = run if write is export_huggingface else foreign
    write(source, tmp_path / "out")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "write_tensors", full)
    for out in ("out", "new"):
        with pytest.raises(ResourceError, match="the disk is full while writing"):
            write(source, tmp_path / out, overwrite=True)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()} == before
    assert names(tmp_path) == ["foreign", "out", "run"]


def test_a_process_that_died_leaves_nothing_after_the_next_one(run, foreign, tmp_path):
    for name in (".tmp-hf-999999999-00000000", ".tmp-m.gguf-999999999-00000000", ".tmp-in-999999999-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(b"x")
    export_huggingface(run, tmp_path / "hf")
    export_gguf(run, tmp_path / "m.gguf")
    import_folder(foreign, tmp_path / "in")
    assert names(tmp_path) == ["foreign", "hf", "in", "m.gguf", "run"]


def broken_index(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "../model-1.safetensors")}))


def missing_shard(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model-1.safetensors")}))


def pickle_only(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def not_a_number(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][2] = float("nan")
    save_file(tensors, folder / WEIGHTS)


def a_name_too_many(folder):
    save_file(load_file(folder / WEIGHTS) | {"adapter": torch.ones(1)}, folder / WEIGHTS)


def truncated(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7])


def link_out(folder):
    (folder / CONFIG).rename(folder.parent / "outside.json")
    (folder / CONFIG).symlink_to(folder.parent / "outside.json")


def raw(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def changed(name, **values):
    return lambda folder: edit(folder / name, **values)


BAD = {
    "a shard outside": (broken_index, "nothing outside the folder is read"),
    "a shard missing": (missing_shard, r"model-1.safetensors is missing"),
    "pickle": (pickle_only, "unsafe format"),
    "nan": (not_a_number, r"NaN or infinite values: model.norm.weight \(1 element\)"),
    "unexpected tensor": (a_name_too_many, "1 unexpected"),
    "truncated": (truncated, "not a valid safetensors"),
    "a link out": (link_out, "link that leads out"),
    "code": (changed(CONFIG, auto_map={"AutoModel": "x.py"}), "auto_map"),
    "quantized elsewhere": (changed(CONFIG, quantization_config={"bits": 4}), "quantization_config"),
    "code in the tokenizer": (changed("tokenizer_config.json", auto_map={"a": "b"}), "auto_map"),
    "another architecture": (changed(CONFIG, model_type="mamba"), "unknown model_type 'mamba'"),
    "a billion layers": (changed(CONFIG, num_hidden_layers=10**9), "num_layers"),
    "nan in the sampling defaults": (raw(GENERATION, b'{"temperature": NaN}'), "generation_config.json"),
    "infinity in the sampling defaults": (raw(GENERATION, b'{"temperature": 1e999}'), "generation_config.json"),
    "half a character in the tokenizer": (raw("tokenizer_config.json", b'{"x": "\\ud800"}'), "tokenizer_config.json"),
    "infinity in the tokenizer": (raw("tokenizer_config.json", b'{"x": 1e999}'), "tokenizer_config.json"),
    "sampling defaults are a list": (raw(GENERATION, b"[]"), "generation_config.json"),
    "deep sampling defaults": (raw(GENERATION, b'{"a":' + b"[" * 100_000), "generation_config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "no model in"),
}


@pytest.mark.parametrize("row", BAD)
def test_bad_folders_are_refused_and_leave_nothing_behind(foreign, tmp_path, row):
    spoil, message = BAD[row]
    spoil(foreign)
    there = names(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        import_folder(foreign, tmp_path / "in")
    with pytest.raises(CheckpointError, match=message):
        export_huggingface(foreign, tmp_path / "hf")
    assert names(tmp_path) == there


def test_a_newer_manifest_and_a_flipped_bit_are_refused(run, tmp_path):
    data = bytearray((run / "final" / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (run / "final" / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256"):
        export_gguf(run, tmp_path / "m.gguf")
    edit(run / "final" / MANIFEST_NAME, format=99)
    with pytest.raises(CheckpointError, match="get a newer inkstone"):
        export_gguf(run, tmp_path / "m.gguf")
    assert names(tmp_path) == ["run"]


def test_a_huge_card_is_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "MAX_CARD_BYTES", 5)
    export_huggingface(run, tmp_path / "hf")
    assert not (tmp_path / "hf" / "README.md").exists()
