"""A checkpoint of GPT-NeoX: finding it, and opening what makes up the model without running code that is in it.

Whatever is missing, broken or contradicts the YAMLs is an InputError.
"""

import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin.checkpoints import LATEST, latest_checkpoint
from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import Yamls, read_yamls

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# ---- one file of torch.save


class Inert:
    """Stands for an object whose class is not needed. It accepts any state and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return None

    def __setstate__(self, state: Any) -> None:
        return None


def read_saved(path: Path) -> Any:
    """What torch saved at `path`; its tensors are mapped from the disk and read when they are used.

    Tensors and plain containers only: every other class in the file (GPT-NeoX saves NumPy's random state, DeepSpeed
    at times its own objects) becomes an `Inert`, so that no code of the file's choosing runs.
    """
    import torch
    from torch import serialization

    # torch 2.4 has no context manager for this list.
    before = serialization.get_safe_globals()
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
        named = {str(value) for code, value, _ in pickletools.genops(pickled) if code.name == "GLOBAL"}
        names = sorted(name.replace(" ", ".", 1) for name in named)
        # The reader itself judges the names that it knows; it knows none outside these packages.
        foreign = [n for n in names if n.split(".")[0] not in ("torch", "collections", "__builtin__", "builtins")]
        inert = [type(name.rpartition(".")[2], (Inert,), {"__module__": name.rpartition(".")[0]}) for name in foreign]
        # torch 2.4 does not know the built-in set, of which DeepSpeed saves one.
        serialization.add_safe_globals([set, *inert])
        return torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; the checkpoint is incomplete") from None
    except Exception as error:  # a broken file may raise anything, from zipfile.BadZipFile to struct.error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise InputError(
            f"{path}: cannot be read as a file of torch.save ({reason}); if its writing was cut off, use an earlier "
            "checkpoint"
        ) from None
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


# ---- the tensors, in their tensor-parallel parts, each of which must be used once

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
        """The parts of a tensor, one a rank; `shape` is the whole one's, `split` the dimension it is divided along."""
        expected = [size // len(self._ranks) if axis == split else size for axis, size in enumerate(shape)]
        parts = []
        for number, rank in enumerate(self._ranks):
            part = rank.pop(name, None)
            if part is None:
                raise InputError(f"{self._where}: rank {number} lacks the tensor {name}, which configs/ requires")
            if list(part.shape) != expected:
                raise InputError(
                    f"{self._where}: {name} of rank {number} is {list(part.shape)}; configs/ requires {expected}"
                )
            parts.append(part)
        return parts

    def check_all_taken(self) -> None:
        """Refuse a checkpoint that holds a tensor which was not taken."""
        for number, rank in enumerate(self._ranks):
            for name, tensor in rank.items():
                raise InputError(
                    f"{self._where}: rank {number} holds {name} {list(tensor.shape)}, which a Llama model of the shape "
                    "in configs/ does not have"
                )


# ---- the whole checkpoint

# GPT-NeoX's own values for the keys that a YAML may leave out.
_DEFAULTS: Mapping[str, Any] = {
    "no_weight_tying": False,
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
    """The checkpoint at `path`, or the one that `latest` names in it."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a checkpoint of GPT-NeoX (SAVE/global_stepN) or SAVE")
    steps = ", ".join(sorted(str(step) for step in path.glob("global_step*"))) or "none is there"
    latest = latest_checkpoint(path)
    if latest is not None and not latest.is_dir():
        raise InputError(f"{path / LATEST}: names {latest.name!r}, which is not there; use one of {steps}")
    path = latest or path
    first = path / _rank_file(0)
    if first.is_file():
        return path
    if any(path.glob("zero_pp_rank_*_model_states.pt")):
        raise InputError(
            f"{path}: was saved under ZeRO stage 3, which leaves a part of every weight with every rank; join them "
            "with DeepSpeed's zero_to_fp32.py, or train with zero_optimization.stage 0, 1 or 2"
        )
    if any(path.glob("*_states.pt")):
        raise InputError(f"{first}: is missing; the checkpoint is incomplete")
    raise InputError(f"{path}: is not a checkpoint of GPT-NeoX; expected SAVE/global_stepN, or SAVE: {steps}")


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the YAMLs and map the weights of a checkpoint; the optimizer's files are not opened."""
    configs = folder / "configs"  # GPT-NeoX writes it after the weights
    paths = sorted(path for path in configs.glob("*") if path.suffix in (".yml", ".yaml", ".json"))
    if not paths:
        raise InputError(f"{configs}: holds no YAML; the checkpoint was not written to its end")
    yamls = read_yamls(paths)
    # What save_ds_checkpoint in megatron/checkpointing.py saves with the weights: some arguments, among others.
    first = read_saved(folder / _rank_file(0))
    saved = first.get("args") if isinstance(first, Mapping) and {"module", "iteration"} <= first.keys() else None
    if not isinstance(saved, Mapping) or not all(isinstance(saved.get(key), int) for key in _SAVED_ARGUMENTS):
        raise InputError(
            f"{folder / _rank_file(0)}: lacks what GPT-NeoX saves with the weights (args, iteration, module)"
        )
    for key, value in saved.items():
        # The two are of one run, unless files were copied.
        if key in yamls.values and yamls.values[key] != value:
            raise InputError(
                f"{yamls.file_of(key)}: {key} is {yamls.values[key]!r}, but the weights were saved with {value!r}"
            )
    settings = {**_DEFAULTS, **yamls.values, **saved}
    ranks = settings["model_parallel_size"]
    if first["module"] is not None:
        # Without pipeline stages (pipe_parallel_size 0): one file a rank.
        modules = [first, *(read_saved(folder / _rank_file(rank)) for rank in range(1, ranks))]
        parts = [{k.removeprefix("sequential."): v for k, v in one["module"].items()} for one in modules]
        return Checkpoint(folder, int(first["iteration"]), yamls, settings, Shards(parts, folder))
    # With pipeline stages: one file a layer and rank. Embedding 0, transformer layers from 2, the last norm, the output
    # layer; the numbers between them are plain functions. Source: GPT2ModelPipe.init_specs in model/gpt2_model.py.
    count = settings["num_layers"]
    output = [count + 4] if settings["no_weight_tying"] else []
    parts = [{} for _ in range(ranks)]
    for layer in (0, *range(2, count + 2), count + 3, *output):
        for rank in range(ranks):
            tensors = read_saved(folder / f"layer_{layer:02d}-model_{rank:02d}-model_states.pt")
            parts[rank].update({f"{layer}.{name}": tensor for name, tensor in tensors.items()})
    return Checkpoint(folder, int(first["iteration"]), yamls, settings, Shards(parts, folder))


def _rank_file(rank: int) -> str:
    """The file that holds what a model-parallel rank saves of itself."""
    return f"mp_rank_{rank:02d}_model_states.pt"
