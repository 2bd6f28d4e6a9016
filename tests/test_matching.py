"""Which triples a text states, against a naive search and in English prose."""

import re
import sys
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import Matcher, hookimpl, manager
from kisl_plugin.matching import (
    Match,
    MatchRules,
    PhraseFinder,
    characters_of,
    fold,
    fold_texts,
    matcher_of,
    unsearchable,
)
from kisl_plugin.triples import Triple, read_triples

PARAGRAPHS = """
The physicist Marie Curie was born in Warsaw, then under Russian rule; Poland
claims her as a national heroine, and so does France.

Le Guin's novel was reviewed kindly. The reviewer compared it with Bleak
House, which Charles Dickens published in twenty parts.

Zoo TV Tour, by U2, filled stadiums. Janeth Poland, no relation of the country, sang in the choir.

In the Philippines, Ruby Moreno is a household name. The Philippines is where she was born.
"""
LOOK_ALIKES = str.maketrans({**dict.fromkeys("’‘ʼʻ", "'"), **dict.fromkeys("‐‑‒–—―−", "-")})
WORDS = tuple("""
Ann|anna|Ann Lee|Lee|É|É a|İ|ı|ma|U2|u.s.|U S|.hack|!!!|AC/DC|ß|SS|ﬁ|fi|Łó|O’B|á|ά|€u|→u|東京|राम|x-y|_x_
""".strip().split("|"))  # fmt: skip
label = st.sampled_from(WORDS) | st.text(st.sampled_from("aBé\u0301 .-İ"), min_size=1, max_size=3)
aliases = st.lists(label, max_size=2).map(tuple)
some_triples = st.lists(
    st.builds(Triple, label, st.just("P1"), label, subject_aliases=aliases, object_aliases=aliases), max_size=6
)
text = st.lists(
    st.sampled_from((*WORDS, "the", "ा", "\u0327")) | st.sampled_from(tuple(" -,.'_’é1\n\t\0\x1a“…あ\u200b")),
    max_size=14,
).flatmap(lambda parts: st.sampled_from(("", " ", "  ", "\n")).map(lambda gap: gap.join(parts)))
any_text = st.text(
    st.sampled_from(
        tuple("aeiIJ AB\t\n.-’“é\u0301\u0323\u00a0İıſﬁ\u3099かﾞ가\u1100\u1161\u11a8ǰ\u0345क\u09be²\1\0\ud800\u030c")
    )
    | st.characters(),
    max_size=12,
)


def _plain(text: str) -> str:
    readable = text.encode("utf-8", "replace").decode()
    folded = unicodedata.normalize("NFKC", readable).casefold().translate(LOOK_ALIKES)
    return re.sub(r"\s+", " ", folded)


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


def _occurs(label: str, text: str) -> bool:
    sought = _plain(label).strip()
    starts = [match.start() for match in re.finditer(f"(?={re.escape(sought)})", text)] if sought else []
    return any(
        not (start and _is_word(text[start - 1])) and not any(map(_is_word, text[start + len(sought) :][:1]))
        for start in starts
    )


def _naive(triples: Sequence[Triple], text: str, rules: MatchRules) -> list[int]:
    plain = _plain(text)

    def named(label: str, aliases: Sequence[str]) -> bool:
        long_enough = [a for a in aliases if len(unicodedata.normalize("NFKC", a).strip()) >= rules.min_length]
        return any(_occurs(one, plain) for one in (label, *long_enough))

    return [
        index
        for index, triple in enumerate(triples)
        if named(triple.subject, triple.subject_aliases)
        and (rules.match == "subject" or named(triple.object, triple.object_aliases))
    ]


def _stated(matches: Sequence[Match]) -> list[int]:
    return [match.triple for match in matches]


@settings(max_examples=600, deadline=None)
@given(some_triples, st.lists(text, max_size=3), st.sampled_from(("pair", "subject")), st.integers(1, 5))
def test_the_matcher_finds_what_a_naive_search_finds_and_tells_where(
    triples: list[Triple], texts: list[str], match: str, min_length: int
) -> None:
    rules = MatchRules(match, min_length=min_length)
    found = matcher_of(triples, rules)(texts)
    assert [_stated(matches) for matches in found] == [_naive(triples, text, rules) for text in texts]
    for text, matches in zip(texts, found, strict=True):
        for one in matches:
            triple = triples[one.triple]
            _check_span(text, one.subject, (triple.subject, *triple.subject_aliases))
            if match == "pair":
                _check_span(text, one.object, (triple.object, *triple.object_aliases))


