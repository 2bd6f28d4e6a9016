"""The held-out text of kisl_background: the bundled passages, or the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.corpus.formats import READERS, ending_of
from kisl_plugin.errors import InputError
from kisl_plugin.runcard import sha256

KEY = "background"
BUNDLED = "bundled"
BUNDLED_FILE = Path(__file__).parents[1] / "data" / "background.jsonl"


@dataclass(frozen=True)
class Passages:
    """Texts that are scored one by one, in the order of their file."""

    source: str
    texts: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What tells whether two results were measured on the same text."""
        size = sum(len(text.encode()) for text in self.texts)
        return {
            "source": self.source,
            "passages": len(self.texts),
            "bytes": size,
            "sha256": sha256("\n".join(self.texts)),
        }


def read_passages(metadata: Mapping[str, Any]) -> Passages:
    """The passages of the file that `metadata["background"]` names, else the bundled ones.

    A .txt file is one passage; .jsonl, .jsonl.gz, .jsonl.zst and .parquet give the key `text` of every row.

    Raises:
        InputError: the file cannot be read, or a passage is empty.
    """
    source = metadata.get(KEY, BUNDLED)
    path = BUNDLED_FILE if source == BUNDLED else _file(source)
    texts = _texts(path)
    if not texts:
        raise InputError(f'{path}: holds no passage; expected one a line: {{"text": …}}')
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise InputError(f"{path}: passage {number} is empty; bits per byte need bytes: take it out")
    return Passages(str(source), texts)


def _file(source: Any) -> Path:
    if not isinstance(source, str):
        raise InputError(f"metadata: {KEY} is {source!r}; expected the path of a text file ({', '.join(READERS)})")
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; metadata's {KEY} names a text file ({', '.join(READERS)})")
    return path


def _texts(path: Path) -> tuple[str, ...]:
    ending = ending_of(path.name)
    if not ending:
        raise InputError(f"{path}: the ending is not known; expected {', '.join(READERS)}")
    try:
        with path.open("rb") as stream:
            return tuple(document.text for document in READERS[ending](stream, str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
