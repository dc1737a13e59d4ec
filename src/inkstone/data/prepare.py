"""Inputs to a prepared folder: read, clean, dedup, split, tokenize, write shards; published by one rename at the end.

Every document passes through a temporary file in a hidden folder beside the output, so inputs are read once, stdin included. Memory
holds one document, one batch for the tokenizer and its training sample, and of the corpus about 100 bytes a document (its hash and its
length; most of it while copies are searched for). Killed at any moment, nothing stands under the final name; the
leftovers are removed by the next run. The same inputs and settings give byte-identical folders.
"""

import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.base.errors import DataError
from inkstone.base.files import explain_os_errors, write_atomic, write_json
from inkstone.base.log import progress, say, warn
from inkstone.base.quantity import format_bytes, format_count
from inkstone.data.card import render_card
from inkstone.data.clean import clean_document
from inkstone.data.config import PrepareSettings
from inkstone.data.dedup import first_rows
from inkstone.data.encode import encode_documents
from inkstone.data.fitting import fit_tokenizer
from inkstone.data.paths import show_path
from inkstone.data.scripts import script_of
from inkstone.data.shards import MANIFEST, ShardWriter, TokenSplit, add_document, manifest_of
from inkstone.data.sources import SAMPLES_KEPT, ReadReport, read_documents
from inkstone.data.splitting import SplitPlan, plan_split, read_split
from inkstone.data.spool import Content, Spool, text_of
from inkstone.data.unknown import count_unknown
from inkstone.data.workspace import check_out, publish, workspace

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

MAX_OVERLAP = 0.01


@dataclass
class _Counts:
    """What is counted while documents are read."""

    report: ReadReport = field(default_factory=ReadReport)
    cleaned: Counter[str] = field(default_factory=Counter)
    scripts: dict[str, Counter[str]] = field(default_factory=dict)
    num_bytes: int = 0
    has_val_inputs: bool = False
    num_val: int = 0
    overlap: int = 0


