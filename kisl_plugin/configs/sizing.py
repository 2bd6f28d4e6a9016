"""A model of a size that is not in the table: a shape of the table's proportions with nearly as many parameters."""

from collections.abc import Iterator
from dataclasses import replace
from math import log

import numpy as np

from kisl_plugin.configs.models import LLAMA2, MODELS, TINY_MODELS, VOCABULARY, Model
from kisl_plugin.errors import InputError
from kisl_plugin.shapes import LlamaShape

NEAR, NEAR_LLAMA2 = 0.01, 0.05  # as the table's are to their names; and "7B" means Llama-2's 6.74B
FURTHEST = 0.03
LARGEST = 80e9  # 16 GPUs share a layer; more takes a pipeline
MOST_LAYERS = 160
STEP = 64  # of the inner width, for the GPU's matrix units
INNER = 2.75  # inner width to width, in the middle of the table's
# Width to depth in the table and in Llama-2's 70B, by parameters without embeddings.
_SHAPES = [model.shape for model in (*TINY_MODELS, *MODELS, *LLAMA2)]
_PROPORTIONS = sorted(
    [(float(s.parameters_non_embedding), s.hidden / s.layers) for s in _SHAPES] + [(68.5e9, 8192 / 80)]
)
# What a parameter takes with ZeRO-1 on 8 GPUs or more, and what the parameters may take of a GPU's 80 GB.
BYTES_A_PARAMETER, BYTES_OF_A_GPU = 9.5, 50e9


def model_of(params: int, vocabulary: int = VOCABULARY) -> Model:
    """A Llama of nearly N = `params` parameters: the table's own, Llama-2's, or one of their proportions.

    It is fitted into memory as the next larger one of the table is; from some 5B on, GPUs share layers.

    Raises:
        InputError: no shape comes within a few per cent, or it is too large to be trained without a pipeline.
    """
    if params > LARGEST:
        raise InputError(
            f"params = {params:,}: YAMLs are made for at most {LARGEST:.2g}; beyond, write one of your own"
        )
    parallel = _model_parallel(params)
    known = _known(params, vocabulary)
    shape = known.shape if known else _nearest(params, vocabulary, parallel)
    like = next((model for model in MODELS if model.shape.parameters >= params), MODELS[-1])
    return replace(like, name=f"{params:.3g}", nominal=params, shape=shape, model_parallel=parallel)


def _known(params: int, vocabulary: int) -> Model | None:
    limits = [*((model, NEAR) for model in (*TINY_MODELS, *MODELS)), *((model, NEAR_LLAMA2) for model in LLAMA2)]
    fitting = (m for m, near in limits if m.shape.vocabulary == vocabulary and _off(m.shape, params) <= near)
    return next(fitting, None)


def _off(shape: LlamaShape, params: int) -> float:
    return abs(shape.parameters / params - 1)


def _model_parallel(params: int) -> int:
    """How many GPUs must share a layer: a power of two."""
    shared = BYTES_A_PARAMETER * params / BYTES_OF_A_GPU
    return int(2 ** max(0, np.ceil(np.log2(shared))))


def _nearest(params: int, vocabulary: int, parallel: int) -> LlamaShape:
    best = min(_shapes(params, vocabulary, parallel), key=lambda shape: _strangeness(shape, params), default=None)
    if best is None or _off(best, params) > FURTHEST:
        raise InputError(
            f"params = {params:,}: no Llama with a vocabulary of {vocabulary:,} comes within {FURTHEST:.0%} of it; "
            "ask for another size"
        )
    return best


def _shapes(params: int, vocabulary: int, parallel: int) -> Iterator[LlamaShape]:
    """Depths and widths around the table's proportions, each with the inner width that comes nearest to `params`."""
    size = 16 if params < 10e6 else 64 if params < 1e9 else 128
    step, proportion = size * parallel, _proportion(params)
    for layers in range(2, MOST_LAYERS + 1):
        widest = max(1, int(3 * proportion * layers / step))
        for heads in range(parallel, widest * parallel + 1, parallel):
            bare = LlamaShape(layers=layers, hidden=heads * size, heads=heads, inner=0, vocabulary=vocabulary)
            inner = STEP * round((params - bare.parameters) / (3 * layers * bare.hidden) / STEP)
            if 2 <= inner / bare.hidden <= 4:
                yield replace(bare, inner=inner)


def _strangeness(shape: LlamaShape, params: int) -> float:
    """How far a shape is from what was asked (in per cents) and from the table's proportions."""
    wanted = _proportion(shape.parameters_non_embedding)
    return float(
        (log(shape.parameters / params) / 0.01) ** 2
        + (log(shape.hidden / shape.layers / wanted) / 0.3) ** 2
        + (log(shape.inner / shape.hidden / INNER) / 0.05) ** 2
    )


def _proportion(params: float) -> float:
    sizes, proportions = zip(*_PROPORTIONS, strict=True)
    return float(np.exp(np.interp(log(params), np.log(sizes), np.log(proportions))))
