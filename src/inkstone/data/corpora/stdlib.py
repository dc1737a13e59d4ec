"""The running Python's own standard library as a corpus: real prose and real source on every machine.

Of each module the docstrings are one document (prose) and the code without them is another, so that no text stands in both.
"""

import ast
import io
import random
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from inkstone.base.errors import ConfigError, DataError
from inkstone.base.seeds import derive_seed
from inkstone.data.document import Document

# Folders that are not the library itself: tests, installed packages, generated and foreign code.
SKIPPED_FOLDERS = frozenset(
    {
        "test",
        "tests",
        "idle_test",
        "site-packages",
        "dist-packages",
        "__pycache__",
        "lib2to3",
        "lib-dynload",
        "_bundled",
        "turtledemo",
        "__phello__",
    }
)
# Python's own manual pages on the language, shipped as one dict: the largest piece of prose in the library.
_TOPICS = "pydoc_data/topics.py"
_MIN_BYTES = 200  # shorter documents say nothing

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def stdlib_documents(max_bytes: int | None = None, *, seed: int = 0, folder: Path | None = None) -> Iterator[Document]:
    """Yield prose and source documents of the standard library, modules in an order that `seed` shuffles.

    At most `max_bytes` UTF-8 bytes together, spread over the modules by the shuffle (None: everything); the last document is cut at
    the end of a line to fit. `folder` is the library to read, by default the running Python's.
    Raises: ConfigError when `max_bytes` is negative; DataError when there is no library in source form (a frozen or zipped Python).
    """
    if max_bytes is not None and max_bytes < 0:
        raise ConfigError(f"stdlib: expected max_bytes ≥ 0, found {max_bytes}")
    return _capped(_documents(_modules(folder, seed)), max_bytes)


def _modules(folder: Path | None, seed: int) -> list[tuple[str, Path]]:
    """Return (name, path) of every module to read, shuffled the same way on every machine that has the same modules."""
    root = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    if not root.is_dir():
        raise DataError(f"stdlib: expected a folder with Python's standard library, found none at {root}; {_ADVICE}")
    named = sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*.py"))
    modules = [(name, path) for name, path in named if not SKIPPED_FOLDERS.intersection(Path(name).parts[:-1]) and path.is_file()]
    if not modules:
        raise DataError(f"stdlib: expected .py sources in {root}, found none; {_ADVICE}")
    random.Random(derive_seed(seed, "stdlib", "order")).shuffle(modules)  # noqa: S311 - not for secrets
    return modules


_ADVICE = "this Python is frozen or ships only compiled modules: use a Python with its sources, or another corpus"


def _documents(modules: list[tuple[str, Path]]) -> Iterator[Document]:
    index = 0
    for name, path in modules:
        for kind, text in _texts(name, path):
            if len(text.encode()) >= _MIN_BYTES:
                yield Document(text, f"builtin:stdlib/{kind}/{name}", index)
                index += 1


def _texts(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of one module; a file that cannot be read or parsed yields nothing."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    if name == _TOPICS:
        yield from (("prose", topic) for topic in _topics(tree))
        return
    documented = [node for node in ast.walk(tree) if isinstance(node, _Documented) and ast.get_docstring(node)]
    documented.sort(key=lambda node: node.body[0].lineno)
    prose = [_entry(name, node) for node in documented]
    if prose:
        yield "prose", _encodable("\n\n".join(prose) + "\n")
    yield "source", _encodable(_without_docstrings(source, documented))


def _entry(name: str, node: _Documented) -> str:
    title = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") if isinstance(node, ast.Module) else node.name
    return f"{title}\n{ast.get_docstring(node)}"


def _without_docstrings(source: str, documented: list[_Documented]) -> str:
    """Return the source less the lines of its docstrings; `...` stands for one that was a whole body."""
    lines = list(io.StringIO(source))  # splits where the parser does, not at form feeds
    kept: list[str | None] = list(lines)
    for node in documented:
        first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
        before, after = (
            lines[first - 1].encode()[: node.body[0].col_offset],
            lines[last - 1].encode()[node.body[0].end_col_offset :],
        )
        if before.strip() or (after.strip() and not after.lstrip().startswith(b"#")):
            continue  # shares its lines with code
        kept[first - 1 : last] = [None] * (last - first + 1)
        if len(node.body) == 1 and not isinstance(node, ast.Module):
            kept[first - 1] = before.decode() + "...\n"
    return "".join(line for line in kept if line is not None).lstrip("\n")


def _topics(tree: ast.Module) -> Iterator[str]:
    """Yield the manual's pages."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield _encodable(value.value)


def _encodable(text: str) -> str:
    """Return the text without lone surrogates, which some docstrings hold through escapes and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _capped(documents: Iterator[Document], max_bytes: int | None) -> Iterator[Document]:
    if max_bytes is None:
        yield from documents
        return
    left = max_bytes
    for document in documents:
        size = len(document.text.encode())
        if size >= left:
            text = document.text.encode()[:left].decode("utf-8", "ignore")
            text = text[: text.rfind("\n") + 1]
            if text:
                yield Document(text, document.source, document.index)
            return
        left -= size
        yield document
