"""The lm_eval tasks kisl_wikidata and kisl_wikidata_statement: the option of lowest perplexity per token is chosen."""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar

from datasets import Dataset
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.probe.counting import REQUEST, CountRequest, teach_models_to_count
from kisl_plugin.probe.items import read_probe
from kisl_plugin.probe.uncaught import report_in_one_line
from kisl_plugin.triples import CONTROL


class _ProbeTask(ConfigurableTask):  # type: ignore[misc]
    FORM: ClassVar[str]

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        report_in_one_line()
        # Older ones give a task of its own class no metadata, some not even its configuration.
        if find_spec("lm_eval.tasks.manager") is None:
            old = version("lm_eval")
            raise InputError(f"lm_eval {old}: does not tell a task which model it asks; pip install 'lm-eval>=0.4.12'")
        teach_models_to_count()
        super().__init__(config={key: value for key, value in (config or {}).items() if key != "class"})

    def download(self, *_: Any, **__: Any) -> None:
        """Take the items from the model's folder or the package; nothing is downloaded."""
        metadata = self.config.metadata = dict(self.config.metadata or {})
        probe = read_probe(self.FORM, metadata)
        if probe.card is not None:
            metadata["kisl"] = probe.card
        groups = sorted({item.triple.group for item in probe.items} - {CONTROL})
        self._groups = groups if len(groups) > 1 else []
        self._by_default = probe.by_default
        self.dataset = {"test": Dataset.from_list([item.to_doc() for item in probe.items])}

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build them anew: lm_eval's request cache knows the task's name only, and here the items follow the model."""
        super().build_all_requests(**{**kwargs, "cache_requests": False})

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Any]:
        """The count of the options' tokens, then their four log-likelihoods; the count is logged last (idx 4).

        lm_eval runs the kind of request that it meets first first, so a model that cannot be asked is refused at once.
        """
        scored = super().construct_requests(doc, ctx, **kwargs)
        if not ctx:
            for request, option in zip(scored, doc["options"], strict=True):
                request.arguments = (ctx, option)
        options = [request.arguments[1] for request in scored]
        count = CountRequest(
            request_type=REQUEST,
            doc=doc,
            arguments=(ctx, options),
            idx=len(scored),
            metadata=kwargs["metadata"],
            by_default=self._by_default,
        )
        return [count, *scored]

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """`acc` of an injected triple (and its group's), or `acc_control`; perplexities and choice go into `doc`."""
        *scored, counts = results
        nats = [-summed / count for (summed, _), count in zip(scored, counts, strict=True)]
        if any(math.isnan(value) for value in nats) or not math.isfinite(min(nats)):
            raise KislError(
                f"{self.config.task}: the model gives no probability to {doc['options']} after {doc['context']!r} "
                f"({nats} nats per token); has its training diverged?"
            )
        choice = nats.index(min(nats))
        doc.update(perplexities=[_exp(value) for value in nats], choice=choice)
        right = float(choice == doc["answer"])
        return dict.fromkeys(self._metrics_of(doc["group"]), right)

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """Every metric is the mean over the items that have it."""
        return dict.fromkeys(self._all_metrics(), mean)

    def higher_is_better(self) -> dict[str, bool]:
        """Higher is better for every metric."""
        return dict.fromkeys(self._all_metrics(), True)

    def _metrics_of(self, group: str) -> list[str]:
        if group == CONTROL:
            return ["acc_control"]
        return ["acc", f"acc_{group}"] if group in self._groups else ["acc"]

    def _all_metrics(self) -> list[str]:
        return ["acc", "acc_control", *(f"acc_{group}" for group in self._groups)]


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


class QuestionProbe(_ProbeTask):
    """kisl_wikidata: "Question: Where was X born? Answer: The country of birth of X is"."""

    FORM = "question"


class StatementProbe(_ProbeTask):
    """kisl_wikidata_statement: the injected statement, cut before its object."""

    FORM = "statement"
