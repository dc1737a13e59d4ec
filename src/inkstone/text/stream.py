"""Ids to text one at a time: only whole characters come out, and nothing is lost at the end."""

import codecs

from inkstone.text.tokenizer import Tokenizer


class TextStream:
    """The text of a growing list of ids; the sum of all pieces is `tokenizer.decode` of all ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, index: int) -> str:
        """Return the characters that this id completes; the bytes of a half one wait for the next ids.

        Raises: ValueError when the id is outside the vocabulary; the stream is then as before.
        """
        return self._decoder.decode(self._tokenizer.bytes_of(index))

    def flush(self) -> str:
        """Return what still waited, as U+FFFD since its character never became whole; the stream is then as new."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
