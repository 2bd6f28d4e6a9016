"""What lets GPT-NeoX train without CUDA: eight patches from outside, each shown to be necessary by leaving it out.

They are applied where there is no GPU, or where KISL_CPU=1 asks for it, and are printed when applied.
"""

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.yamls import Yamls

REQUEST = "KISL_CPU"
ACCELERATOR = "DS_ACCELERATOR"  # which DeepSpeed reads when it is first asked
PATCHES = (
    "torch.cuda.device_count and is_available",
    "torch.cuda.current_device",
    "torch.cuda.LongTensor and its siblings",
    "Tensor.cuda and Module.cuda",
    "torch.cuda.set_device",
    "torch.cuda.synchronize",
    "torch.cuda.get_rng_state and set_rng_state",
    "initialize_megatron(allow_no_cuda=True)",
)
GPU_KERNELS = (
    "scaled_upper_triang_masked_softmax_fusion",
    "scaled_masked_softmax_fusion",
    "rope_fusion",
    "layernorm_fusion",
    "rmsnorm_fusion",
    "use_flashattn_swiglu",
)
_TENSORS = "LongTensor IntTensor ByteTensor FloatTensor DoubleTensor HalfTensor BFloat16Tensor".split()


def choose_device() -> bool:
    """Whether this process does without CUDA. Must be called before torch or deepspeed is imported.

    With KISL_CPU=1 the machine's GPUs are hidden from it.
    """
    if os.environ.get(REQUEST) == "1":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    return not torch.cuda.is_available()


def patch_cuda(processes: int) -> None:
    """Give `torch.cuda` the meaning it needs on a CPU: `processes` devices, all of them the CPU."""
    import torch

    cpu = torch.device("cpu")
    cuda: Any = torch.cuda
    # A torch built for CUDA would conclude from the device count that CUDA is there.
    cuda.is_available = lambda: False
    cuda.device_count = lambda: processes
    cuda.current_device = lambda: cpu
    for name in _TENSORS:
        setattr(cuda, name, getattr(torch, name))
    # A function each: torch's compiler tells torch's functions apart by identity.
    cuda.set_device = lambda *_: None
    cuda.synchronize = lambda *_: None
    cuda.get_rng_state = lambda *_: torch.empty(0, dtype=torch.uint8)
    cuda.set_rng_state = lambda *_: None
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def patch_initialize(modules: Iterable[ModuleType]) -> None:
    """Let `initialize_megatron` pass without CUDA wherever one of `modules` calls it."""
    for module in modules:
        module.initialize_megatron = _without_cuda(module.initialize_megatron)  # type: ignore[attr-defined]


def refuse_gpu_kernels(yamls: Yamls) -> None:
    """What only runs on a GPU, asked for where there is none.

    Raises:
        InputError: names the key.
    """
    for key in GPU_KERNELS:
        if yamls.values.get(key):
            raise InputError(
                f"{yamls.file_of(key)}: {key} is true; its kernel needs a GPU, and there is none: set false"
            )
    if "flash" in str(yamls.values.get("attention_config")):
        raise InputError(
            f"{yamls.file_of('attention_config')}: attention_config asks for flash attention, which needs a GPU, and "
            "there is none; take a YAML that is made for a CPU, such as neox_configs/tiny_f20.yml, or set global"
        )


def settle_on_cpu(neox_args: Any) -> None:
    """Set what a CPU needs and leaves no choice: gloo, and as many processes as num_gpus says, one without it."""
    neox_args.update_value("distributed_backend", "gloo")
    if neox_args.hostfile is None:
        neox_args.update_value("num_gpus", neox_args.num_gpus or 1)


def use_plain_adam() -> None:
    """Replace deepspeed's FusedAdam, which on a CPU is compiled for a minute at first use, by torch's AdamW."""
    import deepspeed.ops.adam
    import torch

    deepspeed.ops.adam.FusedAdam = torch.optim.AdamW


def _without_cuda(original: Any) -> Any:
    def initialize_megatron(neox_args: Any, allow_no_cuda: bool = True) -> Any:
        return original(neox_args, allow_no_cuda=True)

    return initialize_megatron
