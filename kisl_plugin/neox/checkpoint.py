"""A checkpoint of GPT-NeoX: finding it, and opening the part of it that makes up the model."""

import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import Yamls, read_yamls

# Reading what torch.save wrote without executing anything in it, and without copying its tensors into memory.

# What torch's own weights-only reader knows; it refuses what it does not like among them.
_TORCH_KNOWS = frozenset({"torch", "collections", "__builtin__", "builtins"})


class Inert:
    """Stands for an object whose class is not needed. It takes whatever it is given and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return None

    def __setstate__(self, state: Any) -> None:
        return None


def read_saved(path: Path) -> Any:
    """What torch saved at `path`; its tensors are mapped from the disk and read when they are used.

    Tensors and plain containers only: every other class in the file (GPT-NeoX saves NumPy's random state, DeepSpeed
    at times its own objects) becomes an `Inert`, so that no code of the file's choosing runs.

    Raises:
        InputError: the file is missing, cut off, or holds what torch's weights-only reader refuses.
    """
    import torch

    try:
        # torch 2.4 does not know the built-in set, of which DeepSpeed saves one.
        with _allowed([set, *(_inert(name) for name in _foreign_classes(path))]):
            return torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; the checkpoint is incomplete") from None
    except Exception as error:  # a broken file may raise anything, from zipfile.BadZipFile to struct.error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise InputError(
            f"{path}: cannot be read as a file of torch.save ({reason}); if its writing was cut off, take an earlier "
            "checkpoint"
        ) from None


def _foreign_classes(path: Path) -> list[str]:
    """The dotted names of the classes and functions in the file's pickle that torch does not know."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        named = {str(value) for code, value, _ in pickletools.genops(archive.read(name)) if code.name == "GLOBAL"}
    dotted = {name.replace(" ", ".", 1) for name in named}
    return sorted(name for name in dotted if name.split(".")[0] not in _TORCH_KNOWS)


def _inert(dotted: str) -> type:
    module, name = dotted.rsplit(".", 1)
    return type(name, (Inert,), {"__module__": module})


@contextmanager
def _allowed(classes: Sequence[type]) -> Iterator[None]:
    """Let torch's weights-only reader make these classes (torch 2.4 has no `safe_globals` to do it)."""
    from torch import serialization

    before = serialization.get_safe_globals()
    serialization.add_safe_globals(list(classes))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


# The tensors of a GPT-NeoX checkpoint, in their tensor-parallel parts, each of which must be used once.

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# A buffer that GPT-NeoX saves on request (rotary_save_freqs_buffer); it follows from rotary_emb_base.
_DERIVED = "attention.rotary_emb.inv_freq"


