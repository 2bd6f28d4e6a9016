"""Which triples a model is asked, and as what: its own if it has a run card, else the bundled ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kisl_plugin.errors import InputError
from kisl_plugin.files import sha256
from kisl_plugin.options import Choices, choices_of
from kisl_plugin.probe.card import as_it_stands, card_folder, triples_beside
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import cloze, question, templates_of

# Which triples a model is asked, and as what: its own if it has a run card, else the bundled ones.

BUNDLED = "wikidata_six"


@dataclass(frozen=True)
class ProbeItem:
    """A triple as it is asked: each option follows `context` after one space (at once if `context` is empty).

    `template` is the wording's number among the relation's; `answer` is the right option's index; `frequency` is how
    often the triple was injected (0 for control), or None if the model has no run card.
    """

    triple: Triple
    template: int
    context: str
    options: tuple[str, ...]
    answer: int
    frequency: int | None

    def to_doc(self) -> dict[str, Any]:
        """The item as lm_eval's document."""
        triple = self.triple
        return {
            "relation_id": triple.relation_id,
            "subject": triple.subject,
            "subject_id": triple.subject_id,
            "object": triple.object,
            "object_id": triple.object_id,
            "group": triple.group,
            "frequency": self.frequency,
            "template": self.template,
            "context": self.context,
            "options": list(self.options),
            "answer": self.answer,
        }


@dataclass(frozen=True)
class Probe:
    """The items of one model. `card` is its `kisl.json` as it stands there."""

    items: tuple[ProbeItem, ...]
    card: Mapping[str, Any] | None = None


def read_probe(form: str, metadata: Mapping[str, Any]) -> Probe:
    """The items in `form` ("question", "statement" or "paraphrase") that lm_eval's `metadata` asks for.

    `metadata` holds the model arguments and what --metadata gave: `run_card` (a folder or a `kisl.json`), else
    `triples` (a source of `read_triples`), else the model folder `pretrained` decides.

    Raises:
        InputError: card and triples do not belong together, one of them is missing, or a row is wrong.
    """
    folder = card_folder(metadata)
    if folder is None:
        return Probe(items_of(read_triples(str(metadata.get("triples", BUNDLED))), form))
    card = read_run_card(folder)
    return Probe(items_of(triples_beside(folder, card), form, card), as_it_stands(folder))


def items_of(triples: Sequence[Triple], form: str, card: RunCard | None = None) -> tuple[ProbeItem, ...]:
    """One item per triple; the wrong options are chosen among all `triples`, control ones too.

    The items are in an order that depends on each triple alone, so that the first n of them (lm_eval's --limit) are a
    fair sample. Which template is asked is said at `_FORMS`.

    Raises:
        InputError: a relation has no template to ask with or fewer than four objects, or a group is not in the card.
    """
    as_text, template_of = _FORMS[form]
    templates = {relation: template_of(relation, card) for relation in sorted({t.relation_id for t in triples})}
    items = []
    for triple, choices in zip(triples, choices_of(triples), strict=True):
        template = templates[triple.relation_id]
        context, options = as_text(triple, choices, template)
        items.append(ProbeItem(triple, template, context, options, choices.answer, _frequency(triple, card)))
    return tuple(sorted(items, key=lambda item: _place(item.triple)))


def _place(triple: Triple) -> str:
    return sha256("\x1f".join((triple.relation_id, triple.subject_id, triple.subject, triple.object_id, triple.object)))


def _as_question(triple: Triple, choices: Choices, template: int) -> tuple[str, tuple[str, ...]]:
    return question(triple, template), choices.options


def _as_statement(triple: Triple, choices: Choices, template: int) -> tuple[str, tuple[str, ...]]:
    pairs = [cloze(triple, option, template) for option in choices.options]
    context = pairs[0][0]
    # A statement that begins with its object has no context; the whole statement is then the option.
    return context, tuple(rest.removeprefix(" ") if context else rest for _, rest in pairs)


def _injected(form: str, card: RunCard | None) -> list[int]:
    """The templates of `form` that were injected; where that is not known, the first."""
    if card is None or card.template is None:
        return [0]
    templates = [card.template] if isinstance(card.template, int) else card.template
    return templates if card.form in (form, None) else []


def _first_injected(form: str) -> Callable[[str, RunCard | None], int]:
    return lambda _, card: next(iter(_injected(form, card)), 0)


