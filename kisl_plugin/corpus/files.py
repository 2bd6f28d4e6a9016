"""The text files that a corpus is made from: which they are, and their documents one by one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kisl_plugin.corpus.formats import READERS
from kisl_plugin.errors import InputError
from kisl_plugin.progress import Progress

MEGABYTE = 1_000_000


def find_files(inputs: Sequence[Path]) -> list[Path]:
    """The files of `inputs`, in their order; a folder stands for the readable files below it, by name.

    Raises:
        InputError: nothing is there, an ending is not known, or a file would be read twice.
    """
    files = [file for path in inputs for file in _files_of(path)]
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"{file}: given twice; its documents would be in the corpus twice: name it once")
        seen.add(file.resolve())
    return files


def read_documents(files: Sequence[Path], label: str) -> Iterator[str]:
    """The documents of `files`, empty ones too, read piece by piece, with progress in megabytes as they lie on disk.

    Raises:
        InputError: a document cannot be read; it names the file and the line or row.
    """
    sizes = [file.stat().st_size for file in files]
    total = max(1, sum(sizes) // MEGABYTE)
    progress = Progress(f"{label}, MB", total)
    before = documents = 0
    try:
        for file, size in zip(files, sizes, strict=True):
            for text, done in _read(file):
                documents += 1
                # The last update is always written, and there is one last only.
                progress.update(min((before + done) // MEGABYTE, total - 1), f"{documents:,} documents")
                yield text
            before += size
        progress.update(total, f"{documents:,} documents")
    finally:
        progress.close()


def _read(file: Path) -> Iterator[tuple[str, int]]:
    try:
        yield from READERS[_ending(file)](file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None


def _files_of(path: Path) -> list[Path]:
    endings = ", ".join(READERS)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _ending(file) and file.is_file())
        if not found:
            raise InputError(f"{path}: no file below this folder ends in {endings}")
        return found
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; --input takes text files ({endings}) and folders of them")
    if not _ending(path):
        raise InputError(f"{path}: the ending is not known; expected {endings}")
    return [path]


def _ending(path: Path) -> str:
    return next((ending for ending in READERS if path.name.casefold().endswith(ending)), "")