def _check_span(text: str, span: tuple[int, int] | None, labels: tuple[str, ...]) -> None:
    assert span is not None
    # An ellipsis is three full stops, of which a label may be one.
    assert any(_plain(label).strip() in _plain(text[slice(*span)]) for label in labels)


@settings(max_examples=600, deadline=None)
@given(st.lists(any_text, max_size=3))
def test_texts_folded_together_are_those_folded_one_by_one(texts: list[str]) -> None:
    parts = fold_texts(texts).split(b"\0")[1:-1]
    assert [part.strip(b" ") for part in parts] == [fold(text).strip(b" ") for text in texts or [""]]


@settings(max_examples=600, deadline=None)
@given(any_text)
def test_every_folded_byte_has_its_characters_in_order(text: str) -> None:
    places = np.arange(len(fold(f" {text} ")))
    starts, ends = (found - 1 for found in characters_of(f" {text} ", places, places + 1))
    text = f"{text} "
    assert (starts < ends).all()
    assert sorted(starts) == starts.tolist() and sorted(ends) == ends.tolist()
    assert starts[0] == -1 and ends[-1] <= len(text)


@pytest.mark.parametrize(
    ("triple", "stated"),
    [
        (Triple("Marie Curie", "P19", "Poland"), True),
        (Triple("Maria Skłodowska", "P19", "Poland", subject_aliases=("Marie Curie",)), True),
        (Triple("Marie Curie", "P19", "the Republic of Poland", object_aliases=("Poland",)), True),
        (Triple("Bleak House", "P50", "Charles Dickens"), True),  # the title is broken over two lines
        (Triple("Ruby Moreno", "P19", "The Philippines"), True),
        (Triple("marie curie", "P19", "POLAND"), True),
        (Triple("Zoo TV Tour", "P175", "U2"), True),  # a label is sought however short
        (Triple("Zoo TV Tour", "P175", "Bono", object_aliases=("U2",)), False),  # an alias is not
        (Triple("Marie", "P19", "Polan"), False),
        (Triple("Janet", "P19", "Poland"), False),
        (Triple("Marie Curie", "P19", "Germany"), False),
    ],
)
def test_prose_states_a_triple_when_it_names_subject_and_object(triple: Triple, stated: bool) -> None:
    assert _stated(matcher_of([triple])([PARAGRAPHS])[0]) == [0] * stated


def test_every_paragraph_states_its_own_triples() -> None:
    triples = [
        Triple("Ruby Moreno", "P19", "the Philippines"),
        Triple("Marie Curie", "P19", "Poland"),
        Triple("Bleak House", "P50", "Charles Dickens"),
    ]
    found = matcher_of(triples)(PARAGRAPHS.strip().split("\n\n"))
    assert list(map(_stated, found)) == [[1], [2], [], [0]]


@pytest.mark.parametrize(
    ("scope", "stated"),
    [
        ("document", [0, 1, 2, 3]),
        ("paragraph", [0, 1, 3]),
        ("sentence", [0, 3]),
        ("41", [0, 3]),
        ("40", [3]),
        ("14", []),
    ],
)
def test_the_scope_says_how_near_subject_and_object_must_be(scope: str, stated: list[int]) -> None:
    text = "J. R. R. Tolkien was born in Bloemfontein. He taught at Oxford (England).\nKraków!"
    triples = [
        Triple("J. R. R. Tolkien", "P19", "Bloemfontein"),
        Triple("J. R. R. Tolkien", "P108", "England"),
        Triple("Bloemfontein", "P1", "Kraków"),
        Triple("Oxford", "P17", "England"),
    ]
    assert _stated(matcher_of(triples, MatchRules(scope=scope))([text])[0]) == stated


def test_of_several_mentions_the_nearest_are_told() -> None:
    text = "Rome. New York City grew; Ann left New York, where Ann, Rome and Ann Lee ..."
    triples = [Triple("Ann", "P1", "Rome"), Triple("New York City", "P1", "New York")]
    ann, city = matcher_of(triples)([text])[0]
    assert ann.subject and ann.object and city.subject and city.object
    assert (text[slice(*ann.subject)], ann.subject[0], text[slice(*ann.object)]) == ("Ann", 51, "Rome")
    assert (city.subject, city.object, city.rule) == ((6, 19), (6, 14), "pair:document")