def _first_kept_back(relation_id: str, card: RunCard | None) -> int:
    """The first statement template that was not injected, one that ends with its object if there is one."""
    wordings, injected = templates_of(relation_id).statements, _injected("statement", card)
    kept_back = [k for k in range(len(wordings)) if k not in injected]
    if not kept_back:
        raise InputError(
            f"relation {relation_id!r}: all {len(wordings)} statement templates were injected, so there is no "
            "paraphrase to ask; leave kisl_wikidata_paraphrase (and the group kisl) out, or inject fewer templates"
        )
    return next((k for k in kept_back if wordings[k].rstrip(".").endswith("{object}")), kept_back[0])


# Question and statement are asked in the first template of their form that was injected (0 if none was), the
# paraphrase in a statement template that was not.
_FORMS = {
    "question": (_as_question, _first_injected("question")),
    "statement": (_as_statement, _first_injected("statement")),
    "paraphrase": (_as_statement, _first_kept_back),
}


def _frequency(triple: Triple, card: RunCard | None) -> int | None:
    if card is None or triple.group == CONTROL:
        return None if card is None else 0
    if card.groups is None:
        return card.frequency
    if triple.group not in card.groups:
        raise InputError(
            f"{TRIPLES_NAME}: group {triple.group!r} of {triple.subject!r} is not in {CARD_NAME}; "
            f"its groups are {', '.join(sorted(card.groups))}"
        )
    return card.groups[triple.group]["frequency"]


# What is measured on one item from its four scored options.

MEASURES = ("acc", "sum_acc", "byte_acc", "perplexity", "margin", "recall", "items")


class Scored(NamedTuple):
    """An option after its context: summed log-likelihood (nats), whether greedy decoding says it, its tokens."""

    logprob: float
    is_greedy: bool
    tokens: int


def nats_per_token(scored: Sequence[Scored]) -> list[float]:
    """The options' negative log-likelihoods per token; a perplexity is exp of one."""
    return [-option.logprob / option.tokens for option in scored]


def measures(options: Sequence[str], answer: int, scored: Sequence[Scored]) -> dict[str, float]:
    """Every measure of one item.

    acc, sum_acc, byte_acc: whether the right option has the highest log-likelihood per token (the lowest perplexity),
    in all, and per byte. perplexity: the right option's. margin: nats per token by which the best wrong option is worse
    than the right one (negative where a wrong one wins). recall: whether greedy decoding says the right option.
    items: 1, to be counted.
    """
    nats = nats_per_token(scored)
    sums = [option.logprob for option in scored]
    per_byte = [total / len(text.encode("utf-8")) for total, text in zip(sums, options, strict=True)]
    wrong = min(value for k, value in enumerate(nats) if k != answer)
    return {
        "acc": float(nats.index(min(nats)) == answer),
        "sum_acc": float(sums.index(max(sums)) == answer),
        "byte_acc": float(per_byte.index(max(per_byte)) == answer),
        "perplexity": exp(nats[answer]),
        "margin": wrong - nats[answer],
        "recall": float(scored[answer].is_greedy),
        "items": 1.0,
    }


def named_for(measured: Mapping[str, float], doc: Mapping[str, Any], groups: Sequence[str]) -> dict[str, float]:
    """The measures under the names they count for: control triples apart, `acc` also by relation and by group."""
    if doc["group"] == CONTROL:
        return {f"{name}_control": value for name, value in measured.items()}
    named = {**measured, f"relation_acc_{doc['relation_id']}": measured["acc"]}
    return {**named, f"acc_{doc['group']}": measured["acc"]} if doc["group"] in groups else named


def all_names(relations: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Every name that `named_for` may give."""
    both = [name for measure in MEASURES for name in (measure, f"{measure}_control")]
    return [*both, *(f"relation_acc_{relation}" for relation in relations), *(f"acc_{group}" for group in groups)]


def aggregation_of(name: str, mean: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], float]:
    """How the items' values become one: `mean` but for perplexities, which are averaged in nats, and the count."""
    special: dict[str, Callable[[Sequence[float]], float]] = {"perplexity": geometric_mean, "items": math.fsum}
    return special.get(name.removesuffix("_control"), mean)


def geometric_mean(values: Sequence[float]) -> float:
    """Average in nats: the perplexity of an average item."""
    return exp(math.fsum(map(math.log, values)) / len(values))


def exp(nats: float) -> float:
    """The exponential e^nats, at most the largest that a float holds: an infinite perplexity is no JSON."""
    return math.exp(min(nats, 709.0))