def prepare(
    inputs: Sequence[str | Path], out: str | Path, *, settings: PrepareSettings | None = None, tokenizer: "Tokenizer | None" = None,
    val_inputs: Sequence[str | Path] = (), overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write the prepared folder `out` and return its figures.

    `tokenizer` (else `settings.tokenizer`, else one is trained) encodes; with `val_inputs` all of `inputs` is for training.
    Raises: ConfigError, DataError, CheckpointError (tokenizer) and ResourceError; `out` is then as it was.
    """
    started = time.monotonic()
    settings, out = settings or PrepareSettings(), Path(out)
    check_out(out, overwrite)
    if tokenizer is None and settings.tokenizer not in (None, "char"):
        from inkstone.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(str(settings.tokenizer))
    with workspace(out) as folder:
        with Spool(folder / "documents.spool") as spool:
            counts = _read_all(inputs, val_inputs, spool, settings, out)
            plan = _plan(spool, counts, settings)
            tokenizer = tokenizer or fit_tokenizer(spool, plan, counts.num_bytes, settings)
            entries = _write_shards(folder, spool, plan, tokenizer, settings)
        _warn_of_share(entries, plan, settings)
        (folder / "documents.spool").unlink()
        manifest = _manifest(tokenizer, entries, plan, counts, settings, kind="chat" if spool.num_chats else "text")
        _warn_of_unknown(folder, manifest, tokenizer)
        with explain_os_errors(str(out)):
            tokenizer.save(folder)
            write_json(folder / MANIFEST, manifest)
            write_atomic(folder / "README.md", render_card(manifest))
            publish(folder, out)
    return _figures(manifest, out, time.monotonic() - started)


def _read_all(
    inputs: Sequence[str | Path], val_inputs: Sequence[str | Path], spool: Spool, settings: PrepareSettings, out: Path
) -> _Counts:
    counts = _Counts(has_val_inputs=bool(val_inputs))
    with progress("reading", _input_bytes([*val_inputs, *inputs])) as shown:
        for group in (val_inputs, inputs):
            for document in read_documents(group, settings, report=counts.report, exclude=out) if group else ():
                clean = clean_document(document, counts.cleaned)
                if clean is None:
                    counts.report.drop("empty", f"{document.source}, document {document.index}")
                    continue
                size = spool.add(clean)
                counts.num_bytes += size
                counts.scripts.setdefault(script_of(clean.text), Counter()).update(documents=1, bytes=size)
                shown.update(counts.num_bytes, f"{format_count(len(spool))} documents, {format_bytes(counts.num_bytes)}")
            if group is val_inputs:
                counts.num_val = len(spool)
    spool.close()
    if not len(spool):
        raise DataError(f"0 documents with text in {', '.join(show_path(i) for i in inputs)} — nothing to prepare")
    return counts


def _input_bytes(inputs: Sequence[str | Path]) -> float | None:
    """Return the size of the inputs when all are plain files, for the progress bar."""
    paths = [Path(item) for item in inputs]
    return sum(path.stat().st_size for path in paths) if all(path.is_file() for path in paths) else None


def _plan(spool: Spool, counts: _Counts, settings: PrepareSettings) -> SplitPlan:
    table, chars = spool.digests.table(), spool.lengths()
    number = np.arange(len(spool))
    first = first_rows(table)
    kept = (first == number) if settings.dedup else np.ones(len(spool), dtype=bool)
    if counts.num_val:
        counts.overlap = len(np.intersect1d(first[: counts.num_val], first[counts.num_val :]))
        kept &= (first >= counts.num_val) | (number < counts.num_val)
        _check_overlap(counts, settings)
    _report_duplicates(spool, kept, counts)
    if counts.has_val_inputs and not counts.num_val:
        raise DataError("0 of the --val-input documents have text — give others, or leave --val-input out")
    if not counts.num_val:
        return plan_split(
            chars, kept, table, mode=settings.split, val_fraction=settings.val_fraction, seed=settings.seed,
            has_chats=spool.num_chats > 0,
        )  # fmt: skip
    if not kept[counts.num_val :].any():
        raise DataError("0 training documents are left that are not in the --val-input files — give other text")
    return SplitPlan("given", kept, chars, np.where(number < counts.num_val, 0, chars), by_line=False)


def _check_overlap(counts: _Counts, settings: PrepareSettings) -> None:
    share = counts.overlap / counts.num_val
    line = f"{counts.overlap:,} of {counts.num_val:,} validation documents ({100 * share:.1f} %) are in the training text too"
    if share > MAX_OVERLAP and not settings.allow_overlap:
        raise DataError(f"{line} — remove them, or pass --allow-overlap to leave them out of the training text")
    say(f"{line}; left out of the training text")


def _report_duplicates(spool: Spool, kept: np.ndarray, counts: _Counts) -> None:
    dropped = np.flatnonzero(~kept)
    if not dropped.size:
        return
    few = np.zeros(len(spool), dtype=bool)
    few[dropped[:SAMPLES_KEPT]] = True
    for number, content in spool.read(few):
        counts.report.drop("duplicate", f"document {number}", text_of(content))
    counts.report.dropped["duplicate"] = int(dropped.size)


def _write_shards(
    folder: Path, spool: Spool, plan: SplitPlan, tokenizer: "Tokenizer", settings: PrepareSettings
) -> dict[str, dict[str, Any]]:
    entries = {}
    total = int(plan.chars[plan.kept].sum())
    done = 0
    with progress("tokenizing", total) as shown:
        for split in ("train", "val"):
            with ShardWriter(
                folder, split, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, with_mask=spool.num_chats > 0,
                shard_tokens=settings.shard_tokens,
            ) as writer:  # fmt: skip
                for chars in _encode_into(writer, tokenizer, read_split(spool, plan, split)):
                    done += chars
                    shown.update(done, f"{format_count(writer.num_tokens)} tokens of {split}")
                entries[split] = writer.close()
    return entries


def _encode_into(writer: ShardWriter, tokenizer: "Tokenizer", contents: Iterator[Content]) -> Iterator[int]:
    """Append every document and yield its characters; with masks, one by one, as chats are rendered and plain text counts whole."""
    if writer.with_mask:
        for content in contents:
            add_document(writer, tokenizer, content)
            yield len(text_of(content))
        return
    sizes: deque[tuple[int, int]] = deque()  # of the documents that are read and not yet written

    def texts() -> Iterator[str]:
        for content in contents:
            text = text_of(content)
            sizes.append((len(text.encode()), len(text)))
            yield text

    for ids in encode_documents(tokenizer, texts()):
        num_bytes, num_chars = sizes.popleft()
        writer.add(ids, num_bytes)
        yield num_chars


def _manifest(
    tokenizer: "Tokenizer",
    entries: dict[str, dict[str, Any]],
    plan: SplitPlan,
    counts: _Counts,
    settings: PrepareSettings,
    *,
    kind: str,
) -> dict[str, Any]:
    report = counts.report
    used = settings.model_dump(mode="json", exclude={"tokenizer"})
    return manifest_of(tokenizer, entries, kind=kind, seed=settings.seed) | {
        "documents_in": report.documents,
        "documents_out": int(plan.kept.sum()),
        "dropped": dict(sorted(report.dropped.items())),
        "dropped_samples": dict(sorted(report.samples.items())),
        "cleaned": dict(sorted(counts.cleaned.items())),
        "overlap": counts.overlap,
        "sources": report.sources,
        "scripts": {name: dict(row) for name, row in sorted(counts.scripts.items())},
        "split": plan.mode,
        "bytes_per_token": {name: entry["bytes"] / max(1, entry["tokens"]) for name, entry in entries.items()},
        "settings": used,
    }


def _warn_of_unknown(folder: Path, manifest: dict[str, Any], tokenizer: "Tokenizer") -> None:
    for name, entry in manifest["splits"].items():
        count, first = count_unknown(TokenSplit(folder, name, manifest), tokenizer)
        if count:
            warn(
                f"{count:,} of {entry['tokens']:,} {name} tokens stand for characters that the tokenizer does not know (the first at token "
                f"{first:,}); they are lost, and the split cannot be evaluated"
            )


def _warn_of_share(entries: dict[str, dict[str, Any]], plan: SplitPlan, settings: PrepareSettings) -> None:
    """Say so when documents or lines are so long that the validation part is not nearly what was asked for."""
    val, total = entries["val"]["bytes"], sum(entry["bytes"] for entry in entries.values())
    asked = settings.val_fraction
    if plan.mode != "given" and total and not asked / 2 <= val / total <= asked * 2:
        warn(
            f"validation has {100 * val / total:.2g} % of the text, not {100 * asked:.2g} %: --split {plan.mode} found no closer cut"
        )


def _figures(manifest: dict[str, Any], out: Path, seconds: float) -> dict[str, Any]:
    splits = manifest["splits"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "data": str(out), "documents_in": manifest["documents_in"], "documents_out": manifest["documents_out"],
        "dropped": manifest["dropped"], "overlap": manifest["overlap"],
        "tokens": sum(entry["tokens"] for entry in splits.values()), "bytes": sum(entry["bytes"] for entry in splits.values()),
        "train_tokens": splits["train"]["tokens"], "val_tokens": splits["val"]["tokens"], "split": manifest["split"],
        "bytes_per_token": manifest["bytes_per_token"], "seconds": round(seconds, 3), "peak_memory_bytes": peak,
        "tokenizer": manifest["tokenizer"], "tokenizer_fingerprint": manifest["tokenizer_fingerprint"],
        "vocab_size": manifest["vocab_size"],
    }  # fmt: skip
