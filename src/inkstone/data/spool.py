"""Cleaned documents on disk between reading and tokenizing, so that inputs are read once and memory stays bounded."""

import json
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from inkstone.base.files import explain_os_errors
from inkstone.data.dedup import Digests
from inkstone.data.document import Document, Message

_HEADER = struct.Struct("<IB")
Content = str | tuple[Message, ...]


class Spool:
    """An append-only file of documents, with the length and the hash of each in memory (20 bytes a document)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digests = Digests()
        self.num_chats = 0
        self._chars = array("I")
        self._file = path.open("wb")

    def add(self, document: Document) -> int:
        """Append a document and return its UTF-8 bytes. Raises: ResourceError when the disk is full."""
        is_chat = document.messages is not None
        payload = (json.dumps(document.messages, ensure_ascii=False) if is_chat else document.text).encode()
        with explain_os_errors(f"temporary documents in {self.path.parent}"):
            self._file.write(_HEADER.pack(len(payload), is_chat))
            self._file.write(payload)
        self.digests.add(payload)
        self._chars.append(len(document.text))
        self.num_chats += is_chat
        return len(payload)

    def lengths(self) -> np.ndarray:
        """Return the characters of every document. Shapes: (documents,) int64."""
        return np.array(self._chars, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._chars)

    def close(self) -> None:
        """Finish writing; documents can be read from now on."""
        with explain_os_errors(f"temporary documents in {self.path.parent}"):
            self._file.close()

    def read(self, wanted: np.ndarray) -> Iterator[tuple[int, Content]]:
        """Yield (number, text or messages) of the documents for which `wanted` (documents,) is true."""
        with self.path.open("rb") as stream:
            for number in range(len(self)):
                size, is_chat = _HEADER.unpack(stream.read(_HEADER.size))
                if not wanted[number]:
                    stream.seek(size, 1)
                    continue
                payload = stream.read(size).decode()
                yield number, tuple(json.loads(payload)) if is_chat else payload

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError:
            return  # the disk is full: the error on its way already says so


def text_of(content: Content) -> str:
    """Return a document's text; the turns of a chat are joined by line feeds."""
    return content if isinstance(content, str) else "\n".join(message["content"] for message in content)