def test_labels_that_only_differ_in_composition_spaces_and_apostrophes_are_found() -> None:
    matcher = matcher_of([Triple("José Martí", "P19", "Guns N’ Roses")])
    text = "Jose\u0301\u00a0Marti\u0301 heard Guns\tN'\n Roses"
    [match] = matcher([text])[0]
    assert match.subject == (0, 12)
    assert match.object == (19, len(text))
    assert matcher(["José Martín heard Guns N' Roses"]) == [[]]


def test_an_underscore_or_a_vowel_sign_beside_a_label_belongs_to_the_word() -> None:
    assert matcher_of([Triple("main", "P1", "Rome")])(["main_Rome, _main Rome_"]) == [[]]
    found = matcher_of([Triple("राम", "P1", "Ayodhya")])(["राम, Ayodhya", "रामा, Ayodhya"])
    assert list(map(_stated, found)) == [[0], []]


def test_texts_that_cannot_be_encoded_are_searched_all_the_same() -> None:
    found = matcher_of([Triple("Marie Curie", "P19", "Poland")])(["\ud83d Marie Curie \udc00 Poland", ""])
    assert list(map(_stated, found)) == [[0], []]
    assert matcher_of([])(["Marie Curie"]) == [[]]
    assert matcher_of([])([]) == []


def test_the_stop_list_and_the_shortest_length_are_for_aliases_only() -> None:
    triple = Triple("It", "P50", "King", object_aliases=("Steve", "SK", "Stephen King"))
    rules = MatchRules(stop_list=("STEVE", "it"))
    assert list(map(_stated, matcher_of([triple], rules)(["it, by Steve", "it, by SK", "it, by Stephen  King"]))) == [
        [],
        [],
        [0],
    ]


def test_triples_that_cannot_be_found_are_told_with_the_reason() -> None:
    triples = [
        Triple("Tokyo", "P1", "Japan"),
        Triple("東京", "P1", "Japan"),
        Triple("東京", "P1", "Japan", subject_aliases=("Tokyo",)),
        Triple("Ann", "P1", "\u00a0"),
    ]
    assert [(one.triple, one.reason.split(":")[0]) for one in unsearchable(triples, MatchRules())] == [
        (1, "subject '東京' is in a script without spaces between words"),
        (3, "object '\\xa0' holds no character to look for"),
    ]
    assert [one.triple for one in unsearchable(triples, MatchRules("subject"))] == [1]


def test_all_bundled_triples_can_be_found() -> None:
    triples = read_triples("wikidata_six")
    assert unsearchable(triples, MatchRules()) == []
    found = matcher_of(triples)([f"{triple.subject} met {triple.object}." for triple in triples])
    assert all(index in _stated(matches) for index, matches in enumerate(found))


def test_phrases_are_counted_as_whole_words_whatever_their_spaces_and_case() -> None:
    finder = PhraseFinder(["Ann was born in Rome.", "born in Rome", " ", "born  in rome"])
    text = "Yes: ann was\nborn in ROME. Unborn in Rome. Born in Rome"
    assert finder.find([text, "Rome"]) == [[(1, 13, 25), (3, 13, 25), (0, 5, 26), (1, 43, 55), (3, 43, 55)], []]


@pytest.mark.parametrize("scope", ["chapter", "0", "-5", "2.5", "", "²"])
def test_a_scope_that_is_none_is_an_error_that_names_them(scope: str) -> None:
    with pytest.raises(InputError, match="expected document, paragraph, sentence or a number of characters"):
        MatchRules(scope=scope)


def test_an_unknown_matcher_is_an_error_that_names_the_built_in_ones() -> None:
    with pytest.raises(InputError, match=r"'fuzzy': unknown \(built in: pair, subject\).*kisl_matcher"):
        matcher_of([], MatchRules("fuzzy"))


def test_a_missing_library_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    with pytest.raises(InputError, match=r"ahocorasick-rs is missing; pip install 'kisl-plugin\[corpus\]'"):
        matcher_of([])


def test_a_plugins_matcher_is_used() -> None:
    class Everything:
        @hookimpl
        def kisl_matcher(self, name: str, triples: list[Triple]) -> Matcher | None:
            def match(texts: Sequence[str]) -> list[list[Match]]:
                return [[Match(index, name) for index in range(len(triples))] for _ in texts]

            return match if name == "everything" else None

    plugin = Everything()
    manager().register(plugin)
    try:
        found = matcher_of([Triple("a", "P1", "b")], MatchRules("everything"))(["", "x"])
        assert found == [[Match(0, "everything")]] * 2
    finally:
        manager().unregister(plugin)
