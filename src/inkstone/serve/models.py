"""The models that one server answers for, by name. A name is looked up in a table and never becomes a path."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.serve.errors import ApiError, echo

if TYPE_CHECKING:
    from inkstone.infer.engine import Ticket
    from inkstone.infer.engine_thread import EngineThread
    from inkstone.infer.request import Listener, Request, Usage
    from inkstone.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """One model and the thread that works for it. Units: `context` tokens, `created` seconds since 1970.

    `model` is the `inkstone.load(…)` object (which lies above this layer); `sampling` is what its folder recommends, by our names.
    """

    name: str
    created: int
    tokenizer: "Tokenizer"
    context: int
    thread: "EngineThread"
    is_chat_tuned: bool
    model: Any
    card: str = ""
    run_folder: Path | None = None
    sampling: dict[str, Any] = dataclasses.field(default_factory=dict)
    observe: "Callable[[str, Usage], None] | None" = None

    def submit(self, request: "Request", listener: "Listener") -> "Ticket":
        """As `EngineThread.submit`, and counted in the metrics: routes submit here.

        Raises: RequestError, QueueFull, EngineClosed.
        """
        observe = self.observe
        if observe is None:
            return self.thread.submit(request, listener)

        def counted(piece: Any) -> None:
            if piece.usage is not None and piece.is_last:
                observe(self.name, piece.usage)
            listener(piece)

        return self.thread.submit(request, counted)


class ServedModels:
    """The table from name to model, in the order in which they were given."""

    def __init__(self, models: Iterable[ServedModel] = ()) -> None:
        self._by_name: dict[str, ServedModel] = {}
        for model in models:
            self.add(model)

    def add(self, model: ServedModel) -> None:
        """Serve one more model, under a name that no other has."""
        if model.name in self._by_name:
            raise ValueError(f"two models are called '{model.name}'")
        self._by_name[model.name] = model

    def get(self, name: str) -> ServedModel:
        """Return the model of that name. Raises: ApiError 404 that lists the names."""
        found = self._by_name.get(name)
        if found is None:
            raise ApiError(
                404, f"there is no model {echo(name)} here (there are: {', '.join(self._by_name)[:500]})", type="not_found_error",
                param="model", code="model_not_found",
            )  # fmt: skip
        return found

    def all(self) -> list[ServedModel]:
        """Return every model."""
        return list(self._by_name.values())
