"""How GPT-NeoX is changed from outside: for today's libraries, for a CPU, and to know the section `kisl`."""

import importlib
import json
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version
from secrets import token_hex
from types import ModuleType
from typing import Any, Literal, Union, get_args, get_origin

from kisl_plugin.errors import InputError
from kisl_plugin.neox_config import Yamls, hint_for_key

# ---- on any machine: what GPT-NeoX needs to run with today's libraries; nothing here changes what is computed


def provide_pkg_resources() -> None:
    """GPT-NeoX says `from pkg_resources import packaging`; setuptools has no pkg_resources from version 82."""
    try:
        importlib.import_module("pkg_resources")
    except ImportError:
        stub = types.ModuleType("pkg_resources")
        stub.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
        importlib.import_module("packaging.version")
        sys.modules["pkg_resources"] = stub


def provide_wandb_id() -> None:
    """GPT-NeoX ends the name of a W&B group with `wandb.util.generate_id()`, which newer releases of wandb lack."""
    with suppress(ImportError):  # GPT-NeoX says that it is missing
        util: Any = importlib.import_module("wandb").util
        if not hasattr(util, "generate_id"):
            util.generate_id = lambda: token_hex(4)


def mend_pipeline_evaluation(training: Any) -> None:
    """With pipe_parallel_size >= 1 `forward_step` returns a loss, and `evaluate` unpacks a loss and its metrics."""
    original = training.forward_step

    def forward_step(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        return result if isinstance(result, tuple) else (result, {})

    training.forward_step = forward_step


def warn_of_lost_clipping(neox_args: Any) -> None:
    """GPT-NeoX drops gradient_clipping from DeepSpeed's settings where it has its default, 1.0.

    DeepSpeed before 0.19.8, and the fork that GPT-NeoX pins, then do not clip at all.
    """
    installed = tuple(int(part) for part in re.findall(r"\d+", version("deepspeed"))[:3])
    explicit = "gradient_clipping" in (neox_args.deepspeed_extra_args or {})
    if not explicit and neox_args.gradient_clipping == 1.0 and installed < (0, 19, 8):
        print(
            f"WARNING: deepspeed {version('deepspeed')} does not receive gradient_clipping: 1.0 and will not clip; "
            'add "deepspeed_extra_args": {"gradient_clipping": 1.0}'
        )


# ---- without CUDA: eight patches, each shown to be necessary by leaving it out
#
# They are applied where there is no GPU, or where KISL_CPU=1 asks for it: six groups of functions of torch.cuda,
# Tensor.cuda and Module.cuda, and initialize_megatron(allow_no_cuda=True).

REQUEST = "KISL_CPU"
ACCELERATOR = "DS_ACCELERATOR"  # DeepSpeed reads it once, when it is first imported
_GPU_KERNELS = (
    "scaled_upper_triang_masked_softmax_fusion scaled_masked_softmax_fusion rope_fusion layernorm_fusion "
    "rmsnorm_fusion use_flashattn_swiglu"
).split()


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
    for name in "LongTensor IntTensor ByteTensor FloatTensor DoubleTensor HalfTensor BFloat16Tensor".split():
        setattr(cuda, name, getattr(torch, name))
    # One function for each: torch's compiler tells torch's functions apart by identity.
    cuda.set_device = lambda *_: None
    cuda.synchronize = lambda *_: None
    cuda.get_rng_state = lambda *_: torch.empty(0, dtype=torch.uint8)
    cuda.set_rng_state = lambda *_: None
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def patch_initialize(modules: Iterable[ModuleType]) -> None:
    """Let `initialize_megatron` pass without CUDA wherever one of `modules` calls it."""
    for module in modules:
        module.initialize_megatron = partial(module.initialize_megatron, allow_no_cuda=True)  # type: ignore[attr-defined]


def avoid_compilation() -> None:
    """Do without what deepspeed compiles for a minute at first use on a CPU.

    FusedAdam is replaced by torch's AdamW, and a reduction in shared memory, which only inference uses, is left out.
    The process that compiles leaves a lock if it is killed, for which every later run would wait without a word.
    """
    import deepspeed.ops.adam
    import torch

    deepspeed.ops.adam.FusedAdam = torch.optim.AdamW
    # Not by an import statement: in the package deepspeed.comm the name `torch` is torch itself.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None


def without_gpu_kernels(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that ask for what only runs on a GPU, with the values that compute the same on a CPU."""
    changes: dict[str, Any] = {key: False for key in _GPU_KERNELS if values.get(key)}
    if "flash" in str(values.get("attention_config")):
        text = json.dumps(values["attention_config"]).replace('"flash"', '"global"')
        changes["attention_config"] = json.loads(text)
    return changes


# ---- the section `kisl` as a field of GPT-NeoX's own arguments class, and its other keys checked


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


def check_keys(yamls: Yamls, neox_args_class: Any) -> None:
    """Refuse keys and types that GPT-NeoX does not know; its own errors name neither the key nor what it expected."""
    types_of_keys = {f.name: f.type for f in fields(neox_args_class)}
    for key, value in yamls.values.items():
        if key not in types_of_keys:
            hint = hint_for_key(key, types_of_keys, "see configs/neox_arguments.md in GPT-NeoX's folder")
            raise InputError(f"{yamls.files[key]}: {key} is unknown to GPT-NeoX; {hint}")
        kind = types_of_keys[key]
        if value is None or value == "auto" or _has_type(value, kind):
            continue
        if get_origin(kind) is Literal:
            expected = f"one of {', '.join(map(str, get_args(kind)))}"
        else:
            expected = " or ".join(t.__name__ for t in get_args(kind) or (kind,) if t is not type(None))
        raise InputError(f"{yamls.files[key]}: {key} is {value!r}; GPT-NeoX expects {expected}")


def _has_type(value: Any, kind: Any) -> bool:
    """As NeoXArgs.validate_types has it: exact types, a whole number for a float, choices in any case."""
    if get_origin(kind) is Literal:
        return value in get_args(kind) or str(value).lower() in [str(choice).lower() for choice in get_args(kind)]
    if get_origin(kind) is Union and not any(map(get_origin, get_args(kind))):
        return type(value) in get_args(kind)
    return not isinstance(kind, type) or type(value) is kind or (kind is float and type(value) is int)
