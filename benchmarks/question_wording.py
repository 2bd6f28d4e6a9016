"""Does the question's wording decide what a small model seems to know? Ask the demo's models both questions.

    kisl demo && python benchmarks/question_wording.py kisl-demo

Question 0 begins the answer ("Answer: The country of birth of X is"), question 1 breaks off after "Answer:", which a
model trained on docstrings has hardly seen. Scored in plain torch, by perplexity per token of the option and without a
BOS, as lm_eval's hf does by default: the first columns are the demo's own numbers, found on another path.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kisl_plugin.options import Choices, choices_of
from kisl_plugin.runcard import TRIPLES_NAME, read_run_card
from kisl_plugin.triples import CONTROL, read_triples
from kisl_plugin.verbalize import question


def nats_per_token(model: torch.nn.Module, context: list[int], option: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([context + option])).logits[0].log_softmax(-1)
    scores = [logits[len(context) + k - 1, token] for k, token in enumerate(option)]
    return -float(torch.stack(scores).mean())


def is_right(model: torch.nn.Module, tokenizer: object, context: str, choices: Choices) -> bool:
    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]

    before = tokens(context)
    nats = [nats_per_token(model, before, tokens(f" {option}")) for option in choices.options]
    return nats.index(min(nats)) == choices.answer


def shares(folder: Path) -> dict[tuple[int, bool], float]:
    """The share right by (question template, whether control)."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    triples = read_triples(folder / TRIPLES_NAME)
    hits = defaultdict(list)
    for triple, choices in zip(triples, choices_of(triples), strict=True):
        for template in (0, 1):
            right = is_right(model, tokenizer, question(triple, template), choices)
            hits[template, triple.group == CONTROL].append(right)
    return {key: sum(rights) / len(rights) for key, rights in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the folder that kisl demo wrote")
    runs = sorted(parser.parse_args().demo.glob("runs/*/hf"))
    print("  F  begins the answer  control  ends with 'Answer:'  control")
    for folder in runs:
        right = shares(folder)
        first, last = (f"{right[k, False]:.3f}{right[k, True]:>9.3f}" for k in (0, 1))
        print(f"{read_run_card(folder).frequency:>3}{first:>28}{last:>30}")


if __name__ == "__main__":
    main()
