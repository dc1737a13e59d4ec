"""The random generators' states as JSON, so that a resumed run draws the numbers the uninterrupted one would have drawn."""

import base64
import random
from typing import Any

import numpy as np
import torch

from inkstone.base.errors import CheckpointError
from inkstone.base.log import warn


def capture_rng() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global generators (CPU, and every CUDA device that is in use)."""
    version, words, gauss = random.getstate()
    kind, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": {"kind": kind, "key": _pack(np.asarray(key, dtype="<u4").tobytes()), "position": int(position),
                  "has_gauss": int(has_gauss), "cached": float(cached)},
        "torch": _pack_tensor(torch.get_rng_state()),
    }  # fmt: skip
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = [_pack_tensor(one) for one in torch.cuda.get_rng_state_all()]
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Set the generators to what `capture_rng` returned.

    Raises: CheckpointError when the state is not one.
    """
    try:
        version, words, gauss = state["python"]
        numpy_state = state["numpy"]
        key = np.frombuffer(base64.b64decode(numpy_state["key"]), dtype="<u4")
        random.setstate((version, tuple(words), gauss))
        np.random.set_state((numpy_state["kind"], key, numpy_state["position"], numpy_state["has_gauss"], numpy_state["cached"]))
        torch.set_rng_state(_unpack_tensor(state["torch"]))
        cuda = [_unpack_tensor(one) for one in state.get("cuda", [])]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint's random state cannot be restored: {type(error).__name__}: {error}") from error
    _restore_cuda(cuda)


def _restore_cuda(states: list[torch.Tensor]) -> None:
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(states) > here:
        warn(f"the checkpoint has random states of {len(states)} CUDA devices, {here} are here — dropout will differ")
    for index, one in enumerate(states[:here]):
        torch.cuda.set_rng_state(one, index)


def _pack(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _pack_tensor(tensor: torch.Tensor) -> str:
    return _pack(tensor.numpy().tobytes())


def _unpack_tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
