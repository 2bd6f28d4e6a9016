"""Which triples a text states, against a slow oracle on real, adversarial and random texts.

The real text is ../shared/data (or $KISL_SHARED_DATA). KISL_ORACLE=whole takes all text and triples instead of a part
(minutes); KISL_ORACLE_EXAMPLES=N tries N random texts.
"""

import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_oracle import ADVERSARIAL, Shelf, fact, wrong_spans

from kisl_plugin.errors import InputError, KislError
from kisl_plugin.hookspecs import Match, hookimpl, manager
from kisl_plugin.matching import (
    MatchRules,
    _fold_long,
    _in_characters,
    _one_space,
    count_whole_words,
    fold,
    matcher_of,
    unsearchable,
)
from kisl_plugin.triples import Triple, read_triples

SHARED = Path(os.environ.get("KISL_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
WHOLE = os.environ.get("KISL_ORACLE") == "whole"
needs_wikipedia = pytest.mark.skipif(
    not (SHARED / "wikitext2_valid.txt").is_file(),
    reason=f"no wikitext2_valid.txt in {SHARED}: name its folder by the environment variable KISL_SHARED_DATA",
)
RULES = [MatchRules(), MatchRules("subject"), MatchRules(min_length=1, stop_list=("France", "american"))]
by_rules = pytest.mark.parametrize("rules", RULES, ids=["pair", "subject", "aliases"])


def stated(matches: Sequence[Match]) -> list[int]:
    return [match.triple for match in matches]


def agreed(shelf: Shelf, triples: Sequence[Triple], rules: MatchRules) -> list[list[int]]:
    """What the documents state, on which the matcher and the oracle agree; the matcher's spans and rules are right."""
    expected, found = shelf.stated(triples, rules), matcher_of(triples, rules)([page.text for page in shelf.pages])
    problems = []
    for page, wanted, matches in zip(shelf.pages, expected, found, strict=True):
        if stated(matches) != wanted:
            problems.append(f"{page.text[:200]!r}: the matcher finds {stated(matches)}, the oracle {wanted}")
        rule = {"pair": "pair:document", "subject": "subject"}[rules.match]
        problems += [f"rule {match.rule}" for match in matches if match.rule != rule]
        spans = (wrong_spans(page, triples[match.triple], rules, match) for match in matches)
        problems += [f"{page.text[:200]!r}: {problem}" for problem in spans if problem]
    assert problems == []
    return expected


# Real text


@cache
def wikipedia() -> str:
    text = (SHARED / "wikitext2_valid.txt").read_text("utf-8")
    return text if WHOLE else text[: len(text) // 4]


@cache
def articles() -> Shelf:
    return Shelf(re.split(r"(?m)^(?= = [^=\n]+ = $)", wikipedia()))


@cache
def paragraphs() -> Shelf:
    return Shelf(wikipedia().split("\n"))


@cache
def wikidata() -> list[Triple]:
    """All 28 relations; rows that `read_triples` would refuse for an invisible character too."""
    rows = map(json.loads, (SHARED / "wikidata_triples.jsonl").read_text("utf-8").splitlines())
    return [
        Triple(row["subject"], row["relation_id"], row["object"], subject_aliases=tuple(row["subject_aliases"]))
        for row in rows
    ]


@needs_wikipedia
@pytest.mark.parametrize("shelf", [articles, paragraphs])
@by_rules
def test_the_matcher_agrees_with_the_oracle_on_wikipedia(shelf, rules: MatchRules) -> None:  # type: ignore[no-untyped-def]
    triples = wikidata() if WHOLE else wikidata()[::8]
    assert any(agreed(shelf(), triples, rules))


@cache
def cut_phrases() -> list[Triple]:
    """Subjects and objects cut out of the articles, half of them in capitals: many are stated near each other."""
    draw = random.Random(1)
    triples = []
    for page in articles().pages * (8 if WHOLE else 3):
        words = page.text.split(" ")
        for _ in range(5):
            first = draw.randrange(max(1, len(words) - 40))
            second = first + draw.randrange(40)
            subject, object = (" ".join(words[at : at + draw.randint(2, 4)]) for at in (first, second))
            if subject.strip() and object.strip():
                triples.append(Triple(subject.upper() if draw.random() < 0.5 else subject, "P1", object))
    return triples


@needs_wikipedia
@by_rules
def test_the_matcher_agrees_with_the_oracle_on_phrases_of_the_text_itself(rules: MatchRules) -> None:
    assert sum(map(len, agreed(articles(), cut_phrases(), rules))) > 30


# Adversarial text


@pytest.mark.parametrize(("triple", "text", "states"), ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_an_adversarial_text_is_read_as_a_reader_would(triple: Triple, text: str, states: bool) -> None:
    rules = MatchRules(stop_list=("STOPPED",))
    assert agreed(Shelf([text]), [triple], rules) == [[0]] * states + [[]] * (not states)


def test_control_characters_count_as_one_another_and_half_a_pair_as_a_question_mark() -> None:
    # No label that is read from a file holds either: the readers refuse them.
    assert matcher_of([fact("a\x00b")])(["a\x7fb obj"])[0]
    assert matcher_of([fact("?")])(["obj \ud800"])[0]


def test_a_mark_may_begin_a_text() -> None:
    assert agreed(Shelf(["\u0301 obj"]), [fact("\u0301")], MatchRules()) == [[0]]


def test_a_very_long_line_is_searched_to_its_end() -> None:
    filler = "naïve İstanbullu Berliner e\u0301 " * 8_000
    shelf = Shelf([f"Berlin {filler} cafe\u0301 objet obj"])
    triples = [fact("Berlin"), fact("İstanbul"), fact("Café", "OBJET")]
    assert agreed(shelf, triples, MatchRules()) == [[0, 2]]


def test_a_subject_of_very_many_triples_is_matched_by_its_objects() -> None:
    triples = [fact("Berlin", f"obj{n}", others=(f"name{n % 7}",)) for n in range(40)]
    texts = ["Berlin obj7", "Berlin obj3, obj33", "Berlin name5", "obj5", "Berlin"]
    assert agreed(Shelf(texts), triples, MatchRules()) == [[7], [3, 33], list(range(5, 40, 7)), [], []]


# Random text. The characters: every kind that a rule names, and what normalisation makes of two characters or of one
# two; not several control characters nor lone surrogates, for which see the test above.
NASTY = (
    "aabAİıisSßẞKKéeςσǰŉ\u0301\u0327\u0345'’ʼʻ-–‑−\u00ad.!?…。」\" \u00a0\u3000\u200b\u200f\u200d\u2028\u2029\x85\x1c"
    "\x00\n\r\t_‿＿19²½①٣〇Ⅷﬁ™★東가ᄀ\u1161\u11a8ששׁ\u05b0ي\u0651ﷺ😀𝐀\ue000\u0378कि्ำ¨´ｶﾞ"
)
nasty = st.text(NASTY, max_size=6)
any_text = st.text(st.sampled_from(f"{NASTY}\u0323\u1100\u09be\u030c\1\ud800") | st.characters(), max_size=12)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], list[Triple], MatchRules]:
    """Texts that are largely made of the triples' own labels."""
    words = draw(st.lists(nasty, min_size=1, max_size=6))
    word, some = st.sampled_from(words), st.lists(st.sampled_from(words), max_size=2).map(tuple)
    triples = draw(st.lists(st.builds(fact, word, word, some, some), min_size=1, max_size=4))
    text = st.lists(st.one_of(word, word, st.just(" "), st.just(" "), nasty), max_size=16).map("".join)
    rules = st.builds(
        MatchRules, st.sampled_from(["pair", "pair", "subject"]), min_length=st.integers(1, 4), stop_list=some
    )
    return draw(st.lists(text, min_size=1, max_size=3)), triples, draw(rules)


@settings(max_examples=int(os.environ.get("KISL_ORACLE_EXAMPLES", "200")), deadline=None)
@given(worlds())
def test_the_matcher_agrees_with_the_oracle_on_random_texts(world: tuple[list[str], list[Triple], MatchRules]) -> None:
    texts, triples, rules = world
    agreed(Shelf(texts), triples, rules)


def test_many_texts_state_together_what_each_states_alone() -> None:
    draw = random.Random(5)
    words = ["ann", "lee", "of", "the", "lake", "internationally", "internationalist", "café", "=", "x"]
    labels = [" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(400)]
    triples = [fact(subject, object) for subject, object in zip(labels[::2], labels[1::2], strict=True)]
    texts = [" ".join(draw.choices(words, k=draw.choice([0, 3, 50, 400]))) for _ in range(300)]
    matcher = matcher_of(triples)
    together = matcher(texts)
    assert together == [matcher([text])[0] for text in texts]
    assert sum(map(bool, together)) > 100


def test_labels_without_a_word_are_searched_although_they_stand_everywhere() -> None:
    triples = [fact("="), fact("!!!"), fact("a=b"), fact("obj", "="), fact("★")]
    texts = [" = Title = \n obj", "obj x=1", "wow !!! obj", "obj a=b", "===", "obj ★, obj", "obj x★"]
    assert agreed(Shelf(texts), triples, MatchRules()) == [[0, 3], [], [1], [2], [], [4], []]


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_a_text_folded_by_its_runs_is_the_one_folded_as_a_whole(text: str) -> None:
    assert _one_space(_fold_long(text)).strip(b" ") == fold(text)


@settings(max_examples=200, deadline=None)
@given(any_text)
def test_every_folded_byte_has_its_characters_in_order(text: str) -> None:
    folded = _one_space(_fold_long(text))
    spans = _in_characters(text, [(0, at, at + 1) for at in range(len(folded))])[1:-1]
    starts, ends = [start for _, start, _ in spans], [end for _, _, end in spans]
    assert all(start < end for _, start, end in spans)
    assert starts == sorted(starts) and ends == sorted(ends)
    assert all(start >= 0 and end <= len(text) for _, start, end in spans)


@settings(max_examples=200, deadline=None)
@given(st.lists(nasty.filter(lambda word: fold(word) != b""), min_size=1, max_size=4), st.lists(nasty, max_size=12))
def test_whole_words_are_counted_as_they_are_found(words: list[str], parts: list[str]) -> None:
    spellings = list(dict.fromkeys(map(fold, words)))
    text = " ".join([*words, "".join(parts), *words])
    counted = [count_whole_words(spelling, fold(text)) for spelling in spellings]
    word = rb"[0-9A-Za-z_\x80-\xff]"
    expressions = [rb"(?<!%b)(?=%b(?!%b))" % (word, re.escape(spelling), word) for spelling in spellings]
    assert counted == [len(re.findall(expression, fold(text))) for expression in expressions]


# What the rules mean in prose

PARAGRAPHS = """
The physicist Marie Curie was born in Warsaw, then under Russian rule; Poland
claims her as a national heroine, and so does France.

Le Guin's novel was reviewed kindly. The reviewer compared it with Bleak
House, which Charles Dickens published in twenty parts.

Zoo TV Tour, by U2, filled stadiums. Janeth Poland, no relation of the country, sang in the choir.

In the Philippines, Ruby Moreno is a household name. The Philippines is where she was born.
"""


@pytest.mark.parametrize(
    ("triple", "states"),
    [
        (Triple("Marie Curie", "P19", "Poland"), True),
        (Triple("Maria Skłodowska", "P19", "Poland", subject_aliases=("Marie Curie",)), True),
        (Triple("Marie Curie", "P19", "the Republic of Poland", object_aliases=("Poland",)), True),
        (Triple("Bleak House", "P50", "Charles Dickens"), True),  # the title is broken over two lines
        (Triple("Ruby Moreno", "P19", "The Philippines"), True),
        (Triple("marie curie", "P19", "POLAND"), True),
        (Triple("Zoo TV Tour", "P175", "U2"), True),  # a label is searched however short
        (Triple("Zoo TV Tour", "P175", "Bono", object_aliases=("U2",)), False),  # an alias is not
        (Triple("Marie", "P19", "Polan"), False),
        (Triple("Janet", "P19", "Poland"), False),
        (Triple("Marie Curie", "P19", "Germany"), False),
    ],
)
def test_prose_states_a_triple_when_it_names_subject_and_object(triple: Triple, states: bool) -> None:
    assert stated(matcher_of([triple])([PARAGRAPHS])[0]) == [0] * states


def test_of_several_mentions_the_nearest_are_reported() -> None:
    text = "Rome. New York City grew; Ann left New York, where Ann, Rome and Ann Lee ..."
    triples = [Triple("Ann", "P1", "Rome"), Triple("New York City", "P1", "New York")]
    ann, city = matcher_of(triples)([text])[0]
    assert ann.subject and ann.object and city.subject and city.object
    assert (text[slice(*ann.subject)], ann.subject[0], text[slice(*ann.object)]) == ("Ann", 51, "Rome")
    assert (city.subject, city.object, city.rule) == ((6, 19), (6, 14), "pair:document")


def test_spans_are_in_characters_of_the_text_as_it_was_written() -> None:
    text = "Jose\u0301\u00a0Marti\u0301 heard Guns\tN'\n Roses"
    [match] = matcher_of([Triple("José Martí", "P19", "Guns N’ Roses")])([text])[0]
    assert match.subject == (0, 12)
    assert match.object == (19, len(text))


def test_the_stop_list_and_the_shortest_length_are_for_aliases_only() -> None:
    triple = Triple("It", "P50", "King", object_aliases=("Steve", "SK", "Stephen King"))
    found = matcher_of([triple], MatchRules(stop_list=("STEVE", "it")))(["it, Steve", "it, SK", "it, Stephen  King"])
    assert list(map(stated, found)) == [[], [], [0]]


def test_triples_that_cannot_be_found_are_listed_with_the_reason() -> None:
    triples = [
        Triple("Tokyo", "P1", "Japan"),
        Triple("東京", "P1", "Japan"),
        Triple("東京", "P1", "Japan", subject_aliases=("Tokyo",)),
        Triple("Ann", "P1", "\u00a0"),
    ]
    assert {index: reason.split(":")[0] for index, reason in unsearchable(triples, MatchRules()).items()} == {
        1: "subject '東京' is in a script without spaces between words",
        3: "object '\\xa0' has no character to search for",
    }
    assert list(unsearchable(triples, MatchRules("subject"))) == [1]


def test_all_bundled_triples_can_be_found() -> None:
    triples = read_triples("wikidata_six")
    assert unsearchable(triples, MatchRules()) == {}
    found = matcher_of(triples)([f"{triple.subject} met {triple.object}." for triple in triples])
    assert all(index in stated(matches) for index, matches in enumerate(found))


# Plugins, and what can go wrong


def fails(texts: Sequence[str]) -> Any:
    raise ZeroDivisionError("of its\nown")


class Plugin:
    """Provides matchers by name: one that matches everything, and some that go wrong."""

    @hookimpl
    def kisl_matcher(self, name: str, triples: Sequence[Triple]) -> Any:
        if name == "unmade":
            raise FileNotFoundError("model.bin")
        return {
            "everything": lambda texts: [[Match(index, name) for index in range(len(triples))] for _ in texts],
            "fails": fails,
            "short": lambda texts: [[]] * (len(texts) + 1),
            "odd": lambda texts: [["Peru"] for _ in texts],
            "far": lambda texts: [[Match(99, "far")] for _ in texts],
            "none": lambda texts: None,
        }.get(name)


@pytest.fixture
def plugin() -> Iterator[None]:
    ours = Plugin()
    manager().register(ours)
    yield
    manager().unregister(ours)


@pytest.mark.usefixtures("plugin")
def test_a_plugins_matcher_is_used() -> None:
    found = matcher_of([fact("a")], MatchRules("everything"))(["", "x"])
    assert found == [[Match(0, "everything")]] * 2


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"failed with ZeroDivisionError: of its own \(test_matching.py:\d+\)$"),
        ("none", "failed with TypeError: "),
        ("unmade", r"failed with FileNotFoundError: model.bin \(test_matching.py:\d+\)$"),
        ("short", "3 lists; expected one list of matches for each of 2 texts$"),
        ("odd", "returned 'Peru'; expected a Match with a triple from 0 to 1$"),
        ("far", r"returned Match\(triple=99, .*; expected a Match with a triple from 0 to 1$"),
    ],
)
def test_a_plugins_matcher_that_goes_wrong_is_one_line_that_names_it(name: str, message: str) -> None:
    with pytest.raises(KislError, match=f"^match {name!r}: {message}") as error:
        matcher_of([fact("a"), fact("b")], MatchRules(name))(["x", "y"])
    assert error.value.exit_status == 1 and "\n" not in str(error.value)


def test_an_unknown_matcher_is_an_error_that_names_the_built_in_ones() -> None:
    with pytest.raises(InputError, match=r"'fuzzy': unknown \(built in: pair, subject\).*kisl_matcher"):
        matcher_of([], MatchRules("fuzzy"))


def test_no_triples_and_no_texts_match_nothing() -> None:
    assert matcher_of([])(["Marie Curie"]) == [[]]
    assert matcher_of([fact("a")])([]) == []
