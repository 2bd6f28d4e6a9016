"""The dictionaries and lists inside a GPT-NeoX YAML that the embedded engine looks into."""

from collections.abc import Mapping
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.local.checks import OPTIMIZER_PARAMS, Given
from kisl_plugin.local.keys import DEEPSPEED_WITHOUT_EFFECT

ATTENTION_TYPES = ("global", "flash")
NOT_HONOURED = "cannot be honoured by the local engine; leave it out, or train with GPT-NeoX"


def read_precision(given: Given) -> str:
    """Either fp32 or bfloat16, from precision and bf16 as GPT-NeoX derives it (calculate_derived).

    Raises:
        InputError: fp16 or amp is asked for, or precision and bf16 contradict each other.
    """
    for key in ("fp16", "amp"):
        if _enabled(given, key, given.values.get(key)):
            raise InputError(
                f"{given.file_of(key)}: {key} is switched on; "
                "the local engine trains in fp32 or bfloat16: set precision"
            )
    bf16 = given.values.get("bf16")
    precision = given.values.get("precision") or ("bfloat16" if _enabled(given, "bf16", bf16) else "fp32")
    if precision == "fp16":
        raise given.wrong("precision", precision, "fp32 or bfloat16: the local engine does not scale the loss")
    if precision not in ("fp32", "bfloat16"):
        raise given.wrong("precision", precision, "fp32 or bfloat16")
    _check_bf16(given, "bf16", bf16, precision)
    return str(precision)


def read_optimizer(given: Given) -> dict[str, Any]:
    """Adam with lr, and betas and eps where they are given, as floats (torch refuses whole numbers among betas).

    Raises:
        InputError: another optimizer, another parameter or a wrong value.
    """
    optimizer = given.values["optimizer"]
    if str(optimizer.get("type", "")).lower() != "adam":
        raise InputError(
            f"{given.file_of('optimizer')}: optimizer.type is {optimizer.get('type')!r}; the local engine has Adam"
        )
    params = optimizer.get("params")
    if not isinstance(params, Mapping) or "lr" not in params:
        raise InputError(f"{given.file_of('optimizer')}: optimizer.params.lr is missing")
    for key, value in params.items():
        if key not in OPTIMIZER_PARAMS:
            raise InputError(
                f"{given.file_of('optimizer')}: optimizer.params.{key} cannot be honoured; expected lr, betas and eps"
            )
        right, expected = OPTIMIZER_PARAMS[key]
        if not right(value):
            raise given.wrong(f"optimizer.params.{key}", value, expected)
    floats = {key: [*map(float, value)] if key == "betas" else float(value) for key, value in params.items()}
    return {**optimizer, "params": floats}


def check_attention(given: Given, num_layers: int) -> None:
    """Every layer must attend to all that came before: other types are other models.

    Raises:
        InputError: names the type, or what GPT-NeoX could not read.
    """
    if given.values.get("sparsity_config"):
        raise InputError(f"{given.file_of('sparsity_config')}: sparsity_config {NOT_HONOURED}")
    config = given.values.get("attention_config")
    if config is None:
        return
    found = _attention_types(config, num_layers)
    if found is None:
        raise given.wrong("attention_config", config, "a list of [list of types, count], such as [[['global'], 12]]")
    types, layers = found
    for name in types:
        if name not in ATTENTION_TYPES:
            raise given.wrong("attention_config", config, f"no other types than global and flash, not {name!r}")
    if layers != num_layers:
        raise given.wrong("attention_config", config, f"as many as num_layers, {num_layers}, not {layers}")


def check_extra_args(given: Given, values: Mapping[str, Any]) -> list[str]:
    """Look through deepspeed_extra_args, which DeepSpeed prefers to the keys of the YAML itself.

    Returns: the keys without effect, dotted.

    Raises:
        InputError: a key that contradicts the YAML or cannot be honoured.
    """
    extra = given.values.get("deepspeed_extra_args")
    if extra is None:
        return []
    if not isinstance(extra, Mapping):
        raise given.wrong("deepspeed_extra_args", extra, "a dictionary")
    without_effect = []
    for key, value in extra.items():
        name = f"deepspeed_extra_args.{key}"
        if key in DEEPSPEED_WITHOUT_EFFECT:
            without_effect.append(name)
        elif key == "bf16":
            _check_bf16(given, name, value, values["precision"])
        elif key != "gradient_clipping":
            raise InputError(f"{given.file_of(name)}: {name} {NOT_HONOURED}")
        elif isinstance(value, bool) or value != values[key]:
            raise given.wrong(name, value, f"the value of gradient_clipping itself, {values[key]!r}")
    return without_effect


def _enabled(given: Given, key: str, section: Any) -> bool:
    if section is not None and not isinstance(section, Mapping):
        raise given.wrong(key, section, "a dictionary")
    enabled = (section or {}).get("enabled", False)
    if not isinstance(enabled, bool):
        raise given.wrong(f"{key}.enabled", enabled, "true or false")
    return enabled


def _check_bf16(given: Given, key: str, section: Any, precision: str) -> None:
    enabled = _enabled(given, key, section)
    if section and enabled != (precision == "bfloat16"):
        raise InputError(
            f"{given.file_of(key)}: {key}.enabled is {enabled!r} but precision is {precision!r}; "
            "expected true with bfloat16 and false with fp32"
        )


def _attention_types(config: Any, num_layers: int) -> tuple[list[Any], int] | None:
    """The types and the number of layers they make (expand_attention_types); None where GPT-NeoX would fail."""
    if not isinstance(config, list):
        return None
    if all(isinstance(item, str) for item in config):
        return config, len(config)
    types: list[Any] = []
    layers = 0
    for item in config:
        match item:
            case [[_, *_] as pattern, "all"]:
                return pattern, num_layers // len(pattern) * len(pattern)
            case [[_, *_] as pattern, int(count)] if count >= 0:
                types, layers = types + pattern, layers + count * len(pattern)
            case _:
                return None
    return types, layers
