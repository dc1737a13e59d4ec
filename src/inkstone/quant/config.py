"""What a packed model says of itself in its config.json. No torch here, so that help pages are fast."""

from typing import Any, Literal

import pydantic

from inkstone.base.settings import Settings, setting

SchemeName = Literal["int8", "int4"]
GROUP = 32  # inputs that share a scale in int4; also what a layer's inputs must be a multiple of to be packed at all
_GROUPS: dict[str, int] = {"int8": 0, "int4": GROUP}


class Quantization(Settings):
    """The section `quantization` of a config.json: which packed form the matrices have."""

    scheme: SchemeName = setting(..., "int8 (a scale for each output) or int4 (a scale for each group of inputs)")
    group: int = setting(..., "inputs that share a scale; 0 = all of a row")

    @pydantic.model_validator(mode="after")
    def _check(self) -> "Quantization":
        if self.group != _GROUPS[self.scheme]:
            raise ValueError(f"scheme {self.scheme} has group {_GROUPS[self.scheme]}, found {self.group}")
        return self


def quantization_section(scheme: str) -> dict[str, Any]:
    """Return the section that `Quantization` reads back."""
    return {"scheme": scheme, "group": _GROUPS[scheme]}
