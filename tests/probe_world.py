"""Tiny models with run cards, real lm_eval runs, and the perplexities by hand: what the probe's tests share."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

from kisl_plugin.files import resource, sha256
from kisl_plugin.runcard import RunCard, write_run_card
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import statement

BOS = "<s>"
VOCABULARY = 500
RELATIONS = 2
PER_RELATION = 9


@cache
def some_triples() -> tuple[Triple, ...]:
    """Nine triples of two bundled relations, no object twice; every third one is control."""
    bundled = read_triples("wikidata_six")
    chosen: list[Triple] = []
    for relation in sorted({triple.relation_id for triple in bundled})[:RELATIONS]:
        by_object = {triple.object: triple for triple in bundled if triple.relation_id == relation}
        for i, triple in enumerate(list(by_object.values())[:PER_RELATION]):
            chosen.append(replace(triple, group=CONTROL if i % 3 == 0 else "injected"))
    return tuple(chosen)


def byte_level_bpe(texts: list[str], *, splits_at_spaces: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits_at_spaces)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[BOS, "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def save_model(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    adds_bos: bool = False,
    weight: float | None = None,
    config: PretrainedConfig | None = None,
    dtype: torch.dtype = torch.float32,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A random model (a Llama unless `config` says otherwise) of fewer than 100,000 parameters.

    `weight` fills its embeddings; `settings` go into tokenizer_config.json, where None takes a setting away.
    """
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
        )
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, bos_token=BOS, eos_token="</s>").save_pretrained(folder)
    write_tokenizer_settings(folder, {"tokenizer_class": "PreTrainedTokenizerFast", **(settings or {})})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config or llama())
    assert sum(p.numel() for p in model.parameters()) < 100_000
    if weight is not None:
        torch.nn.init.constant_(model.get_input_embeddings().weight, weight)
    model.to(dtype).save_pretrained(folder)
    return folder


def llama(**changes: Any) -> PretrainedConfig:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaConfig(
        **{"vocab_size": VOCABULARY, "max_position_embeddings": 128, "initializer_range": 0.3, **shape, **changes}
    )


def write_tokenizer_settings(folder: Path, changes: Mapping[str, Any]) -> None:
    file = folder / "tokenizer_config.json"
    settings = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def plain_model(folder: Path, *, adds_bos: bool = False, weight: float | None = None) -> Path:
    texts = [statement(triple) for triple in some_triples()]
    return save_model(folder, byte_level_bpe(texts), adds_bos=adds_bos, weight=weight)


def write_card(folder: Path, triples: tuple[Triple, ...], **changes: Any) -> dict[str, Any]:
    """Put a run card and its triples into a model folder; the card as it stands there is returned."""
    rows = triples_to_jsonl(triples)
    control = sum(triple.group == CONTROL for triple in triples)
    facts = {"source": "test", "count": len(triples) - control, "control": control, "sha256": sha256(rows)}
    settings: dict[str, Any] = {"engine": "local", "model": {"params": 9}, "tokens": 1000, "seed": 1, "triples": facts}
    write_run_card(folder, RunCard(**{**settings, "frequency": 7, **changes}), rows)
    card: dict[str, Any] = json.loads((folder / "kisl.json").read_text())
    return card


def ask(folder: Path, *tasks: str, batch_size: int = 8, **kwargs: Any) -> dict[str, Any]:
    """One run of the real lm_eval; `metadata` replaces what its command tells the task of the model."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    arguments = {"pretrained": str(folder), "dtype": "float32"}
    metadata = kwargs.pop("metadata", arguments)
    manager = TaskManager(include_path=str(resource("tasks")), include_defaults=False, metadata=metadata)
    settings = {"model": "hf", "model_args": arguments, "device": "cpu", **kwargs}
    results: dict[str, Any] = simple_evaluate(
        tasks=list(tasks or ["kisl_wikidata"]), batch_size=batch_size, task_manager=manager, **settings
    )
    return results


class ScoredByHand(NamedTuple):
    """An option's summed log-likelihood in nats, whether greedy decoding would say it, and its number of tokens."""

    summed: float
    greedy: bool
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(-self.summed / self.tokens)


