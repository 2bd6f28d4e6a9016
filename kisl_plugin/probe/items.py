"""Which triples a model is asked and in which words, and what is measured on one item.

A model with a run card is asked the triples of its run, any other one the bundled ones or a file of the user's.
"""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError, KislError, did_you_mean
from kisl_plugin.files import sha256
from kisl_plugin.options import choices_of
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import cloze, question, templates_of

__all__ = ["ProbeItem", "read_items"]

BUNDLED = "wikidata_six"
_KEYS = ("triples", "run_card", "background")
_REMEDY = "copy both from the checkpoint, or export it again"


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
        of_triple = ("relation_id", "subject", "subject_id", "object", "object_id", "group")
        own = ("frequency", "template", "context", "options", "answer")
        return {name: getattr(self.triple if name in of_triple else self, name) for name in (*of_triple, *own)}


def read_items(form: str, metadata: Mapping[str, Any]) -> tuple[tuple[ProbeItem, ...], Mapping[str, Any] | None]:
    """The items in `form` (question, direct, statement or paraphrase) for a model, and its run card if it has one.

    `metadata` holds lm_eval's model arguments and --metadata. The items are those of `run_card` (a folder or a
    `kisl.json`), else of `triples` (a source of `read_triples`), else of the model folder `pretrained`, else bundled.

    Raises:
        InputError: card and triples do not belong together, one of them is missing, or a row is wrong.
    """
    folder = find_card_folder(metadata)
    if folder is None:
        return items_of(read_triples(str(metadata.get("triples", BUNDLED))), form), None
    card = read_run_card(folder)
    return items_of(_triples_of_run(folder, card), form, card), read_card_json(folder)


def find_card_folder(metadata: Mapping[str, Any]) -> Path | None:
    """The folder of the run card that `run_card` names, else (without `triples`) of the model's own, if it has one."""
    for key in metadata:
        hint = did_you_mean(key, _KEYS)
        if hint and key not in _KEYS:
            raise InputError(f"metadata: {key} is unknown; {hint}")
    if "run_card" in metadata and "triples" in metadata:
        both = f"run_card {metadata['run_card']!r} and triples {metadata['triples']!r}"
        raise InputError(f"metadata: {both} are both given; leave triples out: the card is read with its own")
    own = None
    pretrained = metadata.get("pretrained")
    if isinstance(pretrained, (str, os.PathLike)) and os.fspath(pretrained):
        folder = Path(pretrained) / str(metadata.get("subfolder") or "")
        own = folder if os.path.lexists(folder / CARD_NAME) else None
    if "run_card" not in metadata:
        return own if "triples" not in metadata else None
    path = Path(str(metadata["run_card"]))
    if path.is_file() and path.name != CARD_NAME:
        raise InputError(f"metadata: run_card {str(path)!r}; expected a file {CARD_NAME} or its folder")
    named = path.parent if path.name == CARD_NAME else path
    if own is not None and read_card_json(own) != read_card_json(named):
        raise InputError(
            f"metadata: run_card {str(path)!r} is not the model's own card {own / CARD_NAME}; leave run_card out, "
            "it is for models without a folder"
        )
    return named


def read_card_json(folder: Path) -> Mapping[str, Any]:
    """The run card in `folder` as its file has it, with keys that only a newer version knows, after it was checked."""
    read_run_card(folder)
    card: Mapping[str, Any] = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    return card


def _triples_of_run(folder: Path, card: RunCard) -> list[Triple]:
    """The triples beside a run card, checked against it: asking others would measure something else."""
    path, card_path = folder / TRIPLES_NAME, folder / CARD_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing, but {card_path} exists; {_REMEDY}")
    triples = read_triples(path)
    recorded, actual = card.triples.get("sha256"), sha256(path.read_bytes().decode("utf-8"))
    if recorded is not None and recorded != actual:
        raise InputError(f"{path}: its sha256 is {actual}, but {card_path} has {recorded}; {_REMEDY}")
    counts = Counter(triple.group for triple in triples if triple.group != CONTROL)
    expected = {"injected": (counts.total(), card.triples["count"])}
    groups = card.groups or {}
    for name in {**groups, **counts} if groups else ():
        expected[f"group {name!r}"] = (counts[name], groups.get(name, {}).get("count", 0))
    for what, (number, recorded) in expected.items():
        if number != recorded:
            raise InputError(f"{path}: {number} {what} triples, but {card_path} has {recorded}; {_REMEDY}")
    return triples


def items_of(triples: Sequence[Triple], form: str, card: RunCard | None = None) -> tuple[ProbeItem, ...]:
    """One item per triple; the wrong options are chosen among all `triples`, control ones too.

    Question and statement are asked in the first template of their form that was injected (0 if none was), the
    paraphrase in the first statement template that was not, one that ends with its object if there is one; the direct
    question is template 1, whatever was injected (0 where a relation has no other). The order of the items is by a hash
    of each triple, so that the first n of them (lm_eval's --limit) are a fair sample.

    Raises:
        InputError: a relation has no template to ask with or fewer than four objects.
    """
    templates = {relation: _template_to_ask(relation, form, card) for relation in {t.relation_id for t in triples}}
    items = []
    options: tuple[str, ...]
    for triple, choices in zip(triples, choices_of(triples), strict=True):
        template = templates[triple.relation_id]
        if form in ("question", "direct"):
            context, options = question(triple, template), choices.options
        else:
            # A statement that begins with its object has no context; the whole statement is then the option.
            parts = [cloze(triple, option, template) for option in choices.options]
            context = parts[0][0]
            options = tuple(rest.removeprefix(" ") if context else rest for _, rest in parts)
        frequency = None if card is None else 0 if triple.group == CONTROL else card.frequency
        if card is not None and card.groups is not None and triple.group != CONTROL:
            frequency = card.groups[triple.group]["frequency"]
        items.append(ProbeItem(triple, template, context, options, choices.answer, frequency))

    def place(item: ProbeItem) -> str:
        t = item.triple
        return sha256("\x1f".join((t.relation_id, t.subject_id, t.subject, t.object_id, t.object)))

    return tuple(sorted(items, key=place))


