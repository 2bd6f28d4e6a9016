"""Background text that is on every machine: the docstrings of the installed packages that the demo itself needs."""

import ast
import hashlib
import inspect
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.errors import KislError
from kisl_plugin.progress import Progress
from kisl_plugin.roles import Matcher

PACKAGES = ("datasets", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(size: int, matcher: Matcher) -> tuple[list[str], int]:
    """At least `size` characters of docstrings, and how many were left out since `matcher` says that they state a fact.

    Paragraphs that were met before and doctest lines are dropped; a document keeps more than one line. Files are read
    in an order mixed by hash, so that every package is in every part of the corpus.

    Raises:
        KislError: the installed packages do not hold that much.
    """
    seen: set[bytes] = set()
    documents: list[str] = []
    left_out = held = 0
    progress = Progress("reading docstrings", size)
    for path in _files():
        for text in _docstrings_of(path):
            document = _fresh_prose(text, seen)
            if document is None:
                continue
            if matcher([document])[0]:
                left_out += 1
                continue
            documents.append(document)
            held += len(document)
        progress.update(min(held, size - 1))
        if held >= size:
            progress.update(size)
            progress.close()
            return documents, left_out
    raise KislError(f"the installed packages hold {held:,} characters of docstrings; the demo needs {size:,}")


def _files() -> list[Path]:
    found = []
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            root = Path(place)
            found += [(str(path.relative_to(root.parent)), path) for path in root.rglob("*.py")]
    return [path for _, path in sorted(found, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())]


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, _OWNERS):
            text = ast.get_docstring(node, clean=False)
            if text and "\n" in text:
                yield inspect.cleandoc(text)


def _fresh_prose(text: str, seen: set[bytes]) -> str | None:
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.lstrip().startswith((">>>", "..."))]
        kept = "\n".join(lines).strip("\n")
        digest = hashlib.sha256(" ".join(kept.split()).encode()).digest()
        if kept.strip() and digest not in seen:
            seen.add(digest)
            paragraphs.append(kept)
    document = "\n\n".join(paragraphs)
    return document if "\n" in document else None
