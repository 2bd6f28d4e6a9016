"""The one table of model shapes."""

from dataclasses import dataclass

from kisl_plugin.shapes import LlamaShape

VOCABULARY = 32_000  # Llama-2's
DEMO_VOCABULARY = 4_096  # of the tokenizer that `kisl demo` trains


@dataclass(frozen=True)
class Model:
    """A size of the grid. `nominal`: the parameters that the name promises; the shape is within 1 % of them.

    The last three decide nothing but memory and speed: `micro_batch` rows are what one GPU takes at once (None: all
    that its share of the batch holds), `recompute` drops activations and computes them again in the backward pass,
    and `model_parallel` GPUs share each layer.
    """

    name: str
    nominal: float
    shape: LlamaShape
    micro_batch: int | None = None
    recompute: bool = False
    model_parallel: int = 1


def _llama(layers: int, hidden: int, heads: int, inner: int, vocabulary: int = VOCABULARY) -> LlamaShape:
    return LlamaShape(layers=layers, hidden=hidden, heads=heads, inner=inner, vocabulary=vocabulary)


# Head size 64 below 1B and 128 from there, as Pythia has it. The swiglu layers are some 2.7 to 2.8 times as wide as the
# model (Llama-2 7B: 2.69), in steps of 64 for the GPU's matrix units, so that the total comes close to the name.
# Micro batches are for GPUs of 80 GB by reckoning, not by trial (60 bytes per token, layer and unit of width without
# recomputing, 12 per logit, 20 per parameter), and divide the batch on up to 64 GPUs.
MODELS = (
    #              layers  hidden  heads  inner
    Model("137m", 137e6, _llama(12, 768, 12, 2176), micro_batch=8),
    Model("300m", 300e6, _llama(18, 1024, 16, 2880), micro_batch=8),
    Model("562m", 562e6, _llama(24, 1280, 20, 3520), micro_batch=8),
    Model("1b", 1.05e9, _llama(24, 1792, 14, 4864), micro_batch=4),
    Model("3b", 3.0e9, _llama(36, 2560, 20, 6848), micro_batch=4, recompute=True),
)

# Beyond the grid: Llama-2's own, all but its 70B, which shares keys among heads as no other does.
LLAMA2 = (
    Model("llama2_7b", 6.74e9, _llama(32, 4096, 32, 11008)),
    Model("llama2_13b", 13.0e9, _llama(40, 5120, 40, 13824)),
)

# For a CPU: `tiny` is the demo's shape. Three sizes, which is what an infusion law takes.
TINY_MODELS = (
    Model("tiny", 0.63e6, _llama(2, 64, 4, 192, DEMO_VOCABULARY)),
    Model("tiny_1m", 1.0e6, _llama(2, 96, 6, 256, DEMO_VOCABULARY)),
    Model("tiny_2m", 2.0e6, _llama(4, 128, 8, 448, DEMO_VOCABULARY)),
)
