"""Which triples a document states, against a naive search and in English prose."""

import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.matching import matcher_of
from kisl_plugin.plugins import manager
from kisl_plugin.roles import Matcher
from kisl_plugin.triples import Triple, read_triples

PARAGRAPHS = """
The physicist Marie Curie was born in Warsaw, then under Russian rule; Poland
claims her as a national heroine, and so does France.

Le Guin's novel was reviewed kindly. The reviewer compared it with Bleak
House, which Charles Dickens published in twenty parts.

Zoo TV Tour, by U2, filled stadiums. Janeth Poland, no relation of the country, sang in the choir.

In the Philippines, Ruby Moreno is a household name. The Philippines is where she was born.
"""
WORDS = ("Ann", "Anna", "Ann Lee", "Lee", "Lee Ann", "the Lee", "The Ann", "Éa1", "O'B", "AC/DC", "U2", "!!!", "_x_")
label = st.sampled_from(WORDS)
aliases = st.lists(label, max_size=2).map(tuple)
some_triples = st.lists(
    st.builds(Triple, label, st.just("P1"), label, subject_aliases=aliases, object_aliases=aliases), max_size=6
)
text = st.lists(
    st.sampled_from((*WORDS, "the", "The", "THE", "a", "ann", "x")) | st.sampled_from(tuple(" -,.'_’é1")), max_size=14
).flatmap(lambda parts: st.sampled_from(("", " ", " ", "\n")).map(lambda gap: gap.join(parts)))


def _naive(triples: list[Triple], text: str) -> list[int]:
    plain = re.sub(r"\s+", " ", text).replace("’", "'")

    def occurs(label: str) -> bool:
        beginning = "[Tt]" + re.escape(label[1:]) if label[:4] in ("the ", "The ") else re.escape(label)
        return len(label) >= 3 and re.search(rf"(?<!\w){beginning}(?!\w)", plain) is not None

    return [
        n
        for n, t in enumerate(triples)
        if any(map(occurs, (t.subject, *t.subject_aliases))) and any(map(occurs, (t.object, *t.object_aliases)))
    ]


@settings(max_examples=500, deadline=None)
@given(some_triples, text)
def test_the_matcher_finds_what_a_naive_search_finds(triples: list[Triple], text: str) -> None:
    assert list(matcher_of("subject_object", triples)(text)) == _naive(triples, text)


@pytest.mark.parametrize(
    ("triple", "stated"),
    [
        (Triple("Marie Curie", "P19", "Poland"), True),
        (Triple("Maria Skłodowska", "P19", "Poland", subject_aliases=("Marie Curie",)), True),
        (Triple("Marie Curie", "P19", "the Republic of Poland", object_aliases=("Poland",)), True),
        (Triple("Bleak House", "P50", "Charles Dickens"), True),  # the title is broken over two lines
        (Triple("Ruby Moreno", "P19", "The Philippines"), True),
        (Triple("Marie", "P19", "Polan"), False),
        (Triple("Janet", "P19", "Poland"), False),
        (Triple("marie curie", "P19", "Poland"), False),
        (Triple("Marie Curie", "P19", "Germany"), False),
        (Triple("Zoo TV Tour", "P175", "U2"), False),  # two characters
    ],
)
def test_prose_states_a_triple_when_it_names_subject_and_object(triple: Triple, stated: bool) -> None:
    assert list(matcher_of("subject_object", [triple])(PARAGRAPHS)) == [0] * stated


def test_every_paragraph_states_its_own_triples() -> None:
    triples = [
        Triple("Ruby Moreno", "P19", "the Philippines"),
        Triple("Marie Curie", "P19", "Poland"),
        Triple("Bleak House", "P50", "Charles Dickens"),
    ]
    matcher = matcher_of("subject_object", triples)
    assert [list(matcher(p)) for p in PARAGRAPHS.strip().split("\n\n")] == [[1], [2], [], [0]]


def test_labels_that_only_differ_in_composition_and_spaces_are_found() -> None:
    matcher = matcher_of("subject_object", [Triple("José Martí", "P19", "Guns N’ Roses")])
    assert list(matcher("Jose\u0301\u00a0Marti\u0301 heard Guns\tN'\n Roses")) == [0]
    assert list(matcher("José Martín heard Guns N' Roses")) == []


def test_an_underscore_or_a_vowel_sign_beside_a_label_belongs_to_the_word() -> None:
    assert list(matcher_of("subject_object", [Triple("main", "P1", "Rome")])("main_Rome, _main Rome_")) == []
    matcher = matcher_of("subject_object", [Triple("राम", "P1", "Ayodhya")])
    assert list(matcher("राम, Ayodhya")) == [0]
    assert list(matcher("रामा, Ayodhya")) == []


def test_texts_that_cannot_be_encoded_are_searched_all_the_same() -> None:
    matcher = matcher_of("subject_object", [Triple("Marie Curie", "P19", "Poland")])
    assert list(matcher("\ud83d Marie Curie \udc00 Poland")) == [0]
    assert list(matcher("")) == []
    assert list(matcher_of("subject_object", [])("Marie Curie")) == []


def test_three_thousand_triples_are_sought_in_five_megabytes_a_second() -> None:
    triples = read_triples("wikidata_six")
    named = " ".join(f"{t.subject} met {t.object}." for t in triples[::100])
    documents = [f"{PARAGRAPHS * 20} {named}"] * 150
    matcher = matcher_of("subject_object", triples)
    began = time.perf_counter()
    found = [matcher(document) for document in documents]
    speed = sum(len(d.encode()) for d in documents) / 1e6 / (time.perf_counter() - began)
    assert found[0] == _naive(triples, documents[0])
    assert len(found[0]) > 25
    assert speed > 5, f"{speed:.1f} MB/s"


def test_an_unknown_matcher_is_an_error_that_names_the_built_in_one() -> None:
    with pytest.raises(InputError, match=r"'fuzzy': unknown \(built in: subject_object\).*kisl_matcher"):
        matcher_of("fuzzy", [])


def test_a_missing_library_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    with pytest.raises(InputError, match=r"ahocorasick-rs is missing; pip install 'kisl-plugin\[corpus\]'"):
        matcher_of("subject_object", [])


def test_a_plugins_matcher_is_used() -> None:
    class Everything:
        @hookimpl
        def kisl_matcher(self, name: str, triples: list[Triple]) -> Matcher | None:
            return (lambda text: range(len(triples))) if name == "everything" else None

    plugin = Everything()
    manager().register(plugin)
    try:
        assert list(matcher_of("everything", [Triple("a", "P1", "b")])("")) == [0]
    finally:
        manager().unregister(plugin)
