"""The optimizer family: one table from name to how a model's parameters are divided and updated."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from inkstone.base.errors import CheckpointError
from inkstone.base.family import Family
from inkstone.optim.config import OptimSettings
from inkstone.optim.muon import Muon

Named = list[tuple[str, nn.Parameter]]


def is_table(name: str) -> bool:
    """Return whether a two-dimensional parameter is a look-up table or the output projection, not a hidden matrix."""
    return not name.startswith("blocks.")


def _decay_groups(named: Named, settings: OptimSettings) -> list[dict[str, object]]:
    matrices = [p for _, p in named if p.ndim >= 2]
    vectors = [p for _, p in named if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _adamw(named: Named, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    betas = (settings.beta1, settings.beta2)
    return [torch.optim.AdamW(_decay_groups(named, settings), lr=settings.lr, betas=betas, eps=settings.eps, fused=True)]


def _adam(named: Named, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    betas = (settings.beta1, settings.beta2)
    return [torch.optim.Adam(_decay_groups(named, settings), lr=settings.lr, betas=betas, eps=settings.eps, fused=True)]


def _adagrad(named: Named, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adagrad(_decay_groups(named, settings), lr=settings.lr, eps=settings.eps)]


def _sgd(named: Named, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(_decay_groups(named, settings), lr=settings.lr, momentum=settings.momentum)]


def _muon(named: Named, settings: OptimSettings) -> list[torch.optim.Optimizer]:
    hidden = [p for name, p in named if p.ndim == 2 and not is_table(name)]
    rest = [(name, p) for name, p in named if p.ndim != 2 or is_table(name)]
    optimizers: list[torch.optim.Optimizer] = _adamw(rest, settings) if rest else []
    if not hidden:
        return optimizers
    muon = Muon(
        hidden, lr=settings.lr * settings.matrix_lr_factor, momentum=settings.momentum, weight_decay=settings.weight_decay,
        num_iterations=settings.muon_iterations,
    )  # fmt: skip
    return [muon, *optimizers]


OPTIMIZERS: Family[Callable[[Named, OptimSettings], list[torch.optim.Optimizer]]] = Family(
    "optimizer", {"muon": _muon, "adamw": _adamw, "adam": _adam, "adagrad": _adagrad, "sgd": _sgd}
)


class OptimizerSet:
    """One or more torch optimizers that together own every trainable parameter of a model exactly once."""

    def __init__(self, model: nn.Module, settings: OptimSettings) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names = {id(p): name for name, p in named}
        self.parameters = [p for _, p in named]
        self.optimizers = OPTIMIZERS[settings.kind](named, settings)
        self._peaks = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, lr_factor: float) -> None:
        """Apply one update with every peak learning rate times `lr_factor`."""
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * lr_factor
            optimizer.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the whole optimizer state as `parameter name / state name` → tensor."""
        tensors = {}
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    tensors[f"{self.names[id(parameter)]}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` returned.

        Raises: CheckpointError when a name or a shape is not this optimizer's, or a parameter's state is missing.
        """
        by_name = {self.names[id(parameter)]: parameter for parameter in self.parameters}
        owner = {id(p): optimizer for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, state_name = key.rpartition("/")
            parameter = by_name.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                place = "no parameter" if parameter is None else f"a parameter of shape {list(parameter.shape)}"
                raise CheckpointError(
                    f"optimizer state '{key}' of shape {list(value.shape)} belongs to {place} here — was it saved by another model?"
                )
            found.setdefault(name, {})[state_name] = value
        for name, parameter in by_name.items() if found else ():
            _require_state(name, set(found.get(name, {})), owner[id(parameter)])
        for name, values in found.items():
            parameter = by_name[name]
            owner[id(parameter)].state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in values.items()}


def _state_names(optimizer: torch.optim.Optimizer) -> set[str]:
    """Return the names of what an optimizer keeps for a parameter that it has updated."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is one
        return {"step", "exp_avg", "exp_avg_sq"}
    if isinstance(optimizer, torch.optim.Adagrad):
        return {"step", "sum"}
    return {"momentum_buffer"} if isinstance(optimizer, Muon) or optimizer.param_groups[0]["momentum"] else set()


def _require_state(name: str, saved: set[str], optimizer: torch.optim.Optimizer) -> None:
    needed = _state_names(optimizer)
    if saved == needed:
        return
    kind = type(optimizer).__name__
    if not saved:
        raise CheckpointError(f"optimizer state of '{name}' is missing, others have theirs — the checkpoint is not whole")
    raise CheckpointError(
        f"optimizer state of '{name}' is {', '.join(sorted(saved))}, {kind} keeps {', '.join(sorted(needed)) or 'none'}"
        " — was it saved by another kind of optimizer?"
    )
