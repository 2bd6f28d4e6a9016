"""The text files that a corpus is made from: local paths, folders, globs, and the same as URLs."""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.corpus.formats import READERS, ending_of
from kisl_plugin.corpus.storage import errors_of, file_system, is_remote, local_state, remote_state
from kisl_plugin.errors import InputError

ENDINGS = ", ".join(READERS)
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.*-]*)+")
HUB = "hf://datasets/"
BUILT = (".work", ".excluded")


@dataclass(frozen=True)
class SourceFile:
    """A file that is read, `size` bytes long; its `version` is another once its content is."""

    path: str
    size: int
    version: str


def find_files(inputs: Sequence[str | Path]) -> list[SourceFile]:
    """The files of `inputs`, in their order; a folder or a glob stands for the readable files it leads to, by name.

    Raises:
        InputError: nothing is there, an ending is not known, a file would be read twice, or a URL may not be read.
        KislError: a storage cannot be reached.
    """
    files = [file for given in inputs for file in _files_of(str(given).removeprefix("file://"))]
    seen: set[str] = set()
    for file in files:
        key = file.path if is_remote(file.path) else str(Path(file.path).resolve())
        if key in seen:
            raise InputError(f"{file.path}: given twice; its documents would be in the corpus twice: name it once")
        seen.add(key)
    return files


def _files_of(given: str) -> list[SourceFile]:
    with errors_of(given):
        return _remote_files(given) if is_remote(given) else _local_files(given)


def _local_files(given: str) -> list[SourceFile]:
    path = Path(given)
    if not given:
        raise InputError("--input is empty; expected a file, a folder, a glob or a URL")
    if path.is_file():
        if not ending_of(given):
            raise InputError(f"{given}: the ending is not known; expected {ENDINGS}")
        return [_local_file(path)]
    if not path.exists() and glob.has_magic(given):
        roots = [Path(found) for found in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207 (absolute ones)
    elif path.is_dir():
        roots = [path]
    else:
        raise InputError(f"{given}: no such file or folder; {_hint(given)}")
    found = {file: None for root in roots for file in _below(root)}
    _refuse_built(found, given)
    if not found:
        where = "below this folder" if path.is_dir() else "that this pattern fits"
        raise InputError(f"{given}: no file {where} ends in {ENDINGS}")
    return [_local_file(file) for file in found]


def _below(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root] if ending_of(root.name) else []
    return sorted(folder / name for folder, names in _folders(root) for name in names if ending_of(name))


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder once, those that links lead to as well, with the names of its files."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # which of two names of a folder is met first is no chance
        yield Path(folder), names


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); its documents would be left out unsaid")


def _refuse_built(found: Iterable[Path], given: str) -> None:
    """A folder holds what an earlier build left there: its documents would be in the corpus twice."""
    for path in found:
        if path.parent.suffix in BUILT and path.parent.suffix not in given:
            raise InputError(
                f"{path}: lies in what a build calls its folder; if a build of these texts left it, name the texts "
                f"themselves: --input '{given.rstrip('/')}/*.jsonl'; if not, name {path.parent}"
            )


def _local_file(path: Path) -> SourceFile:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        known = sys.getfilesystemencoding()
        raise InputError(
            f"{os.fsencode(path)!r}: a file name that is not {known} cannot be written down; rename it"
        ) from None
    with errors_of(str(path)):
        size, version = local_state(path)
    if not path.is_file():  # whoever opens a pipe waits for ever
        raise InputError(f"{path}: is no regular file; expected text that can be read again")
    return SourceFile(str(path), size, version)


def _hint(given: str) -> str:
    if HUB_NAME.fullmatch(given) and not ending_of(given) and not Path(given.split("/")[0]).exists():
        return f"a data set of the Hugging Face hub is {HUB}{given}"
    return f"--input takes text files ({ENDINGS}), folders of them, globs, and URLs (hf://datasets/…, s3://…)"


def _remote_files(url: str) -> list[SourceFile]:
    system, name = file_system(url)
    if glob.has_magic(name):
        return _remote_matches(system, name, url)
    info = system.info(name)
    if info["type"] != "directory":
        if not ending_of(url):
            raise InputError(f"{url}: the ending is not known; expected {ENDINGS}")
        return [SourceFile(system.unstrip_protocol(name), *remote_state(info))]
    return _readable(system, system.find(name, detail=True), url, "below this folder")


def _remote_matches(system: Any, pattern: str, url: str) -> list[SourceFile]:
    found: dict[str, Any] = {}
    for name, info in sorted(system.glob(pattern, detail=True).items()):
        found.update(system.find(name, detail=True) if info["type"] == "directory" else {name: info})
    return _readable(system, found, url, "that this pattern fits")


def _readable(system: Any, infos: dict[str, Any], url: str, where: str) -> list[SourceFile]:
    files = [
        SourceFile(system.unstrip_protocol(name), *remote_state(info))
        for name, info in sorted(infos.items())
        if info["type"] == "file" and ending_of(name)
    ]
    if not files:
        raise InputError(f"{url}: no file {where} ends in {ENDINGS}")
    return files
