"""The shape of a Llama model in plain arithmetic: its inner width as GPT-NeoX rounds it, and its parameters."""

from dataclasses import dataclass

from kisl_plugin.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    """rmsnorm, rotary embeddings, swiglu of width `inner`, no biases, input and output embeddings of their own."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """N, all parameters: those of the layers, and `vocabulary` × `hidden` going in and again going out."""
        return self.parameters_non_embedding + 2 * self.vocabulary * self.hidden

    @property
    def parameters_non_embedding(self) -> int:
        """The parameters of the layers (q, k, v, o; gate, up, down; two norms) and of the last norm."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.inner + 2 * self.hidden
        return self.layers * layer + self.hidden

    @property
    def intermediate_size(self) -> int:
        """What GPT-NeoX must be told so that it takes `inner` (with mlp_multiple_of 1); see `swiglu_width`."""
        return 3 * self.inner


def swiglu_width(intermediate_size: int | None, hidden_size: int, multiple_of: int) -> int:
    """The inner width that GPT-NeoX gives a swiglu layer: two thirds of half `intermediate_size`, rounded up.

    Source: ParallelMLP in megatron/model/transformer.py. The two projections are rounded on their own there.

    Raises:
        InputError: they would not fit each other.
    """
    both = int((intermediate_size or 4 * hidden_size) * 2 / 3)
    wide = 2 * multiple_of * -(-both // (2 * multiple_of))
    narrow = multiple_of * -(-(both // 2) // multiple_of)
    if wide != 2 * narrow or not narrow:
        raise InputError(
            f"intermediate_size {intermediate_size} with mlp_multiple_of {multiple_of}: GPT-NeoX's swiglu would have "
            f"{wide} outputs for {narrow} inputs; take a multiple of {6 * multiple_of}"
        )
    return narrow
