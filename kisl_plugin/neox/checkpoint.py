"""A checkpoint of GPT-NeoX: finding it, and opening the part of it that makes up the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox.saved import read_saved
from kisl_plugin.neox.shards import Shards, layer_shards, rank_file, rank_shards
from kisl_plugin.yamls import Yamls, read_yamls

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
