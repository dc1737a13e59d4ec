"""The store's promises: order of writes, kill -9 at every point, damage found, disk full survived, never the last one deleted."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from inkstone.base import folders
from inkstone.base.errors import CheckpointError, ConfigError, DataError, ResourceError
from inkstone.base.files import MANIFEST_NAME
from inkstone.checkpoint.store import CheckpointStore, checkpoint_folders, latest_checkpoint, load_checkpoint

torch.set_num_threads(1)
POINTS = ("made_tmp", "tensor_file", "before_fsync", "before_manifest", "before_rename", "after_rename", "pruning")


def tensors_of(step):
    model = {"w": torch.full((3, 4), float(step)), "b": torch.arange(4, dtype=torch.bfloat16)}
    return {"model": model, "optimizer": {"w.m": torch.full((5,), step / 7), "count": torch.tensor([step])}}


def save(store, step):
    return store.save(
        step, tensors_of(step), {"step": step, "note": "墨"}, extra_files={"config.json": b"{}"}, manifest={"tokens": 10 * step}
    )


def steps_of(run):
    return [step for step, _ in checkpoint_folders(run)]


def assert_is(loaded, step):
    assert loaded.step == step and loaded.state == {"step": step, "note": "墨"} and loaded.manifest["tokens"] == 10 * step
    assert loaded.files["config.json"].read_bytes() == b"{}"
    for stem, group in tensors_of(step).items():
        assert group.keys() == loaded.tensors[stem].keys()
        for name, tensor in group.items():
            assert torch.equal(tensor, loaded.tensors[stem][name]) and tensor.dtype == loaded.tensors[stem][name].dtype


def leftovers(run):
    return [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_saved_state_comes_back_whole(tmp_path):
    store = CheckpointStore(tmp_path)
    assert store.latest() is None
    folder = save(store, 123)
    assert folder.name == "step_000123"
    assert_is(store.latest(), 123)
    assert_is(store.load(folder), 123)
    assert_is(load_checkpoint(folder, mmap=True), 123)
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.safetensors")} == {0o644}


def test_seven_digit_steps_and_shared_or_strided_tensors_come_back(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    CheckpointStore(tmp_path).save(1234567, {"model": {"a": base, "same": base, "part": base[1:], "turned": base.t()}}, {})
    loaded = latest_checkpoint(tmp_path).tensors["model"]
    assert torch.equal(loaded["a"], base) and torch.equal(loaded["same"], base)
    assert torch.equal(loaded["part"], base[1:]) and torch.equal(loaded["turned"], base.t())


def test_order_of_system_calls(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    calls = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        manifest_is_there = (
            path.parent.joinpath(MANIFEST_NAME).exists() if path.is_file() else path.joinpath(MANIFEST_NAME).exists()
        )
        calls.append(("fsync", "dir" if path.is_dir() else "file", path.name, manifest_is_there))
        real_fsync(descriptor)

    def rename(source, target, **rest):
        calls.append(("rename", Path(target).name))
        real_rename(source, target, **rest)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    save(store, 5)
    names = ["config.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert calls[:4] == [("fsync", "file", name, False) for name in names]
    assert calls[4] == ("fsync", "file", MANIFEST_NAME, True)
    assert calls[5][:2] == ("fsync", "dir") and calls[5][2].startswith(".tmp-step_000005-") and calls[5][3]
    assert calls[6] == ("rename", "step_000005")
    assert calls[7] == ("fsync", "dir", "checkpoints", False)
    assert len(calls) == 8


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_every_point_leaves_a_good_checkpoint(tmp_path, point):
    # A child with torch imported takes a second, so it is forked from here instead of started anew.
    child = os.fork()
    if child == 0:
        armed = []
        store = CheckpointStore(
            tmp_path, on_point=lambda now: os.kill(os.getpid(), signal.SIGKILL) if armed and now == point else None
        )
        save(store, 1)
        save(store, 2)
        armed.append(True)
        save(store, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(leftovers(tmp_path)) <= 1
    expected = 3 if point in ("after_rename", "pruning") else 2
    assert_is(latest_checkpoint(tmp_path), expected)
    store = CheckpointStore(tmp_path)
    assert leftovers(tmp_path) == []
    assert_is(store.latest(), expected)
    save(store, expected + 1)
    assert steps_of(tmp_path) == [expected, expected + 1]


def test_temporary_folder_of_a_living_process_stays(tmp_path):
    store = CheckpointStore(tmp_path)
    folder = store.folder / f".tmp-step_000009-{os.getppid()}-0123abcd"
    folder.mkdir()
    (store.folder / f".tmp-step_000008-{2**22 + 1}-0123abcd").mkdir()
    (store.folder / f".tmp-step_000007-{os.getpid()}-0123abcd").mkdir()
    CheckpointStore(tmp_path)
    assert leftovers(tmp_path) == [folder.name]


def flip(path, seed):
    data = bytearray(path.read_bytes())
    bit = random.Random(seed).randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def damages():
    names = ["model.safetensors", "optimizer.safetensors", "state.json", "config.json", MANIFEST_NAME]
    for name in names:
        yield pytest.param(lambda f, n=name: (f / n).unlink(), name, id=f"delete {name}")
        yield pytest.param(lambda f, n=name: (f / n).write_bytes(b""), name, id=f"empty {name}")
        yield pytest.param(lambda f, n=name: (f / n).write_bytes((f / n).read_bytes() + b" "), name, id=f"extend {name}")
        if name != "config.json":  # which is the same in both
            yield pytest.param(lambda f, n=name: shutil.copy(f.parent / "step_000001" / n, f / n), None, id=f"swap {name}")
    yield pytest.param(
        lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()), "model.safetensors", id="folder"
    )
    yield pytest.param(
        lambda f: ((f / "state.json").unlink(), (f / "state.json").symlink_to("state.json")), "state.json", id="loop"
    )
    yield pytest.param(
        lambda f: ((f / "state.json").unlink(), (f / "state.json").symlink_to("/etc/hosts")), "state.json", id="link"
    )


@pytest.mark.parametrize("damage, name", damages())
def test_damage_is_found_and_the_checkpoint_before_is_used(tmp_path, capfd, damage, name):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    folder = save(store, 2)
    damage(folder)
    after = sorted(path.name for path in folder.iterdir())
    assert_is(store.latest(), 1)
    err = capfd.readouterr().err
    assert "CHECKPOINT SKIPPED" in err and str(folder) in err and (name is None or name in err)
    assert sorted(path.name for path in folder.iterdir()) == after, "the evidence stays"
    with pytest.raises(CheckpointError):
        store.load(folder)


def test_every_flipped_bit_is_found(tmp_path):
    store = CheckpointStore(tmp_path)
    folder = save(store, 2)
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        for seed in range(100):
            flip(path, seed)
            with pytest.raises(CheckpointError, match=path.name):
                load_checkpoint(folder)
            path.write_bytes(good)
        for cut in range(10):
            path.write_bytes(good[: len(good) * cut // 10])
            with pytest.raises(CheckpointError, match=path.name):
                load_checkpoint(folder)
            path.write_bytes(good)
    assert_is(load_checkpoint(folder), 2)


def test_a_hash_mismatch_names_both_hashes(tmp_path):
    folder = save(CheckpointStore(tmp_path), 2)
    expected = json.loads((folder / MANIFEST_NAME).read_text())["files"]["model.safetensors"]["sha256"]
    flip(folder / "model.safetensors", 3)
    with pytest.raises(
        CheckpointError, match=f"model.safetensors is damaged: its SHA-256 is [0-9a-f]{{16}}…, expected {expected[:16]}"
    ):
        load_checkpoint(folder)


def test_none_good_is_an_error_that_lists_all(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        flip(save(store, step) / "model.safetensors", step)
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints(.|\n)*step_000002(.|\n)*step_000001"):
        store.latest()


def test_foreign_names_do_not_count(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 7)
    for name in (
        "step_abc",
        "old-step_000900-bak",
        "step_-1",
        "step_0000008",
        "step_99",
        "Step_000009",
        "step_000009 ",
        "step_٠٠٠٠٠٩",
        "900",
    ):
        shutil.copytree(store.folder / "step_000007", store.folder / name)
    (store.folder / "step_000999").symlink_to("step_000999")
    (store.folder / "step_000998").symlink_to("step_000007")
    (store.folder / "step_000997").write_text("a file")
    assert steps_of(tmp_path) == [7]
    assert_is(store.latest(), 7)


def test_a_renamed_checkpoint_is_refused(tmp_path):
    folder = save(CheckpointStore(tmp_path), 7)
    folder.rename(folder.with_name("step_000008"))
    with pytest.raises(CheckpointError, match="named for another step"):
        load_checkpoint(folder.with_name("step_000008"))


def test_a_newer_format_is_named(tmp_path):
    folder = save(CheckpointStore(tmp_path), 7)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match=r"format 99.*newer inkstone"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{}",
        '{"files": {"a": 1}}',
        '{"format": NaN, "files": {}}',
        "[" * 100_000,
        '{"files": {"../x": {"bytes": 1, "sha256": "a"}}}',
    ],
)
def test_hostile_manifests_are_refused(tmp_path, text):
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(CheckpointError, match=MANIFEST_NAME):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_nonfinite_weight_is_never_written(tmp_path, value, dtype):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    before = snapshot(tmp_path)
    bad = torch.ones(4, 5, dtype=dtype)
    bad[2, 1:3] = value
    with pytest.raises(DataError, match=r"model/w \(2 elements\)"):
        store.save(2, {"model": {"w": bad, "ok": torch.ones(2)}}, {})
    assert snapshot(tmp_path) == before and leftovers(tmp_path) == []


def test_a_nonfinite_weight_is_not_loaded(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    monkeypatch.setattr("inkstone.checkpoint.store._refuse_nonfinite", lambda step, tensors: None)
    store.save(2, {"model": {"w": torch.tensor([1.0, float("nan")])}}, {})
    assert_is(store.latest(), 1)
    with pytest.raises(CheckpointError, match=r"w \(1 element\)"):
        load_checkpoint(store.folder / "step_000002")


def test_retention_keeps_the_newest_and_every_nth(tmp_path):
    store = CheckpointStore(tmp_path, keep=3, keep_every=4)
    for step in range(1, 11):
        save(store, step)
        assert len(steps_of(tmp_path)) >= min(2, step)
    assert steps_of(tmp_path) == [4, 8, 9, 10]
    assert leftovers(tmp_path) == []


def test_best_and_final_and_foreign_folders_are_never_collected(tmp_path):
    for name in ("best", "final", "checkpoints/mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x").write_text("x")
    store = CheckpointStore(tmp_path)
    for step in range(5):
        save(store, step)
    assert all((tmp_path / name / "x").exists() for name in ("best", "final", "checkpoints/mine"))


def test_a_damaged_checkpoint_is_neither_counted_nor_deleted(tmp_path, capfd):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    flip(save(store, 2) / "model.safetensors", 1)
    for step in (3, 4, 5):
        save(store, step)
    assert steps_of(tmp_path) == [2, 4, 5]
    assert capfd.readouterr().err.count("does not verify") == 1


def test_resaving_a_damaged_step_keeps_the_damaged_one_aside(tmp_path):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    flip(save(store, 2) / "model.safetensors", 1)
    assert_is(store.latest(), 1)
    save(store, 2)
    assert_is(store.latest(), 2)
    assert len(list(store.folder.glob("damaged-step_000002-*"))) == 1


def test_saving_a_good_step_again_replaces_it(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(2, {"model": {"w": torch.zeros(2)}}, {})
    save(store, 2)
    assert_is(store.latest(), 2)
    assert leftovers(tmp_path) == [] and len(list(store.folder.iterdir())) == 1


def test_a_step_behind_the_others_is_not_deleted_by_its_own_save(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (10, 20, 5):
        save(store, step)
    assert steps_of(tmp_path) == [5, 10, 20]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("failing_call", range(7))
def test_a_failing_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, failing_call, number):
    store = CheckpointStore(tmp_path)
    save(store, 1)
    before, real, left = snapshot(tmp_path), os.fsync, [failing_call]

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    expected = "disk is full" if number != errno.EIO else "cannot write"
    with pytest.raises(ResourceError, match=expected):
        save(store, 2)
    monkeypatch.undo()
    assert leftovers(tmp_path) == []
    if failing_call == 6:  # the flush after the rename: the new one is whole and already there
        assert_is(latest_checkpoint(tmp_path), 2)
    else:
        assert snapshot(tmp_path) == before


def test_a_file_size_limit_at_any_byte_leaves_the_checkpoint_before(tmp_path):
    """A real short write, at 20 places of a checkpoint whose largest file has 40 KB."""
    store = CheckpointStore(tmp_path)
    save(store, 1)
    before = snapshot(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for part in range(20):
            resource.setrlimit(resource.RLIMIT_FSIZE, (part * 2000, limits[1]))
            with pytest.raises(ResourceError, match="cannot write checkpoint"):
                store.save(2, {"model": {"w": torch.ones(10_000)}}, {})
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert snapshot(tmp_path) == before and leftovers(tmp_path) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    save(store, 2)
    assert_is(store.latest(), 2)


def test_a_full_file_system_leaves_the_checkpoint_before(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        store = CheckpointStore(disk / "run")
        save(store, 1)
        with pytest.raises(ResourceError, match="disk is full"):
            store.save(2, {"model": {"w": torch.ones(100_000)}}, {})
        assert leftovers(disk / "run") == []
        assert_is(store.latest(), 1)
        with pytest.raises(ResourceError, match=r"need .* free"):
            store.require_space(200_000)
        store.require_space(10_000)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_unwritable_place_is_refused_at_the_start(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="checkpoints"):
        CheckpointStore(tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ResourceError, match="Permission denied"):
        CheckpointStore(tmp_path / "run")


@pytest.mark.parametrize("keep, keep_every", [(1, 0), (0, 0), (-1, 0), (2, -1)])
def test_fewer_than_two_are_never_kept(tmp_path, keep, keep_every):
    with pytest.raises(ConfigError, match="keep"):
        CheckpointStore(tmp_path, keep, keep_every)


def test_names_that_would_clash_or_escape_are_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    for tensors, extra in (
        ({"../x": {}}, {}),
        ({}, {"a/b": b""}),
        ({}, {MANIFEST_NAME: b""}),
        ({}, {"state.json": b""}),
        ({}, {"x.safetensors": b""}),
    ):
        with pytest.raises(ValueError, match="plain, different names"):
            store.save(1, tensors, {}, extra_files=extra)
    with pytest.raises(ValueError, match="negative"):
        save(store, -1)
    assert list(store.folder.iterdir()) == []


def test_a_state_with_nan_is_refused_before_writing(tmp_path):
    store = CheckpointStore(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        store.save(1, {}, {"best": float("nan")})
    assert list(store.folder.iterdir()) == []


def test_a_failed_delete_is_a_warning(tmp_path, monkeypatch, capfd):
    store = CheckpointStore(tmp_path)

    def refuse(path, **rest):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(folders.shutil, "rmtree", refuse)
    for step in (1, 2, 3):
        save(store, step)
    monkeypatch.undo()
    assert "could not delete" in capfd.readouterr().err
    assert steps_of(tmp_path) == [2, 3]
    CheckpointStore(tmp_path)
    assert leftovers(tmp_path) == []


def test_a_checkpoint_is_not_code(tmp_path):
    folder = save(CheckpointStore(tmp_path), 1)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