def _template_to_ask(relation_id: str, form: str, card: RunCard | None) -> int:
    if form == "direct":
        return 1 if len(templates_of(relation_id).questions) > 1 else 0
    injected_form = "statement" if form == "paraphrase" else form
    injected = [0]
    if card is not None and card.template is not None:
        templates = [card.template] if isinstance(card.template, int) else card.template
        injected = templates if card.form in (injected_form, None) else []
    if form != "paraphrase":
        return injected[0] if injected else 0
    wordings = templates_of(relation_id).statements
    unused = [k for k in range(len(wordings)) if k not in injected]
    if not unused:
        raise InputError(
            f"relation {relation_id!r}: all {len(wordings)} statement templates were injected, so there is no "
            "paraphrase to ask; leave kisl_wikidata_paraphrase (and the group kisl) out, or inject fewer templates"
        )
    return next((k for k in unused if wordings[k].rstrip(".").endswith("{object}")), unused[0])


# ---- what is measured on one item from its four scored options

MEASURES = ("acc", "sum_acc", "byte_acc", "perplexity", "margin", "recall", "ties", "items")
_SAME = 1e-6  # nats per token: a smaller difference is one of rounding
_log = logging.getLogger("lm_eval")


def measure_item(doc: dict[str, Any], scored: Sequence[Sequence[Any]], groups: Sequence[str]) -> dict[str, float]:
    """Every measure of one item, under the names that it counts for; its perplexities and the choice go into `doc`.

    acc, sum_acc, byte_acc: 1 if the right option alone has the highest log-likelihood per token (the lowest
    perplexity), in total, and per byte. perplexity: the right option's. margin: nats per token by which the best wrong
    option is worse than the right one (negative where a wrong one is better). recall: 1 if greedy decoding gives the
    right option. ties: 1 if the best wrong option has the right one's perplexity. items: 1, to be counted.
    Control triples are counted apart, and `acc` also by relation and by group.

    Args:
        doc: from `ProbeItem.to_doc`.
        scored: of each option its log-likelihood (nats), whether greedy decoding gives it, and its number of tokens.
        groups: those whose `acc` is reported by itself.

    Raises:
        KislError: the model gives no probability to an option.
    """
    answer: int = doc["answer"]
    sums: list[float] = [nats for nats, _, _ in scored]
    per_token: list[float] = [nats / tokens for nats, _, tokens in scored]
    per_byte = [nats / len(text.encode("utf-8")) for nats, text in zip(sums, doc["options"], strict=True)]
    if not all(map(math.isfinite, per_token)):
        raise KislError(
            f"the model gives no probability to {doc['options']} after {doc['context']!r} ({per_token} nats per "
            "token); has its training diverged?"
        )
    second, first = sorted(per_token)[-2:]
    choice = per_token.index(first) if first - second > _SAME else None
    doc.update(perplexities=[_exp(-nats) for nats in per_token], choice=choice)

    def margin(values: Sequence[float]) -> float:
        return values[answer] - max(value for k, value in enumerate(values) if k != answer)

    measured = {
        "acc": float(margin(per_token) > _SAME),
        "sum_acc": float(margin(sums) > 0),
        "byte_acc": float(margin(per_byte) > 0),
        "perplexity": _exp(-per_token[answer]),
        "margin": margin(per_token),
        "recall": float(scored[answer][1]),
        "ties": float(abs(margin(per_token)) <= _SAME),
        "items": 1.0,
    }
    if doc["group"] == CONTROL:
        return {f"{name}_control": value for name, value in measured.items()}
    named = {**measured, f"relation_acc_{doc['relation_id']}": measured["acc"]}
    return {**named, f"acc_{doc['group']}": measured["acc"]} if doc["group"] in groups else named


def all_names(relations: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Every name that `measure_item` may give."""
    both = [name for measure in MEASURES for name in (measure, f"{measure}_control")]
    return [*both, *(f"relation_acc_{relation}" for relation in relations), *(f"acc_{group}" for group in groups)]


def aggregation_of(name: str) -> Callable[[Sequence[float]], float] | None:
    """How the items' values become one: sums of `items` and `ties`, geometric mean of perplexities, else None: mean."""
    measure = name.removesuffix("_control")
    if measure == "ties":
        return _count_ties
    if measure == "perplexity":  # the mean in nats: the perplexity of an average item
        return lambda values: _exp(math.fsum(map(math.log, values)) / len(values))
    return math.fsum if measure == "items" else None


def _count_ties(values: Sequence[float]) -> float:
    ties = math.fsum(values)
    if ties:
        _log.warning(
            "kisl: in %.0f of %d items a wrong option has the right one's perplexity, and they count as wrong (ties): "
            "the two are the same tokens to this tokenizer, or the model's answers are a constant",
            ties,
            len(values),
        )
    return ties


def _exp(nats: float) -> float:
    """e^nats, at most the largest finite float: JSON has no infinite perplexity."""
    return math.exp(min(nats, 709.0))
