"""Finding results files in any tree: hidden folders too (lm-eval names one `.__x` for `pretrained=./x`)."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.fit.reading.observations import SetAside

# results_<time>.json, and <stem>_<time>.json for `--output_path <stem>.json`
LM_EVAL_NAME = re.compile(r"results_.*\.json|.*_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*\.json")


def find_json(paths: Sequence[Path]) -> tuple[list[Path], list[SetAside]]:
    """Every *.json under `paths` once, in order of folders and names, and the folders that cannot be read.

    Links are followed; a folder reached twice, as in a loop of links, is read once.

    Raises:
        InputError: a path does not exist.
    """
    aside: list[SetAside] = []
    found: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give lm_eval's --output_path")
        for file in _walk(path, aside, seen) if path.is_dir() else [path]:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values()), aside


def claims_to_be_results(path: Path) -> bool:
    """Whether the name is one that lm-eval gives to results."""
    return LM_EVAL_NAME.fullmatch(path.name) is not None


def load_results(file: Path, must_be_results: bool) -> dict[str, Any] | None:
    """The data of a results file, or None for some other JSON file.

    Raises:
        InputError: it must be one and is none.
    """
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait forever
            raise OSError(0, "not a file")
        text = file.read_text(encoding="utf-8-sig")
        data = json.loads(text) if must_be_results or '"results"' in text else None
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
    except (ValueError, RecursionError) as error:
        reason = f"cannot be read as JSON ({error})" if file.stat().st_size else "an empty file; probe again"
    else:
        if isinstance(data, dict) and "results" in data and ("configs" in data or "n-samples" in data):
            return data
        reason = "not lm-eval results: they are a JSON object with 'results' and 'configs'"
    if must_be_results:
        raise InputError(reason)
    return None


def _walk(top: Path, aside: list[SetAside], seen: set[tuple[int, int]]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        aside.append(SetAside(str(error.filename), f"folder cannot be read ({error.strerror})"))

    for folder, folders, files in os.walk(top, onerror=unreadable, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".json"))
