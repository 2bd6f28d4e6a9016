"""Which triples a model is asked, and as what: its own if it has a run card, else the bundled ones."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kisl_plugin.errors import InputError
from kisl_plugin.options import Choices, choices_of
from kisl_plugin.runcard import CARD_NAME, TRIPLES_NAME, RunCard, read_run_card, sha256
from kisl_plugin.triples import CONTROL, Triple, read_triples
from kisl_plugin.verbalize import cloze, question, templates_of

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
    folder = _card_folder(metadata)
    if folder is None:
        return Probe(items_of(read_triples(str(metadata.get("triples", BUNDLED))), form))
    card = read_run_card(folder)
    return Probe(items_of(_injected_triples(folder, card), form, card), _as_it_stands(folder))


def card_of(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The run card that `metadata` leads to (see `read_probe`) as it stands there, or None.

    Raises:
        InputError: it cannot be read.
    """
    folder = _card_folder(metadata)
    if folder is None:
        return None
    read_run_card(folder)
    return _as_it_stands(folder)


def card_time(metadata: Mapping[str, Any]) -> int | None:
    """When the run card that `metadata` leads to was written (ns): another run may have gone into the same folder."""
    folder = _card_folder(metadata)
    card = folder / CARD_NAME if folder is not None else None
    return card.stat().st_mtime_ns if card is not None and card.is_file() else None


def _as_it_stands(folder: Path) -> Mapping[str, Any]:
    # With the keys that only newer readers know.
    card: Mapping[str, Any] = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    return card


def _card_folder(metadata: Mapping[str, Any]) -> Path | None:
    if "run_card" in metadata and "triples" in metadata:
        raise InputError(
            f"metadata: run_card {metadata['run_card']!r} and triples {metadata['triples']!r} are both given; "
            f"give one: a run card brings its own triples ({TRIPLES_NAME} beside it)"
        )
    if "run_card" in metadata:
        path = Path(str(metadata["run_card"]))
        if path.is_file() and path.name != CARD_NAME:
            raise InputError(f"metadata: run_card {str(path)!r}; expected a file {CARD_NAME} or its folder")
        return path.parent if path.name == CARD_NAME else path
    folder = Path(str(metadata.get("pretrained", "")))
    follows_model = "pretrained" in metadata and "triples" not in metadata
    return folder if follows_model and (folder / CARD_NAME).is_file() else None


def _injected_triples(folder: Path, card: RunCard) -> list[Triple]:
    path, card_path = folder / TRIPLES_NAME, folder / CARD_NAME
    remedy = "copy both from the checkpoint, or export it again"
    if not path.is_file():
        raise InputError(f"{path}: missing, but {card_path} stands there; {remedy}")
    triples = read_triples(path)
    named, found = card.triples.get("sha256"), sha256(path.read_bytes().decode("utf-8"))
    if named is not None and named != found:
        raise InputError(f"{path}: its sha256 is {found}, but {card_path} says {named}; {remedy}")
    count = sum(triple.group != CONTROL for triple in triples)
    if count != card.triples["count"]:
        raise InputError(f"{path}: {count} injected triples, but {card_path} says {card.triples['count']}; {remedy}")
    return triples


def items_of(triples: Sequence[Triple], form: str, card: RunCard | None = None) -> tuple[ProbeItem, ...]:
    """One item per triple; the wrong options are chosen among all `triples`, control ones too.

    The items are in an order that depends on each triple alone, so that the first n of them (lm_eval's --limit) are a
    fair sample. Which template is asked is said at `_FORMS`.

    Raises:
        InputError: a relation has no template to ask with or fewer than four objects, or a group is not in the card.
    """
    as_text, template_of = _FORMS[form]
    templates = {relation: template_of(relation, card) for relation in {triple.relation_id for triple in triples}}
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
