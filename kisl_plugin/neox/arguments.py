"""The `kisl` section as a field of GPT-NeoX's own arguments class."""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

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
