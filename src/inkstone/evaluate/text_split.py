"""Any text as a split: read, cleaned and tokenized as `inkstone data prepare` does it, but neither deduplicated nor divided."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inkstone.base.errors import DataError
from inkstone.base.log import warn
from inkstone.data.clean import clean_document
from inkstone.data.document import Document
from inkstone.data.encode import encode_documents
from inkstone.data.paths import show_path
from inkstone.data.shards import ShardWriter, TokenSplit, add_document, manifest_of
from inkstone.data.sources import ReadReport, read_documents

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

NAME = "text"


def write_text_split(inputs: Sequence[str | Path], folder: Path, tokenizer: "Tokenizer") -> TokenSplit:
    """Write the shards of all inputs into `folder` and return them as one split; of chats only the answers count.

    Raises: ConfigError and DataError as `read_documents`; DataError when no document has text, or one has characters that the tokenizer
    does not know; ResourceError for a full disk.
    """
    report = ReadReport()
    with ShardWriter(folder, NAME, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, with_mask=True) as writer:
        for document in read_documents(inputs, report=report):
            clean = clean_document(document, Counter())
            if clean is not None:
                _refuse_unknown(tokenizer, clean.text, document.source)
                _add(writer, tokenizer, clean)
        entry = writer.close()
    if not entry["documents"]:
        raise DataError(f"0 documents with text in {', '.join(show_path(item) for item in inputs)} — nothing to evaluate")
    for reason, count in report.dropped.items():
        warn(f"{count:,} left out: {reason} ({report.samples[reason][0]})")
    return TokenSplit(folder, NAME, manifest_of(tokenizer, {NAME: entry}, kind="text", seed=0))


def _refuse_unknown(tokenizer: "Tokenizer", text: str, source: str) -> None:
    found = tokenizer.first_unknown(text)
    if found is not None:
        count = tokenizer.encode(text).count(tokenizer.unknown_id or 0)
        raise DataError(
            f"{show_path(source)}: the tokenizer does not know {found!r} (U+{ord(found):04X}), and {count:,} characters in all; the "
            "figures would be those of another text — take them out, or evaluate a model that knows them"
        )


def _add(writer: ShardWriter, tokenizer: "Tokenizer", document: Document) -> None:
    if document.messages is not None:
        add_document(writer, tokenizer, document.messages)
        return
    (ids,) = encode_documents(tokenizer, [document.text])
    writer.add(ids, len(document.text.encode()), np.ones(len(ids), dtype=np.uint8), learn_eos=True)
