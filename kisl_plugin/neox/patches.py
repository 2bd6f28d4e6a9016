"""The `kisl` section as a field of GPT-NeoX's own arguments class."""

import importlib
import os
import re
import sys
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib.metadata import version
from types import ModuleType
from typing import Any, Literal, Union, get_args, get_origin

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import Yamls

# What GPT-NeoX needs on any machine so that it runs with today's libraries. Nothing here changes what is computed.

CLIPS_BY_ITSELF = (0, 19, 8)


def provide_pkg_resources() -> None:
    """GPT-NeoX says `from pkg_resources import packaging`; setuptools has no pkg_resources from version 82."""
    try:
        importlib.import_module("pkg_resources")
    except ImportError:
        stub = types.ModuleType("pkg_resources")
        stub.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
        importlib.import_module("packaging.version")
        sys.modules["pkg_resources"] = stub


def warn_of_lost_clipping(neox_args: Any, say: Callable[[str], None] = print) -> None:
    """GPT-NeoX drops gradient_clipping from DeepSpeed's settings where it is the default, 1.0.

    DeepSpeed before 0.19.8, and the fork that GPT-NeoX pins, then do not clip at all.
    """
    told = "gradient_clipping" in (neox_args.deepspeed_extra_args or {})
    if not told and neox_args.gradient_clipping == 1.0 and _release(version("deepspeed")) < CLIPS_BY_ITSELF:
        say(
            f"WARNING: deepspeed {version('deepspeed')} is not told gradient_clipping: 1.0 and will not clip; "
            'add "deepspeed_extra_args": {"gradient_clipping": 1.0}'
        )


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def mend_pipeline_evaluation(training: Any) -> None:
    """With pipe_parallel_size >= 1 `forward_step` returns a loss, and `evaluate` unpacks a loss and its metrics."""
    original = training.forward_step

    def forward_step(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        return found if isinstance(found, tuple) else (found, {})

    training.forward_step = forward_step


# What lets GPT-NeoX train without CUDA: eight patches from outside, each shown to be necessary by leaving it out.
#
# They are applied where there is no GPU, or where KISL_CPU=1 asks for it, and are printed when applied.

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


# The `kisl` section as a field of GPT-NeoX's own arguments class.


def add_kisl_field() -> Any:
    """Give NeoXArgs the field `kisl`; returns NeoXArgs.

    Printing, validation, the way to the workers and the copy saved with a checkpoint then treat it like the others.
    """
    from megatron.neox_arguments import arguments
    from megatron.neox_arguments.template import NeoXArgsTemplate

    if "kisl" in arguments.NeoXArgs.__dataclass_fields__:
        return arguments.NeoXArgs

    @dataclass
    class NeoXArgsKisl(NeoXArgsTemplate):  # type: ignore[misc]
        kisl: dict = None  # type: ignore[assignment, type-arg]
        """What is injected: see the section `kisl`."""

    arguments.BASE_CLASSES.append(NeoXArgsKisl)
    arguments.NEOX_ARG_CLASSES.append(NeoXArgsKisl)
    arguments.NeoXArgs.__bases__ = (*arguments.NeoXArgs.__bases__, NeoXArgsKisl)
    for name in ("__init__", "__repr__", "__eq__"):
        delattr(arguments.NeoXArgs, name)
    dataclass(arguments.NeoXArgs)
    return arguments.NeoXArgs


def refuse_unknown_keys(yamls: Yamls, neox_args_class: Any) -> None:
    """GPT-NeoX itself ends in a bare TypeError.

    Raises:
        InputError: names the key, its file and the closest key that GPT-NeoX knows.
    """
    known = [f.name for f in fields(neox_args_class)]
    for key in yamls.values:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see configs/neox_arguments.md in GPT-NeoX's folder"
            raise InputError(f"{yamls.files[key]}: {key} is unknown to GPT-NeoX; {hint}")


def refuse_wrong_types(yamls: Yamls, neox_args_class: Any) -> None:
    """GPT-NeoX itself names neither the key nor what it expected.

    Raises:
        InputError: names the first key whose value has another type than GPT-NeoX takes, or is none of its choices.
    """
    kinds = {f.name: f.type for f in fields(neox_args_class)}
    for key, value in yamls.values.items():
        if value is not None and value != "auto" and not _fits(value, kinds[key]):
            raise InputError(f"{yamls.files[key]}: {key} is {value!r}; GPT-NeoX expects {_named(kinds[key])}")


def _fits(value: Any, kind: Any) -> bool:
    """As NeoXArgs.validate_types has it: exact types, a whole number for a float, choices in any case."""
    if get_origin(kind) is Literal:
        return value in get_args(kind) or str(value).lower() in [str(choice).lower() for choice in get_args(kind)]
    if get_origin(kind) is Union and not any(map(get_origin, get_args(kind))):
        return type(value) in get_args(kind)
    return not isinstance(kind, type) or type(value) is kind or (kind is float and type(value) is int)


def _named(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    choices = get_args(kind) or (kind,)
    return " or ".join(choice.__name__ for choice in choices if choice is not type(None))
