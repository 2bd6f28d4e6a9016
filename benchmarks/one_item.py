"""One item of the probe by hand: the tokens of its question and options, their log-probabilities, and what follows.

    python benchmarks/one_item.py MODEL/hf "Kristen Bell"

In plain torch, without lm_eval: each option alone after its question as kisl_wikidata asks it, in float32.
The numbers are those of `lm_eval --tasks kisl_wikidata --log_samples`.
"""

import argparse
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from kisl_plugin.probe.items import read_items

ROW = "{:<24}{:>7}{:>10}{:>12}{:>13}{:>11}{:>9}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder")
    parser.add_argument("subject", nargs="?", metavar="SUBJECT", help="the subject that the item asks for")
    arguments = parser.parse_args()
    items, _ = read_items("question", {"pretrained": str(arguments.model)})
    item = next((item for item in items if arguments.subject in (None, item.triple.subject)), None)
    if item is None:
        parser.error(f"no item asks for {arguments.subject!r}; leave it out to see the first")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    before = tokenizer.encode(item.context).ids
    tokens = [tokenizer.decode([token]) for token in before]
    print(f"{item.context}\n{len(tokens)} tokens: {'|'.join(tokens)}\n")
    rows, scores = [], []
    for k, option in enumerate(item.options):
        whole = tokenizer.encode(f"{item.context} {option}").ids
        if whole[: len(before)] != before:
            parser.error(f"{option!r}: its first token merges with the question's last")
        with torch.no_grad():
            logits = model(torch.tensor([whole[:-1]])).logits[0, len(before) - 1 :]
        own = torch.tensor(whole[len(before) :])
        logprobs = logits.log_softmax(-1).gather(1, own[:, None])[:, 0].tolist()
        shown = zip((tokenizer.decode([token]) for token in own.tolist()), logprobs, strict=True)
        print("".join(f"  {token}|{logprob:.4f}" for token, logprob in shown))
        total = sum(logprobs)
        per_token, per_byte = total / len(logprobs), total / len(option.encode())
        scores.append((per_token, total, per_byte))
        greedy = "yes" if bool((logits.argmax(-1) == own).all()) else "no"
        numbers = (f"{value:.4f}" for value in (total, per_token, math.exp(-per_token), per_byte))
        rows.append((f"{option} (right)" if k == item.answer else option, len(logprobs), *numbers, greedy))
    print("\n" + ROW.format("option", "tokens", "sum", "per token", "perplexity", "per byte", "greedy"))
    print("\n".join(ROW.format(*row) for row in rows))
    best = [item.options[max(range(4), key=lambda k: scores[k][measure])] for measure in range(3)]
    margin = scores[item.answer][0] - max(score[0] for k, score in enumerate(scores) if k != item.answer)
    print(f"\nlowest perplexity: {best[0]}; highest sum: {best[1]}; highest per byte: {best[2]}")
    print(f"margin: {margin:.4f} nats per token")


if __name__ == "__main__":
    main()
