"""Peak memory of `inkstone data prepare` on a small and a large corpus: the claim is that it does not grow (large < 1.3 x small).

    python bench/prepare_memory.py [--source FILE_OR_FOLDER] [--sizes 20 200] [--repeats 1]

The corpora are JSONL with documents of about 3.6 kB: shuffled lines of the source text, or made-up words when there is none. Each is
prepared in a process of its own; the peak is the resident memory that the system reports for that process, its children not included
(there are none).
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEGABYTE = 1_000_000
DOCUMENT_BYTES = 3600


def source_lines(source: Path | None, rng: random.Random) -> list[str]:
    """Return lines to build documents from."""
    if source is None:
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(30_000)]
        return [" ".join(rng.choices(words, k=12)) for _ in range(200_000)]
    files = sorted(source.rglob("*.txt")) if source.is_dir() else [source]
    return [line for file in files for line in file.read_text("utf-8").splitlines() if line.strip()]


def documents(lines: list[str], num_bytes: int, rng: random.Random) -> Iterator[str]:
    """Yield documents until they hold `num_bytes` UTF-8 bytes."""
    while num_bytes > 0:
        picked: list[str] = []
        size = 0
        while size < DOCUMENT_BYTES:
            picked.append(rng.choice(lines))
            size += len(picked[-1].encode()) + 1
        num_bytes -= size
        yield "\n".join(picked)


def write_corpus(path: Path, lines: list[str], num_bytes: int) -> None:
    """Write one corpus; the seed is fixed."""
    with path.open("w", encoding="utf-8") as stream:
        for text in documents(lines, num_bytes, random.Random(num_bytes)):
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def measure(corpus: Path, out: Path) -> dict[str, float]:
    """Return the figures of one run."""
    command = [sys.executable, "-m", "inkstone", "data", "prepare", str(corpus), "--out", str(out), "--overwrite", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for each size and the ratio of the largest to the smallest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="text file, or folder of .txt files, to take lines from")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 200], help="megabytes")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    lines = source_lines(args.source, random.Random(0))
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            corpus = Path(folder, f"{size}.jsonl")
            write_corpus(corpus, lines, size * MEGABYTE)
            runs = [measure(corpus, Path(folder, "out")) for _ in range(args.repeats)]
            corpus.unlink()
            peaks[size] = statistics.median(run["peak_memory_bytes"] for run in runs)
            seconds = statistics.median(run["seconds"] for run in runs)
            print(
                f"{size:>5} MB: peak {peaks[size] / MEGABYTE:.0f} MB, {seconds:.1f} s, {size / seconds:.1f} MB/s,"
                f" {runs[0]['documents_out']:,} documents, {runs[0]['tokens']:,} tokens (median of {args.repeats})",
                flush=True,
            )
    if len(peaks) > 1:
        print(f"ratio {max(peaks)} MB / {min(peaks)} MB: {peaks[max(peaks)] / peaks[min(peaks)]:.2f}")


if __name__ == "__main__":
    main()
