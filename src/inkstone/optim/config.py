"""Optimizer settings; no torch here, so that help pages are fast."""

from typing import Literal

from inkstone.base.settings import Settings, setting


class OptimSettings(Settings):
    """How weights are updated."""

    kind: Literal["muon", "adamw", "adam", "adagrad", "sgd"] = setting(
        "muon", "muon (matrices; adamw for the rest), adamw, adam, adagrad, sgd"
    )
    lr: float = setting(0.005, "peak learning rate", gt=0, le=100)
    matrix_lr_factor: float = setting(1.0, "muon: the matrices' learning rate as a multiple of lr", gt=0, le=1000)
    weight_decay: float = setting(
        0.1, "decoupled decay of matrices and tables (adam, adagrad, sgd: added to the gradient)", ge=0, lt=10
    )
    beta1: float = setting(0.9, "adam: decay of the first moment", ge=0, lt=1)
    beta2: float = setting(0.95, "adam: decay of the second moment", ge=0, lt=1)
    eps: float = setting(1e-8, "adam, adagrad: added to the root of the second moment", gt=0, lt=1)
    momentum: float = setting(0.95, "muon, sgd: momentum", ge=0, lt=1)
    muon_iterations: int = setting(5, "muon: Newton-Schulz iterations", ge=1, le=12)
