"""One conversation in a terminal: its messages, its sampling settings, and the commands that begin with a slash."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inkstone.base.errors import InkstoneError, RequestError
from inkstone.base.family import nearest
from inkstone.base.files import explain_os_errors, write_atomic
from inkstone.base.log import say
from inkstone.base.settings import resolve
from inkstone.cli.terminal import hint
from inkstone.infer.config import SamplingSettings

if TYPE_CHECKING:
    from inkstone.api import Model
    from inkstone.infer.generate import Generation

COMMANDS = {
    "/help": "this list",
    "/clear": "forget the conversation",
    "/set": "/set NAME VALUE changes a sampling setting; /set alone shows them",
    "/save": "/save FILE writes the conversation as a line of JSON that `inkstone data prepare` reads",
    "/bye": "leave (also Ctrl-D)",
}
HELP_MORE = 'Lines between """ and """ are one message. Ctrl-C stops the answer only.'


class ChatSession:
    """Guards the messages: a turn is kept only when it was answered."""

    def __init__(
        self,
        model: "Model",
        settings: SamplingSettings,
        *,
        system: str | None = None,
        is_verbose: bool = False,
        is_silent: bool = False,
    ) -> None:
        self._model, self.settings = model, settings
        self._is_verbose, self._is_silent = is_verbose, is_silent
        self._head = [{"role": "system", "content": system}] if system else []
        self._saved: set[Path] = set()
        self._num_dropped = 0
        self.messages: list[dict[str, str]] = list(self._head)

    def answer(self, message: str) -> "Generation":
        """Stream the answer to stdout; Ctrl-C ends it and keeps what was said. Raises: InkstoneError when there can be none."""
        asked = {"role": "user", "content": message}
        reply, num_dropped = self._model.chat_reply([*self.messages, asked], self.settings)
        if num_dropped > self._num_dropped:
            hint(f"the conversation is longer than the model's context: its oldest {num_dropped} messages are left out now")
        self._num_dropped = num_dropped
        try:
            for piece in reply:
                self._show(piece)
        except KeyboardInterrupt:
            hint("stopped")
        self._show("\n")
        generation = reply.result()
        self._explain_end(generation)
        if generation.text or generation.finish_reason != "cancelled":
            self.messages += [asked, {"role": "assistant", "content": generation.text}]
        return generation

    def answer_or_explain(self, message: str) -> None:
        """As `answer`, with an expected failure said in a line instead of raised."""
        try:
            self.answer(message)
        except InkstoneError as error:
            _explain(error)

    def is_command(self, line: str) -> bool:
        """Whether a line is for the program: one word, or a known command, after a slash."""
        words = line.split()
        return bool(words) and (words[0] in COMMANDS or (words[0].startswith("/") and len(words) == 1 and words[0].count("/") == 1))

    def obey(self, line: str) -> bool:
        """Do what a command says; return whether the conversation goes on."""
        name, *words = line.split(maxsplit=2)
        try:
            if name == "/bye":
                return False
            if name == "/clear":
                self.messages, self._num_dropped = list(self._head), 0
                hint("the conversation is forgotten")
            elif name == "/set":
                self._set(words)
            elif name == "/save":
                self._save(line.removeprefix("/save").strip())
            elif name == "/help":
                say("\n".join([*(f"  {command:<8} {text}" for command, text in COMMANDS.items()), f"  {HELP_MORE}"]))
            else:
                raise RequestError(f"unknown command '{name}'{nearest(name, COMMANDS)} (/help lists them)")
        except InkstoneError as error:
            _explain(error)
        return True

    def _set(self, words: list[str]) -> None:
        if words:
            if len(words) != 2:
                raise RequestError("expected /set NAME VALUE, such as /set temperature 0.5")
            given = self.settings.model_dump(exclude_none=True)
            flags = [(name, json.dumps(value)) for name, value in given.items() if name != words[0].replace("-", "_")]
            self.settings = resolve(SamplingSettings, flags=[*flags, (words[0], words[1])])
        say("\n".join(f"  {name} = {json.dumps(value, ensure_ascii=False)}" for name, value in self.settings.model_dump().items()))

    def _save(self, name: str) -> None:
        if not name:
            raise RequestError("expected /save FILE")
        path = Path(name).expanduser()
        if path.exists() and path.resolve() not in self._saved:
            raise RequestError(f"{path} exists already — choose another name")
        with explain_os_errors(str(path)):
            write_atomic(path, json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        self._saved.add(path.resolve())
        hint(f"{len(self.messages)} messages are in {path}")

    def _show(self, piece: str) -> None:
        if not self._is_silent:
            sys.stdout.write(piece)
            sys.stdout.flush()

    def _explain_end(self, generation: "Generation") -> None:
        if generation.finish_reason == "length":
            limited = generation.tokens >= self.settings.max_tokens
            hint("cut at max_tokens; /set max_tokens N allows more" if limited else "cut where the model's context is full")
        if self._is_verbose:
            hint(f"{generation.tokens} tokens after {generation.prompt_tokens}, {generation.tokens_per_second:.0f} tokens/s")


def _explain(error: InkstoneError) -> None:
    for line in str(error).splitlines():
        say(f"error: {line}")
