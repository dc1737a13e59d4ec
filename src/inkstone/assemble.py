"""The one place with the order: build, weights, (adapt, quantize, parallelize,) device, compile."""

import importlib.util
import os
import shutil
import sys

import torch
from torch import Tensor

from inkstone import machine
from inkstone.base.errors import ConfigError, ResourceError
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device(name: str) -> torch.device:
    """Return the device that `name` (auto, cpu, cuda, cuda:1, mps) means here.

    Raises: ConfigError for a name that torch does not know, ResourceError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"train.device: '{name}' is not a device (auto, cpu, cuda, cuda:0, …)") from error
    have = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.device: '{name}' is not supported (available here: {', '.join(have)})")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"train.device: '{name}' is not here (available: {', '.join(have)})")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Return bf16, fp16 or fp32 for a setting that may be `auto`: what the processor does fast.

    Raises: ConfigError where the precision makes no sense on the device.
    """
    if name == "auto":
        return ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if device.type == "cuda" else machine.fast_precision()
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision: fp16 is for GPUs — on a processor use bf16, fp32 or auto")
    return name


def build_model(
    config: ModelConfig, *, seed: int = 0, weights: dict[str, Tensor] | None = None, device: torch.device | str = "cpu",
    precision: str = "fp32", compile: bool = False,
) -> Transformer:  # fmt: skip
    """Return a model with fresh or given weights on a device, its activations in the given precision.

    Raises: ConfigError when it should be compiled and there is no compiler.
    """
    if compile:
        require_compiler(torch.device(device))
    model = Transformer(config, seed=seed, compute_dtype=DTYPES[precision])
    if weights is not None:
        model.load_state_dict(weights)
    model = model.to(device)
    if compile:
        model.compile()
    return model


def require_compiler(device: torch.device) -> None:
    """Raise ConfigError when torch.compile cannot work on the device: it needs a C++ compiler, on GPUs triton too."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"train.compile needs a C++ compiler, '{compiler}' is not here — install it (or set CXX), or leave it off"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("train.compile needs the triton package on a GPU — install it, or leave train.compile off")