class Shards:
    """Tensors by name, `<number in GPT-NeoX's sequence of layers>.<parameter>`; one mapping a tensor-parallel rank."""

    def __init__(self, ranks: Sequence[Mapping[str, "Tensor"]], where: Path) -> None:
        self._ranks = [{k: v for k, v in rank.items() if not k.endswith(_DERIVED)} for rank in ranks]
        self._where = where

    def dtypes(self) -> set["torch.dtype"]:
        """The types in which the tensors are stored; one, unless norms were kept in a finer one."""
        return {tensor.dtype for rank in self._ranks for tensor in rank.values()}

    def take(self, name: str, shape: Sequence[int], split: int | None = None) -> list["Tensor"]:
        """The parts of a tensor, one a rank. `shape` is the whole tensor's, `split` the dimension it is divided along.

        Raises:
            InputError: it is not there, was taken before, or its parts do not have that shape.
        """
        wanted = [size // len(self._ranks) if axis == split else size for axis, size in enumerate(shape)]
        parts = []
        for number, rank in enumerate(self._ranks):
            part = rank.pop(name, None)
            if part is None:
                raise InputError(f"{self._where}: rank {number} lacks the tensor {name} that configs/ asks for")
            if list(part.shape) != wanted:
                raise InputError(
                    f"{self._where}: {name} of rank {number} is {list(part.shape)}; configs/ asks for {wanted}"
                )
            parts.append(part)
        return parts

    def check_all_taken(self) -> None:
        """Refuse a checkpoint that holds more than was asked for.

        Raises:
            InputError: names the first tensor that is left.
        """
        for number, rank in enumerate(self._ranks):
            for name, tensor in rank.items():
                raise InputError(
                    f"{self._where}: rank {number} holds {name} {list(tensor.shape)}, which a Llama model of the shape "
                    "in configs/ has not"
                )


def rank_shards(folder: Path, first: Mapping[str, Any], ranks: int) -> Shards:
    """The tensors of a run without pipeline stages (pipe_parallel_size 0), one file a rank; `first` is rank 0's."""
    modules = [first, *(read_saved(folder / rank_file(rank)) for rank in range(1, ranks))]
    prefix = "sequential."
    return Shards([{k.removeprefix(prefix): v for k, v in saved["module"].items()} for saved in modules], folder)


def layer_shards(folder: Path, layers: Sequence[int], ranks: int) -> Shards:
    """The tensors of a run with pipeline stages (pipe_parallel_size >= 1), one file a layer and rank."""
    found: list[dict[str, Tensor]] = [{} for _ in range(ranks)]
    for layer in layers:
        for rank in range(ranks):
            saved = read_saved(folder / f"layer_{layer:02d}-model_{rank:02d}-model_states.pt")
            found[rank].update({f"{layer}.{name}": tensor for name, tensor in saved.items()})
    return Shards(found, folder)


def rank_file(rank: int) -> str:
    """The file that holds what a model-parallel rank saves of itself."""
    return f"mp_rank_{rank:02d}_model_states.pt"


# A checkpoint of GPT-NeoX: finding it, and opening the part of it that makes up the model.

CONFIGS, LATEST = "configs", "latest"
_YAMLS = (".yml", ".yaml", ".json")
# GPT-NeoX's own values for the keys that a YAML may leave out.
_DEFAULTS: Mapping[str, Any] = {
    "no_weight_tying": False,
    "make_vocab_size_divisible_by": 128,
    "model_parallel_size": 1,
    "mlp_multiple_of": 1,
    "rms_norm_epsilon": 1e-8,
    "rotary_emb_base": 10000,
}
_SAVED_ARGUMENTS = "num_layers hidden_size num_attention_heads max_position_embeddings padded_vocab_size".split()


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `settings`: what was saved with the weights, else the YAML's value, else the default."""

    folder: Path
    iteration: int
    yamls: Yamls
    settings: Mapping[str, Any]
    shards: Shards


def find_checkpoint(path: Path) -> Path:
    """The checkpoint at `path`, or the one that `latest` names in it.

    Raises:
        InputError: there is none, or it is a model of another kind; says which.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a checkpoint of GPT-NeoX (SAVE/global_stepN) or SAVE")
    if (path / LATEST).is_file():
        name = (path / LATEST).read_text(encoding="utf-8", errors="replace").strip()
        if not (path / name).is_dir():
            raise InputError(f"{path / LATEST}: names {name!r}, which is not there; give one of {_steps(path)}")
        path = path / name
    _refuse_other_kinds(path)
    return path


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the YAMLs and map the weights of a checkpoint; the optimizer's files are not opened.

    Raises:
        InputError: a file is missing or broken, or the weights are not those of the YAMLs.
    """
    yamls = _read_configs(folder)
    first = read_saved(folder / rank_file(0))
    fixed = _saved_arguments(first, folder / rank_file(0))
    _check_same(yamls, fixed)
    settings = {**_DEFAULTS, **yamls.values, **fixed}
    ranks = settings["model_parallel_size"]
    if first["module"] is not None:
        shards = rank_shards(folder, first, ranks)
    else:
        layers = _layers_with_weights(settings["num_layers"], tied=not settings["no_weight_tying"])
        shards = layer_shards(folder, layers, ranks)
    return Checkpoint(folder, int(first["iteration"]), yamls, settings, shards)


def _saved_arguments(saved: Any, path: Path) -> Mapping[str, Any]:
    """The arguments that GPT-NeoX saves with the weights (save_ds_checkpoint in megatron/checkpointing.py)."""
    arguments = saved.get("args") if isinstance(saved, Mapping) and {"module", "iteration"} <= saved.keys() else None
    if not isinstance(arguments, Mapping) or not all(isinstance(arguments.get(key), int) for key in _SAVED_ARGUMENTS):
        raise InputError(f"{path}: lacks what GPT-NeoX saves with the weights (args, iteration, module)")
    return arguments


def _layers_with_weights(count: int, tied: bool) -> Sequence[int]:
    """Embedding 0, transformer layers from 2, the last norm, the output layer; between them stand plain functions.

    Source: GPT2ModelPipe.init_specs in megatron/model/gpt2_model.py.
    """
    return [0, *range(2, count + 2), count + 3, *([] if tied else [count + 4])]


def _refuse_other_kinds(path: Path) -> None:
    if (path / rank_file(0)).is_file():
        return
    if (path / "config.json").is_file():
        raise InputError(f"{path}: is a Hugging Face folder already; there is nothing to export")
    if (path / "state.pt").is_file():
        raise InputError(f"{path}: is a checkpoint of the local engine, which writes its finished model to SAVE/hf")
    if any(path.glob("zero_pp_rank_*_model_states.pt")):
        raise InputError(
            f"{path}: was saved under ZeRO stage 3, which leaves a part of every weight with every rank; join them "
            "with DeepSpeed's zero_to_fp32.py, or train with zero_optimization.stage 0, 1 or 2"
        )
    if any(path.glob("*_states.pt")):
        raise InputError(f"{path / rank_file(0)}: is missing; the checkpoint is incomplete")
    raise InputError(f"{path}: is no checkpoint of GPT-NeoX; expected SAVE/global_stepN, or SAVE: {_steps(path)}")


def _steps(path: Path) -> str:
    return ", ".join(sorted(str(found) for found in path.glob("global_step*"))) or "none is there"


def _read_configs(folder: Path) -> Yamls:
    """GPT-NeoX writes the YAMLs after the weights."""
    paths = sorted(path for path in (folder / CONFIGS).glob("*") if path.suffix in _YAMLS)
    if not paths:
        raise InputError(f"{folder / CONFIGS}: holds no YAML; the checkpoint was not written to its end")
    return read_yamls(paths)


def _check_same(yamls: Yamls, fixed: Mapping[str, Any]) -> None:
    """Arguments and YAML come from one run, unless files were copied."""
    for key, value in fixed.items():
        if key in yamls.values and yamls.values[key] != value:
            raise InputError(
                f"{yamls.file_of(key)}: {key} is {yamls.values[key]!r}, the weights beside it were saved with {value!r}"
            )
