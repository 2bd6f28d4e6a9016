"""The README of the folder of YAMLs: the grid at a glance, and the choices behind it."""

from collections.abc import Iterable, Sequence

from kisl_plugin.configs.choices import choices
from kisl_plugin.configs.grid import Series, all_series
from kisl_plugin.configs.listing import count
from kisl_plugin.configs.training import GRID, TINY

HEAD = """\
# The grid

One file a run, each complete in itself: `deepy.py train neox_configs/1b_f200.yml` trains a Llama of 1.05B parameters
to which every triple is stated 200 times. A row is a collapse curve: its files differ in F alone. `kisl configs list`
prints N, D, C and the injected share of every run.
"""

NEEDS = """\
For one or many GPUs of 80 GB (by reckoning, not by trial) with flash-attn. They read `{vocab_file}`
(`kisl corpus tokenizer`) and `{data_path}.bin`, `.idx` (`kisl corpus build`), and write to
`checkpoints/<name>`. The batch is the same on 1, 2, 4 … 64 GPUs: `gradient_accumulation_steps` follows from it.
A resume needs as many GPUs as before: DeepSpeed does not share out ZeRO-1's state anew.
All {runs} runs together take {compute:.2g} FLOPs.

## For a CPU

In fp32, without compiled kernels; `kisl train` takes these files as `deepy.py train` does. They read what
`kisl demo --only-data` makes.
"""

TAIL = """\
[demo.yml](demo.yml) is the model of `kisl demo`, which fills in paths and F.

## Shapes

Llama-2: rmsnorm, rotary embeddings, swiglu, no biases, input and output embeddings of their own. The parameters are
within 1 % of the name.

{shapes}

## What the paper leaves open, and what was chosen

The paper says: Llama-2's architecture, FineWeb-Edu, the same hyperparameters for every size. The rest had to be chosen:

{choices}

## Another grid

These files are written by `kisl configs write` from two tables, [models.py](../kisl_plugin/configs/models.py) and
[training.py](../kisl_plugin/configs/training.py): change those, or copy a file under a name of your own. `write`
replaces its own files only.
"""


def readme() -> str:
    """The text of README.md; its links are relative to the folder."""
    series = all_series()
    grid = [one for one in series if one.training is GRID]
    tiny = [one for one in series if one.training is TINY]
    needs = NEEDS.format(
        vocab_file=GRID.vocab_file,
        data_path=GRID.data_path,
        runs=sum(len(one.runs) for one in grid),
        compute=sum(one.compute * len(one.runs) for one in grid),
    )
    reasons = _table(("open", "chosen", "since"), ((c.what, c.chosen, c.why) for c in choices(GRID)))
    tail = TAIL.format(shapes=_shapes(series), choices=reasons)
    return "\n".join([HEAD, _matrix(grid), needs, _matrix(tiny), tail])


def _matrix(series: Sequence[Series]) -> str:
    frequencies = [f"F = {f}" for f in series[0].training.frequencies]
    rows = (
        (f"**{one.name}**", count(one.tokens), *(f"[f{run.frequency}]({run.name}.yml)" for run in one.runs))
        for one in series
    )
    return _table(("", "tokens", *frequencies), rows) + "\n"


def _shapes(series: Iterable[Series]) -> str:
    models = {one.model.name: one.model for one in series}
    heads = ("", "parameters", "without embeddings", "layers", "width", "heads", "inner width", "vocabulary")
    rows = (
        (name, s.parameters, s.parameters_non_embedding, s.layers, s.hidden, s.heads, s.inner, s.vocabulary)
        for name, s in ((model.name, model.shape) for model in models.values())
    )
    return _table(heads, ((name, *(f"{number:,}" for number in numbers)) for name, *numbers in rows))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
