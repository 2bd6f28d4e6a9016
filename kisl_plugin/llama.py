"""The sizes of models: the Llamas of the grid and of the demo, and a shape for any other number of parameters."""

from dataclasses import dataclass, replace
from math import ceil, inf, log, log2

import numpy as np

from kisl_plugin.errors import InputError

__all__ = ["DEMO_VOCABULARY", "LLAMA2", "MODELS", "TINY_MODELS", "VOCABULARY", "LlamaShape", "Model", "model_of"]

VOCABULARY = 32_000  # Llama-2's
DEMO_VOCABULARY = 4_096  # of the tokenizer that `kisl demo` trains


@dataclass(frozen=True)
class LlamaShape:
    """rmsnorm, rotary embeddings, swiglu of width `inner`, no biases, input and output embeddings of their own."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int = VOCABULARY

    @property
    def parameters(self) -> int:
        """N, all parameters: those of the layers, and `vocabulary` × `hidden` going in and again going out."""
        return self.parameters_non_embedding + 2 * self.vocabulary * self.hidden

    @property
    def parameters_non_embedding(self) -> int:
        """The parameters of the layers (q, k, v, o; gate, up, down; two norms) and of the last norm."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.inner + 2 * self.hidden
        return self.layers * layer + self.hidden


@dataclass(frozen=True)
class Model:
    """A size of the grid.

    The last three affect memory and speed only: `micro_batch` rows are what one GPU processes at once (None: all of its
    share of the batch), `recompute` drops activations and computes them again in the backward pass, and
    `model_parallel` GPUs share each layer.
    """

    name: str
    shape: LlamaShape
    micro_batch: int | None = None
    recompute: bool = False
    model_parallel: int = 1


# Head size 64 below 1B and 128 from there, as Pythia has it. The swiglu layers are some 2.7 to 2.8 times as wide as the
# model (Llama-2 7B: 2.69), in steps of 64 for the GPU's matrix units, so that the total comes close to the name.
# Micro batches are computed for GPUs of 80 GB, not tried (60 bytes per token, layer and unit of width without
# recomputing, 12 per logit, 20 per parameter), and divide the batch on up to 64 GPUs.
MODELS = (
    #              layers  hidden  heads  inner
    Model("137m", LlamaShape(12, 768, 12, 2176), micro_batch=8),
    Model("300m", LlamaShape(18, 1024, 16, 2880), micro_batch=8),
    Model("562m", LlamaShape(24, 1280, 20, 3520), micro_batch=8),
    Model("1b", LlamaShape(24, 1792, 14, 4864), micro_batch=4),
    Model("3b", LlamaShape(36, 2560, 20, 6848), micro_batch=4, recompute=True),
)
# Beyond the grid: Llama-2's own, except its 70B, which shares keys among heads.
LLAMA2 = (LlamaShape(32, 4096, 32, 11008), LlamaShape(40, 5120, 40, 13824))
# For a CPU: `tiny` is the demo's shape. Three sizes, the fewest that give an infusion law.
TINY_MODELS = (
    Model("tiny", LlamaShape(2, 64, 4, 192, DEMO_VOCABULARY)),
    Model("tiny_1m", LlamaShape(2, 96, 6, 256, DEMO_VOCABULARY)),
    Model("tiny_2m", LlamaShape(4, 128, 8, 448, DEMO_VOCABULARY)),
)

LARGEST_MODEL = 80e9  # 16 GPUs share a layer; more needs a pipeline
# What a parameter takes with ZeRO-1 on 8 GPUs or more, and what the parameters may take of a GPU's 80 GB.
BYTES_A_PARAMETER, BYTES_OF_A_GPU = 9.5, 50e9
_MOST_LAYERS = 160
_INNER_STEP, _INNER_RATIO = 64, 2.75  # of the inner width: its multiple, and its ratio to the width in the table
# Parameters without embeddings, rising, and the ratio of width to depth: of the table, and of Llama-2's 70B.
_SHAPES = [*(model.shape for model in (*TINY_MODELS, *MODELS)), *LLAMA2]
_PROPORTIONS = sorted([*((s.parameters_non_embedding, s.hidden / s.layers) for s in _SHAPES), (68.5e9, 8192 / 80)])


def model_of(params: int, vocabulary: int = VOCABULARY) -> Model:
    """A Llama of nearly N = `params` parameters: the table's own (within 1 %), Llama-2's (5 %), or one of their kind.

    Micro batch and recomputing are those of the next larger model of the table; from some 5B on, GPUs share layers.

    Raises:
        InputError: no shape comes within 3 %, or the model is too large to be trained without a pipeline.
    """
    if params > LARGEST_MODEL:
        raise InputError(f"params = {params:,}: YAMLs are made for at most {LARGEST_MODEL:.2g}; write one of your own")
    # The smallest power of two of GPUs whose memory holds the parameters.
    parallel = int(2 ** max(0, ceil(log2(BYTES_A_PARAMETER * params / BYTES_OF_A_GPU))))
    like = next((model for model in MODELS if model.shape.parameters >= params), MODELS[-1])
    model = replace(like, name=f"{params:.3g}", model_parallel=parallel)
    for shape in _SHAPES:
        near = 0.05 if shape in LLAMA2 else 0.01
        if shape.vocabulary == vocabulary and abs(shape.parameters / params - 1) <= near:
            return replace(model, shape=shape)

    def width_to_depth(parameters: float) -> float:
        sizes, ratios = zip(*_PROPORTIONS, strict=True)
        return float(np.exp(np.interp(log(parameters), np.log(sizes), np.log(ratios))))

    # Of the depths and widths around those proportions, the shape that is closest to them and to `params`.
    head_size = 16 if params < 10e6 else 64 if params < 1e9 else 128
    best, least = None, inf
    for layers in range(2, _MOST_LAYERS + 1):
        widest = max(1, int(3 * width_to_depth(params) * layers / (head_size * parallel)))
        for heads in range(parallel, widest * parallel + 1, parallel):
            bare = LlamaShape(layers, heads * head_size, heads, 0, vocabulary)
            inner = _INNER_STEP * round((params - bare.parameters) / (3 * layers * bare.hidden) / _INNER_STEP)
            if not 2 <= inner / bare.hidden <= 4:
                continue
            shape = replace(bare, inner=inner)
            # Squared distances in units of what is acceptable: 1 % in size, 30 % and 5 % in the two proportions.
            proportion = width_to_depth(shape.parameters_non_embedding)
            penalty = (
                (log(shape.parameters / params) / 0.01) ** 2
                + (log(shape.hidden / shape.layers / proportion) / 0.3) ** 2
                + (log(inner / shape.hidden / _INNER_RATIO) / 0.05) ** 2
            )
            if penalty < least:
                best, least = shape, penalty
    if best is None or abs(best.parameters / params - 1) > 0.03:
        raise InputError(f"params = {params:,}: no Llama with a vocabulary of {vocabulary:,} is within 3 %")
    return replace(model, shape=best)
