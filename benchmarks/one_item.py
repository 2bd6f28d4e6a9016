"""One item of the probe by hand: the tokens of its question and options, their log-probabilities, and what follows.

    python benchmarks/one_item.py kisl-demo/runs/f100/hf "Kristen Bell"

In plain torch, without lm_eval: each option alone after its question as kisl_wikidata asks it, in float32.
The numbers are those of `lm_eval --tasks kisl_wikidata --log_samples`.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from kisl_plugin.errors import InputError
from kisl_plugin.probe.items import ProbeItem, read_probe

ROW = "{:<24}{:>7}{:>10}{:>12}{:>13}{:>11}{:>9}"


@dataclass(frozen=True)
class Option:
    """An option after its question: its tokens' texts, their log-probabilities (nats), and whether greedy says them."""

    text: str
    tokens: list[str]
    logprobs: list[float]
    is_greedy: bool

    @property
    def total(self) -> float:
        return sum(self.logprobs)

    @property
    def nats(self) -> float:
        return -self.total / len(self.logprobs)

    @property
    def per_byte(self) -> float:
        return self.total / len(self.text.encode())


def score(model: torch.nn.Module, tokenizer: Tokenizer, context: str, text: str) -> Option:
    """Score the option that follows `context` after one space."""
    before, whole = tokenizer.encode(context).ids, tokenizer.encode(f"{context} {text}").ids
    if whole[: len(before)] != before:
        raise InputError(f"{text!r}: its first token merges with the question's last")
    with torch.no_grad():
        logits = model(torch.tensor([whole[:-1]])).logits[0, len(before) - 1 :]
    own = torch.tensor(whole[len(before) :])
    logprobs = logits.log_softmax(-1).gather(1, own[:, None])[:, 0]
    greedy = bool((logits.argmax(-1) == own).all())
    return Option(text, [tokenizer.decode([token]) for token in own.tolist()], logprobs.tolist(), greedy)


def item_about(model: Path, subject: str | None) -> ProbeItem:
    """The first item of the model, or the first that asks for `subject`."""
    items = read_probe("question", {"pretrained": str(model)}).items
    found = [item for item in items if subject in (None, item.triple.subject)]
    if not found:
        raise InputError(f"{model}: no item asks for {subject!r}; leave it out to see the first")
    return found[0]


def scored_options(folder: Path, item: ProbeItem) -> list[Option]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [score(model, tokenizer, item.context, text) for text in item.options]


def show(item: ProbeItem, tokens: list[str], options: list[Option]) -> None:
    print(f"{item.context}\n{len(tokens)} tokens: {'|'.join(tokens)}\n")
    for option in options:
        print(
            "".join(f"  {token}|{logprob:.4f}" for token, logprob in zip(option.tokens, option.logprobs, strict=True))
        )
    print()
    print(ROW.format("option", "tokens", "sum", "per token", "perplexity", "per byte", "greedy"))
    for k, option in enumerate(options):
        name = f"{option.text} (right)" if k == item.answer else option.text
        numbers = (
            f"{option.total:.4f}",
            f"{-option.nats:.4f}",
            f"{math.exp(option.nats):.4f}",
            f"{option.per_byte:.4f}",
        )
        print(ROW.format(name, len(option.tokens), *numbers, "yes" if option.is_greedy else "no"))
    print()
    chosen = min(options, key=lambda option: option.nats).text
    by_sum, by_byte = (max(options, key=key).text for key in (lambda o: o.total, lambda o: o.per_byte))
    margin = min(o.nats for k, o in enumerate(options) if k != item.answer) - options[item.answer].nats
    print(f"lowest perplexity: {chosen}; highest sum: {by_sum}; highest per byte: {by_byte}")
    print(f"margin: {margin:.4f} nats per token")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder")
    parser.add_argument("subject", nargs="?", metavar="SUBJECT", help="whom or what the item asks for")
    given = parser.parse_args()
    try:
        item = item_about(given.model, given.subject)
        options = scored_options(given.model, item)
    except InputError as error:
        parser.error(str(error))
    tokenizer = Tokenizer.from_file(str(given.model / "tokenizer.json"))
    show(item, [tokenizer.decode([token]) for token in tokenizer.encode(item.context).ids], options)


if __name__ == "__main__":
    main()
