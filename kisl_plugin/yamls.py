"""A run's GPT-NeoX YAMLs, merged as GPT-NeoX merges them: where a mistake stands can still be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError


@dataclass(frozen=True)
class Yamls:
    """Each key's value and file, `-` in keys read as `_`; the files' texts by name. `where` names all files."""

    values: Mapping[str, Any]
    files: Mapping[str, str]
    texts: Mapping[str, str]
    where: str

    def file_of(self, key: str) -> str:
        """The file in which `key` stands; of a dotted key, its first part."""
        return self.files.get(key.split(".")[0], self.where)


def read_yamls(paths: Sequence[Path]) -> Yamls:
    """Read and merge YAMLs; a key may stand in one of them only, and once.

    Raises:
        InputError: a file that is missing, not YAML or without keys, two files of one name, or a key that stands twice.
    """
    texts = _read_texts(paths)
    values: dict[str, Any] = {}
    files: dict[str, str] = {}
    for path in paths:
        for key, value in _parse(texts[path.name], path).items():
            name = str(key).replace("-", "_")
            if name in values:
                raise InputError(f"{path}: {name} stands in {files[name]} too; a key may be given once")
            values[name], files[name] = value, str(path)
    return Yamls(values, files, texts, ", ".join(map(str, paths)))


def _read_texts(paths: Sequence[Path]) -> dict[str, str]:
    """The YAMLs by file name. They are saved with every checkpoint, so two must not have the same name."""
    seen: dict[str, Path] = {}
    for path in paths:
        if path.name in seen:
            raise InputError(f"{path}: has the same file name as {seen[path.name]}; GPT-NeoX refuses that: rename one")
        seen[path.name] = path
    return {name: _read_text(path) for name, path in seen.items()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


class _EachKeyOnce(yaml.SafeLoader):
    """YAML's safe loader, which would let the last of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice."""
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"the key {name!r} stands in it {names.count(name)} times; leave one")
        return super().construct_mapping(node, deep)


def _parse(text: str, path: Path) -> Mapping[Any, Any]:
    try:
        data = yaml.load(text, Loader=_EachKeyOnce)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, Mapping):
        raise InputError(f"{path}: expected keys and values, got {type(data).__name__}")
    return data