class ByHand:
    """Log-likelihoods in plain torch: no padding, no batch; the option's tokens are found by character offsets.

    `prefix` stands before an option without a context, and before every text if `adds_bos`.
    """

    def __init__(
        self, folder: Path, *, adds_bos: bool = False, dtype: torch.dtype = torch.float32, prefix: str = BOS
    ) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._adds_bos, self._prefix = adds_bos, prefix
        self._scores: dict[tuple[str, str], ScoredByHand] = {}

    def score(self, context: str, continuation: str) -> ScoredByHand:
        pair = (context, continuation)
        if pair not in self._scores:
            before, option = self.encode(*pair)
            with torch.no_grad():
                logits = self._model(torch.tensor([[*before, *option[:-1]]])).logits
            logs = torch.log_softmax(logits[0, len(before) - 1 :].double(), dim=-1)
            targets = torch.tensor(option)
            total = logs.gather(1, targets[:, None]).sum().item()
            self._scores[pair] = ScoredByHand(total, bool((logs.argmax(-1) == targets).all()), len(targets))
        return self._scores[pair]

    def perplexity(self, context: str, continuation: str) -> float:
        return self.score(context, continuation).perplexity

    def tokens(self, context: str, continuation: str) -> int:
        """Tokens of the whole text, with what stands before it."""
        encoded = self._tokenizer.encode(context + continuation, add_special_tokens=False)
        return len(encoded.ids) + int(self._adds_bos or not context)

    def encode(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of what stands before the option, and of the option."""
        encoded = self._tokenizer.encode(context + continuation, add_special_tokens=False)
        first = sum(start < len(context) for start, _ in encoded.offsets)
        # Something must come before the first token, so lm_eval puts BOS before an option without a context.
        prefix = [self._tokenizer.token_to_id(self._prefix)] if self._adds_bos or not context else []
        return (*prefix, *encoded.ids[:first]), tuple(encoded.ids[first:])


def measured(doc: Mapping[str, Any], scored: Sequence[ScoredByHand]) -> dict[str, float]:
    """The item's measures from its options scored by hand, under the names they have in a sample row."""
    nats = [-option.summed / option.tokens for option in scored]
    sums = [option.summed for option in scored]
    per_byte = [total / len(text.encode()) for total, text in zip(sums, doc["options"], strict=True)]
    answer = doc["answer"]
    values = {
        "acc": float(min(nats) == nats[answer]),
        "sum_acc": float(max(sums) == sums[answer]),
        "byte_acc": float(max(per_byte) == per_byte[answer]),
        "perplexity": math.exp(nats[answer]),
        "margin": min(value for k, value in enumerate(nats) if k != answer) - nats[answer],
        "recall": float(scored[answer].greedy),
    }
    return {f"{name}_control" if doc["group"] == CONTROL else name: value for name, value in values.items()}


def check_by_hand(results: dict[str, Any], judge: ByHand, *, items: int = len(some_triples())) -> None:
    for rows in results["samples"].values():
        assert len(rows) == items
        for row in rows:
            doc, pairs = row["doc"], row["arguments"][:4]
            by_hand = [judge.score(context, option) for context, option in pairs]
            answers = [ScoredByHand(*answer) for answer in row["filtered_resps"][:4]]
            assert [answer.tokens for answer in answers] == [option.tokens for option in by_hand]
            assert [answer.greedy for answer in answers] == [option.greedy for option in by_hand]
            assert [answer.summed for answer in answers] == pytest.approx(
                [option.summed for option in by_hand], rel=1e-5, abs=1e-5
            )
            perplexities = [option.perplexity for option in by_hand]
            assert doc["perplexities"] == pytest.approx(perplexities, rel=2e-5)
            assert doc["choice"] == perplexities.index(min(perplexities))
            for name, value in measured(doc, by_hand).items():
                assert row[name] == pytest.approx(value, rel=2e-5, abs=2e-5)
