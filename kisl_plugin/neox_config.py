"""The folder that a run saves to: whether it can be written, and whether it is another run's. For every engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError

# A run's GPT-NeoX YAMLs, merged as GPT-NeoX merges them: where a mistake stands can still be told.


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


# The shape of a Llama model in plain arithmetic: its inner width as GPT-NeoX rounds it, and its parameters.


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """rmsnorm, rotary embeddings, swiglu of width `inner`, no biases, input and output embeddings of their own."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """N, all parameters: those of the layers, and `vocabulary` × `hidden` going in and again going out."""
        return self.parameters_non_embedding + 2 * self.vocabulary * self.hidden

    @property
    def parameters_non_embedding(self) -> int:
        """The parameters of the layers (q, k, v, o; gate, up, down; two norms) and of the last norm."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.inner + 2 * self.hidden
        return self.layers * layer + self.hidden

    @property
    def intermediate_size(self) -> int:
        """What GPT-NeoX must be told so that it takes `inner` (with mlp_multiple_of 1); see `swiglu_width`."""
        return 3 * self.inner


def swiglu_width(intermediate_size: int | None, hidden_size: int, multiple_of: int) -> int:
    """The inner width that GPT-NeoX gives a swiglu layer: two thirds of half `intermediate_size`, rounded up.

    Source: ParallelMLP in megatron/model/transformer.py. The two projections are rounded on their own there.

    Raises:
        InputError: they would not fit each other.
    """
    both = int((intermediate_size or 4 * hidden_size) * 2 / 3)
    wide = 2 * multiple_of * -(-both // (2 * multiple_of))
    narrow = multiple_of * -(-(both // 2) // multiple_of)
    if wide != 2 * narrow or not narrow:
        raise InputError(
            f"intermediate_size {intermediate_size} with mlp_multiple_of {multiple_of}: GPT-NeoX's swiglu would have "
            f"{wide} outputs for {narrow} inputs; take a multiple of {6 * multiple_of}"
        )
    return narrow


# The folder that a run saves to: whether it can be written, and whether it is another run's. For every engine.


def claim_folder(folder: Path, where: str) -> None:
    """Make `save`, before any time is spent. `where` names the YAMLs.

    Raises:
        InputError: it is no folder, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{where}: save ({folder}) cannot be written ({error.strerror})") from None


def is_same(load: str | None, save: Path) -> bool:
    """Whether `load` is the run's own `save`."""
    return load is not None and Path(load).resolve() == save.resolve()


def taken(save: Path, load: str | None, own: Path, where: str) -> InputError:
    """The error of a fresh run that would begin among checkpoints; `own` is the newest of those that `save` holds."""
    return InputError(
        f"{where}: save ({save}) holds checkpoints already ({own.name}) and load is {load!r}; set load to "
        f"{str(save)!r} to resume that run, or choose another save"
    )


def refuse_own_parent(save: Path, load: str | None, where: str) -> None:
    """A continued run that would save over its parent's checkpoints.

    Raises:
        InputError: `load` and `save` are the same folder.
    """
    if is_same(load, save):
        raise InputError(
            f"{where}: finetune is true and load and save are both {load!r}; choose another save, so that the parent's "
            "checkpoints stay"
        )


def no_parent(load: str | None, where: str) -> InputError:
    """The error of a continued run without a checkpoint to start from."""
    return InputError(f"{where}: finetune is true; load ({load}) holds no checkpoint to start from")
