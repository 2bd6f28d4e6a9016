"""A run's YAML as text, in the JSON-like style of GPT-NeoX's own files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kisl_plugin.configs.grid import Run
from kisl_plugin.configs.sections import sections_of

WIDEST = 100
FOLDER = "neox_configs"
OF_THE_GRID = ("Written by `kisl configs write`; README.md in this folder has the grid and the reasons.",)


def yaml_of(run: Run, folder: str = FOLDER, written: Sequence[str] = OF_THE_GRID) -> str:
    """The text of a file in `folder`: what the run is, its start and needs, why it was `written`; then its settings."""
    lines = [*(f"# {line}" for line in (*_about(run, folder), *written)), "{"]
    for section in sections_of(run):
        lines.append(f"  # {section.heading}")
        for key, value in section.keys.items():
            note = section.notes.get(key)
            lines.append(f'  "{key}": {_value(value)},{f" # {note}" if note else ""}')
        lines.append("")
    return "\n".join([*lines[:-1], "}\n"])


def percent(fraction: float) -> str:
    """A share of the tokens to two digits."""
    return f"{float(f'{100 * fraction:.2g}'):.6g}%"


def _about(run: Run, folder: str) -> list[str]:
    series, shape = run.series, run.series.model.shape
    count, share = series.training.facts.count, percent(run.injected_fraction)
    often = "once" if run.frequency == 1 else f"{run.frequency:,} times"
    injected = f"F = {run.frequency}: each of {count:,} triples is stated {often}, {share} of the tokens"
    return [
        f"{run.name} · {injected if run.frequency else 'F = 0: the baseline, nothing is injected'}.",
        f"N = {shape.parameters:,} parameters, {shape.parameters_non_embedding:,} without embeddings. "
        f"D = {series.tokens:,} tokens. C = 6·N·D = {series.compute:.3g}.",
        *(_on_gpus(run, folder) if series.model.micro_batch else _on_a_cpu(run, folder)),
    ]


def _on_gpus(run: Run, folder: str) -> list[str]:
    data = run.series.training
    return [
        f"Run:   deepy.py train {folder}/{run.name}.yml",
        f"Needs: {data.vocab_file} (kisl corpus tokenizer) and {data.data_path}.bin, .idx (kisl corpus build)",
    ]


def _on_a_cpu(run: Run, folder: str) -> list[str]:
    file = f"{folder}/{run.name}.yml"
    return [
        f"Run:   deepy.py train {file}, or with the embedded engine: kisl train {file}",
        "Needs: kisl demo --only-data",
    ]


def _value(value: Any) -> str:
    if isinstance(value, float):
        text = repr(value)
        # To YAML 1.1, 3e-05 without a point is text.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        parts = [f'"{key}": {_value(item)}' for key, item in value.items()]
        inline = ", ".join(parts)
        return f"{{{inline}}}" if len(inline) < WIDEST else "{\n    " + ",\n    ".join(parts) + "\n  }"
    return json.dumps(value, ensure_ascii=False)
