"""Whatever order of saves, failures, damage, restarts and deletions: once there was a good checkpoint, there always is one."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inkstone.base.errors import CheckpointError
from inkstone.checkpoint import store
from inkstone.checkpoint.store import CheckpointStore, checkpoint_folders, load_checkpoint

POINTS = ("made_tmp", "tensor_file", "before_fsync", "before_manifest", "before_rename", "after_rename", "pruning")


class Dies(BaseException):
    """Stands for a crash that the store cannot handle."""


class StoreMachine(RuleBasedStateMachine):
    """The model: the steps that were published, and those that were damaged."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fsync", lambda descriptor: None)  # the order of flushes has its own test; here they cost a minute
        self.patch.setattr(store, "warn", lambda message: None)
        self.run = Path(tempfile.mkdtemp())
        self.published, self.damaged, self.next_step = set(), set(), 0
        self.point = None

    @initialize(keep=st.integers(2, 3), keep_every=st.sampled_from([0, 3]))
    def open(self, keep, keep_every):
        self.keep, self.keep_every = keep, keep_every
        self.restart()

    @rule()
    def restart(self):
        self.store = CheckpointStore(self.run, self.keep, self.keep_every, on_point=self.reach)
        assert not [path for path in self.store.folder.iterdir() if path.name.startswith(".")]

    def reach(self, point):
        if point == self.point:
            raise Dies

    @rule(jump=st.integers(1, 3))
    def save(self, jump):
        self.next_step += jump
        step = self.next_step
        self.store.save(step, {"model": {"w": torch.full((2,), float(step))}}, {"step": step})
        self.published.add(step)

    @rule(point=st.sampled_from(POINTS))
    def fail(self, point):
        self.point = point
        try:
            self.save(1)
        except Dies:
            if point in ("after_rename", "pruning"):
                self.published.add(self.next_step)
        finally:
            self.point = None

    @rule(which=st.integers(0, 100), name=st.sampled_from(["model.safetensors", "state.json", "MANIFEST.json"]), data=st.data())
    @precondition(lambda self: len(self.good()) > 1)
    def damage(self, which, name, data):
        step = sorted(self.good())[which % len(self.good())]
        path = self.store.folder / f"step_{step:06d}" / name
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) * 8 - 1))
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        self.damaged.add(step)

    @rule()
    def load(self):
        loaded = self.store.latest() if self.published else None
        good = self.good()
        if good:
            assert loaded is not None and loaded.step == max(good)
            assert loaded.tensors["model"]["w"].tolist() == [float(loaded.step)] * 2 and loaded.state == {"step": loaded.step}

    def good(self):
        return {step for step, _ in checkpoint_folders(self.run)} - self.damaged

    @invariant()
    def something_good_is_there(self):
        found = {step for step, _ in checkpoint_folders(self.run)}
        assert found <= self.published and self.damaged <= found, "what is damaged is never deleted"
        assert len(found) >= min(2, len(self.published)) and bool(self.good()) == bool(self.published)

    @rule()
    def verify(self):
        for step, folder in checkpoint_folders(self.run):
            try:
                load_checkpoint(folder)
                assert step not in self.damaged
            except CheckpointError:
                assert step in self.damaged

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.run)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=40, stateful_step_count=14, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
