"""The `kisl` section as a field of GPT-NeoX's own arguments class."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.yamls import Yamls


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
