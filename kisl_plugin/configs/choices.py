"""What the paper leaves open: what was chosen, and why."""

from dataclasses import dataclass

from kisl_plugin.configs.training import Training


@dataclass(frozen=True)
class Choice:
    """Something that the paper leaves open, what was chosen, and why."""

    what: str
    chosen: str
    why: str


def choices(of: Training) -> tuple[Choice, ...]:
    """The grid's choices; the values are those of the table."""
    return (*_of_the_runs(of), *_of_the_optimizer(of), *_of_the_model(of))


def _of_the_runs(of: Training) -> tuple[Choice, ...]:
    return (
        Choice(
            "token budget of the grid",
            f"{of.budget / 1e9:.0f}B",
            "of the paper's 58B, 75B and 100B the one that gives the largest model some 20 tokens per parameter "
            "(Chinchilla). It is one pass through FineWeb-Edu's sample of 100B tokens, filtered; the collapse "
            "comes earliest with it, so most likely within the frequencies; it is the cheapest",
        ),
        Choice(
            "frequencies",
            f"0 and {', '.join(map(str, of.frequencies[1:]))}",
            "the finer grid that the paper invites; F = 0 measures the guessing floor",
        ),
        Choice(
            "row length",
            f"{of.seq_length:,} tokens",
            "Pythia's and Llama-1's; a statement has some 14 tokens, and longer rows would give it nothing",
        ),
        Choice(
            "batch",
            f"{of.batch} rows, {of.batch * of.seq_length:,} tokens",
            "between what GPT-3 has for 125M (0.5M tokens) and Pythia for all (2M); one value for every size",
        ),
    )


def _of_the_optimizer(of: Training) -> tuple[Choice, ...]:
    return (
        Choice(
            "learning rate",
            f"Adam, {of.lr:g}, cosine to {of.min_lr:g}",
            "Llama-2 7B's, and Pythia's for 410M: safe for the largest, not far from the best for the smallest; "
            "cosine to a tenth as in Llama-2",
        ),
        Choice(
            "warm-up",
            f"{of.warmup:.0%} of the steps",
            "Pythia's; as a share, so that a longer run is the same curve, stretched",
        ),
        Choice(
            "weight decay, betas, clipping",
            f"{of.weight_decay:g}, ({of.betas[0]:g}, {of.betas[1]:g}), {of.clipping:g}",
            "Llama-2's and Pythia's alike",
        ),
        Choice(
            "Adam's epsilon",
            f"{of.eps:g}",
            "Pythia's. Llama-2's 1e-5 damps updates more the larger a model is, whose gradients have smaller entries",
        ),
    )


def _of_the_model(of: Training) -> tuple[Choice, ...]:
    return (
        Choice(
            "initialisation",
            "small_init, and wang_init where a layer ends",
            "GPT-NeoX's own for Pythia: they scale with width and depth, so one setting fits every size",
        ),
        Choice("dropout", "none", "Llama-2's; one pass through the corpus"),
        Choice(
            "precision",
            "bfloat16, gradients summed in fp32",
            "sums in bfloat16 would depend on how many GPUs share a batch",
        ),
        Choice(
            "template",
            f"{of.facts.template}, one for each relation",
            "the paper finds that one is enough at 3B and that more change little",
        ),
    )
