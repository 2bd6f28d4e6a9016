"""The lm_eval tasks that ask for facts: the option of lowest perplexity per token is chosen."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.probe.card import KislTask
from kisl_plugin.probe.items import (
    Scored,
    aggregation_of,
    all_names,
    exp,
    measures,
    named_for,
    nats_per_token,
    read_probe,
)
from kisl_plugin.probe.scoring import REQUEST, teach_models_to_score
from kisl_plugin.triples import CONTROL


class _FactTask(KislTask):
    FORM: ClassVar[str]
    SETTINGS: ClassVar[Mapping[str, Any]] = {
        "output_type": "multiple_choice",
        # 0, not left out: lm_eval would draw examples, with their answers, from the facts that are asked.
        "num_fewshot": 0,
        "doc_to_text": "context",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        teach_models_to_score()
        self._processes = 1
        super().__init__(config)

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests of this process; see `KislTask`."""
        self._processes = kwargs.get("world_size", 1)
        super().build_all_requests(**kwargs)

    def read(self, metadata: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
        """The items that follow the model or `metadata`."""
        probe = read_probe(self.FORM, metadata)
        if probe.card is not None:
            self.config.metadata["kisl"] = probe.card
        groups = sorted({item.triple.group for item in probe.items} - {CONTROL})
        self._groups = groups if len(groups) > 1 or "groups" in (probe.card or {}) else []
        self._relations = sorted({item.triple.relation_id for item in probe.items})
        return [item.to_doc() for item in probe.items]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """One request per option: (context, option), in the options' order."""
        if ctx != doc["context"]:
            raise InputError(
                f"{self.config.task}: lm_eval puts {ctx[:60]!r}… before the options where the item says "
                f"{doc['context'][:60]!r}; ask without a chat template, a system instruction and examples"
            )
        space = " " if ctx else ""
        return [
            Instance(
                request_type=REQUEST,
                doc=doc,
                arguments=(ctx, space + option),
                idx=k,
                metadata=kwargs["metadata"],
            )
            for k, option in enumerate(doc["options"])
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[Sequence[Any]]) -> dict[str, float | None]:
        """The item's measures under the names they count for; perplexities and choice go into `doc`."""
        scored = [Scored(*result) for result in results]
        nats = nats_per_token(scored)
        if not all(map(math.isfinite, nats)):
            raise KislError(
                f"{self.config.task}: the model gives no probability to {doc['options']} after {doc['context']!r} "
                f"({nats} nats per token); has its training diverged?"
            )
        doc.update(perplexities=[exp(value) for value in nats], choice=nats.index(min(nats)))
        named = named_for(measures(doc["options"], doc["answer"], scored), doc, self._groups)
        others = self._names() if self._processes > 1 else []
        return {**dict.fromkeys(others), **named}

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """Every measure is averaged over the items that have it."""
        return {name: self._over_items(aggregation_of(name, mean)) for name in self._names()}

    def higher_is_better(self) -> dict[str, bool]:
        """Higher is better but for perplexities."""
        return {name: "perplexity" not in name for name in self._names()}

    def _over_items(self, average: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], float]:
        # lm_eval gathers several processes' values metric by metric, in the order in which each of them met the
        # metrics: every item must then have all of them, and the ones that it does not count for are left out here.
        if self._processes == 1:
            return average
        return lambda values: average([value for value in values if value is not None])

    def _names(self) -> list[str]:
        return all_names(self._relations, self._groups)


class QuestionProbe(_FactTask):
    """kisl_wikidata: "Question: Where was X born? Answer: The country of birth of X is"."""

    FORM = "question"
    SETTINGS: ClassVar[Mapping[str, Any]] = {**_FactTask.SETTINGS, "task": "kisl_wikidata"}


class StatementProbe(_FactTask):
    """kisl_wikidata_statement: the injected statement, cut before its object."""

    FORM = "statement"
    SETTINGS: ClassVar[Mapping[str, Any]] = {**_FactTask.SETTINGS, "task": "kisl_wikidata_statement"}


class ParaphraseProbe(_FactTask):
    """kisl_wikidata_paraphrase: a statement whose template was never injected, cut before its object."""

    FORM = "paraphrase"
    SETTINGS: ClassVar[Mapping[str, Any]] = {**_FactTask.SETTINGS, "task": "kisl_wikidata_paraphrase"}
