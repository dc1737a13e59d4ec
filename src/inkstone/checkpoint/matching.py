"""Strict matching of tensors to a model: every name, every shape, every dtype, all problems in one message."""

from collections.abc import Mapping

from torch import Tensor

from inkstone.base.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
SHOWN_PROBLEMS = 10
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")  # what a weight may be stored as, in safetensors' names


def require_match(expected: Shapes, found: Shapes, what: str) -> None:
    """Refuse tensors that are not exactly those of the model.

    Raises: CheckpointError with the first ten problems and the counts; it says so when a matrix is merely transposed.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [name for name in expected if name in found and expected[name] != found[name]]
    problems = [f"{name}: {_difference(expected[name], found[name])}" for name in wrong]
    problems += [f"{name}: missing, expected {list(expected[name])}" for name in missing]
    problems += [f"{name}: not a tensor of the model, of shape {list(found[name])}" for name in unexpected]
    if problems:
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(wrong)} of another shape"
        summary = f"the tensors are not those of {what}: {counts}; the first are"
        raise CheckpointError("\n".join([summary, *problems[:SHOWN_PROBLEMS]]))


def require_dtypes(dtypes: Mapping[str, str], exact: Mapping[str, str], where: str) -> list[str]:
    """Return the names stored in float64, which are converted; refuse what is neither a floating-point weight nor as `exact` says.

    Raises: CheckpointError with the first ten names and the count.
    """
    wrong = [f"{name} ({dtypes[name]} instead of {dtype})" for name, dtype in exact.items() if dtypes.get(name, dtype) != dtype]
    _refuse_dtypes(wrong, f"{where}: packed weights must have the dtypes of their scheme, found")
    bad = [f"{name} ({dtype})" for name, dtype in dtypes.items() if name not in exact and dtype not in FLOAT_DTYPES]
    _refuse_dtypes(bad, f"{where}: weights must be floating-point ({', '.join(FLOAT_DTYPES)}), found")
    return [name for name, dtype in dtypes.items() if dtype == "F64"]


def _refuse_dtypes(bad: list[str], what: str) -> None:
    if bad:
        more = f", and {len(bad) - SHOWN_PROBLEMS} more" if len(bad) > SHOWN_PROBLEMS else ""
        raise CheckpointError(f"{what} {', '.join(bad[:SHOWN_PROBLEMS])}{more}")


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return name → shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _difference(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    is_turned = len(expected) == 2 and expected == found[::-1]
    return f"expected {list(expected)}, found {list(found)}" + (" — transposed?" if is_turned else "")
