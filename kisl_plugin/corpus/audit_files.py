"""Which .bin/.idx files an audit reads, and with which tokenizer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.indexed import file_of
from kisl_plugin.runcard import sha256
from kisl_plugin.tokenizer import read_tokenizer
from kisl_plugin.yamls import read_yamls

YAML_ENDINGS = (".yml", ".yaml")
DATA_ENDINGS = (".bin", ".idx")


@dataclass(frozen=True)
class Files:
    """The corpora, and the tokenizer.json that they were made with."""

    prefixes: tuple[Path, ...]
    tokenizer: Path


def tokenizer_of(given: Sequence[Path], tokenizer: Path | None) -> Files:
    """Find the files. A corpus that `kisl corpus build` made names its tokenizer, which is checked.

    Raises:
        InputError: no tokenizer is known, or it is not the one that a corpus was made with.
    """
    manifests = {path: manifest for path in given if (manifest := _manifest(_without_ending(path))) is not None}
    if tokenizer is None:
        unknown = next((path for path in given if path not in manifests), None)
        if unknown is not None or not given:
            raise InputError(
                f"{unknown}: no {unknown}.json tells which tokenizer the corpus was made with; pass --tokenizer FILE"
            )
        tokenizer = Path(manifests[given[0]]["tokenizer"])
    digest = sha256(read_tokenizer(tokenizer)[0].to_str())
    for path, manifest in manifests.items():
        if manifest["tokenizer_sha256"] != digest:
            raise InputError(
                f"{tokenizer}: is not the tokenizer that {path} was made with (sha256 {digest}, the corpus has "
                f"{manifest['tokenizer_sha256']}); pass the right one with --tokenizer"
            )
    return Files(tuple(prefix for path in given for prefix in _prefixes(path)), tokenizer)


def _without_ending(path: Path) -> Path:
    return path.with_suffix("") if path.suffix in (*YAML_ENDINGS, *DATA_ENDINGS) else path


def _prefixes(path: Path) -> list[Path]:
    """What a YAML trains on; of a build with --weighted, given by its prefix, all shards, the one held out too."""
    if path.suffix in YAML_ENDINGS:
        return _paths_of(path, ("train_data_paths",))
    prefix = _without_ending(path)
    shards = file_of(prefix, ".yml")
    if shards.is_file() and not file_of(prefix, ".idx").exists():
        return _paths_of(shards, ("train_data_paths", "valid_data_paths"))
    return [prefix]


def _paths_of(path: Path, keys: Sequence[str]) -> list[Path]:
    values = read_yamls([path]).values
    if "train_data_paths" not in values and isinstance(values.get("data_path"), str):
        return [Path(values["data_path"])]
    found: dict[Path, None] = {}
    for key in keys:
        paths = values.get(key)
        if not isinstance(paths, list) or not paths or not all(isinstance(one, str) for one in paths):
            raise InputError(f"{path}: {key} is {paths!r}; expected a list of corpora")
        found.update(dict.fromkeys(map(Path, paths)))
    return list(found)


def _manifest(prefix: Path) -> dict[str, Any] | None:
    """What `kisl corpus build` wrote beside the corpus; None where there is nothing of the kind."""
    path = file_of(prefix, ".json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    known = isinstance(manifest, dict) and all(isinstance(manifest.get(key), str) for key in _KEYS)
    return manifest if known else None


_KEYS = ("tokenizer", "tokenizer_sha256")
