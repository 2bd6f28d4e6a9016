"""What the real GPT-NeoX makes of the grid's YAMLs, as one line of JSON; run as a process of its own.

Models are built under torch's FakeTensorMode: GPT-NeoX's own constructors run, and no weight takes memory.
flash-attn need not be here: GPT-NeoX asks for its version when it reads a YAML, which is answered for it, and imports
it when it builds a layer, so that models are built with plain attention, which has the same parameters.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main(folder: Path, yamls: Mapping[str, Sequence[int]], models: Sequence[str]) -> dict[str, Any]:
    """`yamls`: which are read, and for how many GPUs; `models`: those whose models are built."""
    from kisl_plugin.neox.install import find_neox
    from kisl_plugin.neox.patches import add_kisl_field, choose_device, patch_cuda, provide_pkg_resources

    choose_device()
    provide_pkg_resources()
    sys.path.insert(0, str(find_neox()))
    patch_cuda(1)
    neox_args_class = add_kisl_field()
    from megatron.neox_arguments import arguments

    arguments.version = lambda name: "2.7.0" if name == "flash-attn" else version(name)
    read = {name: [_read(neox_args_class, folder, name, n) for n in gpus] for name, gpus in yamls.items()}
    return {"yamls": read, "models": _build(neox_args_class, folder, models)}


def _read(neox_args_class: Any, folder: Path, name: str, gpus: int) -> dict[str, Any]:
    args = neox_args_class.from_ymls([str(folder / f"{name}.yml")], {"global_num_gpus": gpus})
    keys = (
        "kisl train_iters train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps seq_length "
        "precision attention_config is_pipe_parallel"
    )
    return {"deepspeed": args.deepspeed_config, **{key: getattr(args, key) for key in keys.split()}}


def _build(neox_args_class: Any, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    import deepspeed
    import torch
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
    from megatron import mpu

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    topology = PipeModelDataParallelTopology(num_pp=1, num_mp=1, num_dp=1)
    mpu.initialize_model_parallel(1, topology=topology, fp32_allreduce=False)
    deepspeed.checkpointing.configure(mpu, partition_activations=False)
    mpu.model_parallel_cuda_manual_seed(1234)
    # DeepSpeed moves the model to its device; a fake one has none.
    torch.nn.Module.to = lambda self, *_, **__: self  # type: ignore[method-assign]
    return {name: _facts(neox_args_class, folder, name, topology) for name in names}


def _facts(neox_args_class: Any, folder: Path, name: str, topology: Any) -> dict[str, Any]:
    from megatron.model import GPT2ModelPipe
    from megatron.tokenizer.tokenizer import _vocab_size_with_padding
    from torch._subclasses.fake_tensor import FakeTensorMode

    args = neox_args_class.from_ymls([str(folder / f"{name}.yml")])
    args.attention_config = ["global"] * args.num_layers
    args.padded_vocab_size = _vocab_size_with_padding(4_096 if name.startswith("tiny") else 32_000, args)
    with FakeTensorMode():
        model = GPT2ModelPipe(args, parallel_output=True, topology=topology).to_sequential()
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    ends = ("word_embeddings.weight", "final_linear.weight")
    return {
        "vocabulary": args.padded_vocab_size,
        "parameters": sum(sizes.values()),
        "embeddings": [size for key, size in sizes.items() if key.endswith(ends)],
        "biases": [key for key in sizes if "bias" in key],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), **json.loads(sys.argv[2]))))
