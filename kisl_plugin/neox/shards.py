"""The tensors of a GPT-NeoX checkpoint, in their tensor-parallel parts, each of which must be used once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kisl_plugin.errors import InputError
from kisl_plugin.neox.saved import read_saved

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
