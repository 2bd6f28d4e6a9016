"""Triples to text: statements that are injected, questions that are asked."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import yaml

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import Templates, Verbalizer, hookimpl, manager
from kisl_plugin.triples import Triple

__all__ = ["cloze", "question", "statement", "templates_of", "verbalizer_of"]

_FIELD = re.compile(r"\{(subject|object)\}([.?]?)")


@cache
def _built_in() -> dict[str, Templates]:
    path = Path(__file__).parent / "data" / "templates.yaml"
    relations = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        relation_id: Templates(entry["name"], tuple(entry["statements"]), tuple(entry["questions"]))
        for relation_id, entry in relations.items()
    }


@hookimpl
def kisl_templates(relation_id: str) -> Templates | None:
    """The templates of data/templates.yaml."""
    return _built_in().get(relation_id)


@hookimpl
def kisl_verbalizer(form: str) -> Verbalizer | None:
    """The forms `statement` and `question`."""
    return _FORMS.get(form)


def templates_of(relation_id: str) -> Templates:
    """The wordings of a relation, from the first plugin that has them.

    Raises:
        InputError: no plugin has templates for it; or one of them lacks the subject, lacks the object, or is a
            question that contains the object.
    """
    templates: Templates | None = manager().hook.kisl_templates(relation_id=relation_id)
    if templates is None:
        raise InputError(
            f"relation {relation_id!r}: no templates (built in: {', '.join(_built_in())}); add them with a plugin "
            "whose hook kisl_templates(relation_id) returns Templates(name, statements, questions)"
        )
    for form, wordings in (("statement", templates.statements), ("question", templates.questions)):
        has_object = form == "statement"
        for wording in wordings:
            if "{subject}" not in wording or ("{object}" in wording) != has_object:
                fields = "{subject} and {object}" if has_object else "{subject} and no {object}"
                raise InputError(f"relation {relation_id!r}: {form} template {wording!r}; expected one with {fields}")
    return templates


def verbalizer_of(form: str) -> Verbalizer:
    """The verbalizer of a form, from the first plugin that has it.

    Raises:
        InputError: no plugin has the form.
    """
    verbalizer: Verbalizer | None = manager().hook.kisl_verbalizer(form=form)
    if verbalizer is None:
        raise InputError(
            f"form {form!r}: unknown (built in: {', '.join(_FORMS)}); correct it, or install a plugin with the hook "
            "kisl_verbalizer"
        )
    return verbalizer


def statement(triple: Triple, template: int = 0) -> str:
    """The triple as a sentence, by the relation's `template`-th statement template."""
    return _fill(_wording("statement", triple, template), triple)


def question(triple: Triple, template: int = 0) -> str:
    """The question, up to where an option follows after one space: "Question: Where … Answer: … is"."""
    return _fill(_wording("question", triple, template), triple)


def cloze(triple: Triple, object_label: str, template: int = 0) -> tuple[str, str]:
    """The statement with `object_label` as object, cut before it: ("Marie Curie was born in", " Poland.")."""
    wording = _wording("statement", triple, template)
    with_option = replace(triple, object=object_label)
    before = _fill(wording[: wording.index("{object}")], with_option)
    whole = _fill(wording, with_option)
    cut = max(before.rfind(" "), 0)
    return whole[:cut], whole[cut:]


def _wordings(form: str, relation_id: str) -> tuple[str, ...]:
    templates = templates_of(relation_id)
    return templates.statements if form == "statement" else templates.questions


def _wording(form: str, triple: Triple, template: int) -> str:
    wordings = _wordings(form, triple.relation_id)
    if not 0 <= template < len(wordings):
        raise InputError(
            f"relation {triple.relation_id!r}: no {form} template {template!r}; it has {len(wordings)}, numbered from 0"
        )
    return wordings[template]


def _fill(wording: str, triple: Triple) -> str:
    # One pass over the template, so that braces in a label are never read as fields.
    def label_and_mark(match: re.Match[str]) -> str:
        label = triple.subject if match[1] == "subject" else triple.object
        # A title's own closing mark also ends the sentence, as in print ("Who wrote What Is Art?").
        ends = label.endswith("?") or (match[2] == "." and label.endswith((".", "!")))
        return label if ends else label + match[2]

    return _FIELD.sub(label_and_mark, wording)


class _Form:
    """A built-in form: `statement`, or `question`, which is injected with its answer."""

    def __init__(self, name: str) -> None:
        self._name = name

    def count(self, relation_id: str) -> int:
        return len(_wordings(self._name, relation_id))

    def text(self, triple: Triple, template: int) -> str:
        text = _fill(_wording(self._name, triple, template), triple)
        return text if self._name == "statement" else f"{text} {triple.object}"


_FORMS: dict[str, Verbalizer] = {name: _Form(name) for name in ("statement", "question")}
