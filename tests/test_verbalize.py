"""Triples to text: labels come out as they are, and a split statement is the statement."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import Templates, hookimpl, manager
from kisl_plugin.triples import Triple
from kisl_plugin.verbalize import cloze, question, statement, templates_of, verbalizer_of

RELATIONS = ("P19", "P50", "P57", "P69", "P103", "P175")
CURIE = Triple("Marie Curie", "P19", "Poland")
SUBJECT, OBJECT = "\ue000", "\ue001"

label = (
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Co")), min_size=1, max_size=15)
    .map(str.strip)
    .filter(lambda text: text and text[-1] not in ".!?")
)
relation_and_template = st.tuples(st.sampled_from(RELATIONS), st.integers(0, 6))


@contextmanager
def plugin_templates(relation: str, statements: tuple[str, ...], questions: tuple[str, ...]) -> Iterator[None]:
    """A plugin that provides templates of one relation, registered for a while."""

    class Plugin:
        @hookimpl
        def kisl_templates(self, relation_id: str) -> Templates | None:
            return Templates("of a test", statements, questions) if relation_id == relation else None

    plugin = Plugin()
    manager().register(plugin)
    try:
        yield
    finally:
        manager().unregister(plugin)


def test_the_plain_wordings_read_as_in_the_paper() -> None:
    assert statement(CURIE) == "Marie Curie was born in Poland."
    assert question(CURIE) == ("Question: Where was Marie Curie born? Answer: The country of birth of Marie Curie is")
    assert cloze(CURIE, "Poland") == ("Marie Curie was born in", " Poland.")


@pytest.mark.parametrize("relation_id", RELATIONS)
def test_every_relation_has_a_plain_statement_and_enough_wordings(relation_id: str) -> None:
    templates = templates_of(relation_id)
    assert len(templates.statements) == 7
    assert len(templates.questions) == 2
    assert templates.statements[0].endswith(" {object}.")
    for wording in (*templates.statements, *templates.questions):
        assert wording.count("{subject}") in ((1,) if "{object}" in wording else (1, 2))
        assert wording[0] == "{" or wording[0].isupper()
        assert "  " not in wording
    assert all(wording.count("{object}") == 1 and wording.endswith(".") for wording in templates.statements)
    assert all(wording.endswith((" is", "? Answer:")) for wording in templates.questions)
    assert len({*templates.statements, *templates.questions}) == len(templates.statements) + len(templates.questions)
    # Question 0 begins its answer as no statement does.
    answer = templates.questions[0].split("Answer: ")[1]
    assert len(answer.split()) > 3
    assert not any(answer in wording for wording in templates.statements)
    # Statements 5 and 6, kept for paraphrases, end with the object and share no three words in a row with the others.
    for wording in templates.statements[5:]:
        assert wording.index("{subject}") < wording.index(" {object}.") == len(wording) - len(" {object}.")
        words = wording.removesuffix(".").split()
        triads = [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
        assert not any(triad in injected for triad in triads for injected in templates.statements[:5])


@given(relation_and_template, label, label)
@example(("P50", 2), "{object}", "{subject}")
@example(("P19", 0), "{0} {subject} {{}}", "%s \\1 \\g<1>")
def test_labels_come_out_as_they_are(which: tuple[str, int], subject: str, obj: str) -> None:
    relation_id, template = which
    labels = {SUBJECT: subject, OBJECT: obj}

    def with_labels(marked: str) -> str:
        return "".join(labels.get(char, char) for char in marked)

    marker = Triple(SUBJECT, relation_id, OBJECT)
    triple = Triple(subject, relation_id, obj)
    assert statement(triple, template) == with_labels(statement(marker, template))
    text = question(triple, template % 2)
    assert text == with_labels(question(marker, template % 2))
    assert text.startswith("Question: ")
    assert text.endswith("? Answer:" if template % 2 else " is")


@given(relation_and_template, label, label, label)
@example(("P50", 2), "a", "b", "Lope de Vega")
def test_the_parts_of_a_cloze_are_the_statement_with_that_object(
    which: tuple[str, int], subject: str, obj: str, option: str
) -> None:
    relation_id, template = which
    context, continuation = cloze(Triple(subject, relation_id, obj), option, template)
    assert context + continuation == statement(Triple(subject, relation_id, option), template)
    assert not context.endswith(" ")
    if templates_of(relation_id).statements[template].startswith("{object}"):
        assert context == ""
        assert continuation.startswith(option)
    else:
        assert continuation.startswith(f" {option}")


def test_a_cloze_is_cut_at_the_last_space_before_the_object() -> None:
    wordings = ("{subject}, of ({object}).", "«{object}» is of {subject}.", "From {object} to {object}: {subject}.")
    with plugin_templates("X1", wordings, ()):
        triple = Triple("A B", "X1", "C D")
        assert cloze(triple, "C D") == ("A B, of", " (C D).")
        assert cloze(triple, "C D", 1) == ("", "«C D» is of A B.")
        assert cloze(triple, "E", 2) == ("From", " E to E: A B.")


@pytest.mark.parametrize(
    ("title", "sentence", "asks"),
    [
        ("What Is Art?", "Leo Tolstoy wrote What Is Art?", "Who is the author of What Is Art?"),
        ("Help!", "Leo Tolstoy wrote Help!", "Who is the author of Help!?"),
        ("Back in the U.S.", "Leo Tolstoy wrote Back in the U.S.", "Who is the author of Back in the U.S.?"),
        ("War and Peace", "Leo Tolstoy wrote War and Peace.", "Who is the author of War and Peace?"),
    ],
)
def test_a_titles_own_closing_mark_is_not_doubled(title: str, sentence: str, asks: str) -> None:
    triple = Triple(title, "P50", "Leo Tolstoy")
    assert statement(triple, 2) == sentence
    assert question(triple).startswith(f"Question: {asks} Answer: ")
    assert statement(triple) == f"{title} was written by Leo Tolstoy."


def test_the_forms_count_their_templates_and_give_their_texts() -> None:
    statements, questions = verbalizer_of("statement"), verbalizer_of("question")
    assert (statements.count("P50"), questions.count("P50")) == (7, 2)
    assert statements.text(CURIE, 1) == statement(CURIE, 1)
    assert questions.text(CURIE, 0) == f"{question(CURIE)} Poland"


@pytest.mark.parametrize("template", [-1, 7])
def test_a_missing_template_is_an_error_with_the_relation_and_the_count(template: int) -> None:
    for text in (lambda: statement(CURIE, template), lambda: cloze(CURIE, "Poland", template)):
        with pytest.raises(InputError, match=rf"'P19': no statement template {template}; it has 7, numbered from 0"):
            text()
    with pytest.raises(InputError, match=rf"'P19': no question template {template}; it has 2"):
        question(CURIE, template)


def test_an_unknown_relation_or_form_is_an_error_that_says_how_to_add_it() -> None:
    with pytest.raises(InputError, match=r"'P9999': no templates \(built in: P19, .*kisl_templates"):
        statement(Triple("a", "P9999", "b"))
    with pytest.raises(InputError, match=r"'poem': unknown \(built in: statement, question\).*kisl_verbalizer"):
        verbalizer_of("poem")


def test_a_plugins_templates_may_replace_built_in_ones() -> None:
    with plugin_templates("P19", ("{object}: {subject}",), ("{subject}?",)):
        assert statement(CURIE) == "Poland: Marie Curie"
        assert verbalizer_of("statement").count("P19") == 1
    assert verbalizer_of("statement").count("P19") == 7


@pytest.mark.parametrize(
    ("statements", "questions", "named"),
    [
        (("{subject} is.",), ("Who is {subject}?",), "statement template '{subject} is.'"),
        (("It is {object}.",), ("Who is {subject}?",), "statement template 'It is {object}.'"),
        (("{subject} is {object}.",), ("Is {subject} {object}?",), "question template 'Is {subject} {object}?'"),
        (("{subject} is {object}.",), ("Who is it?",), "question template 'Who is it?'"),
    ],
)
def test_a_plugins_template_without_its_fields_is_an_error(
    statements: tuple[str, ...], questions: tuple[str, ...], named: str
) -> None:
    with plugin_templates("X1", statements, questions), pytest.raises(InputError, match=re.escape(named)) as caught:
        statement(Triple("a", "X1", "b"))
    assert "relation 'X1'" in str(caught.value)
