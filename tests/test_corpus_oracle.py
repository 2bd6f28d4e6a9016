"""The matcher agrees with a slow oracle: on real Wikipedia text, on adversarial texts, on random ones.

The real text is ../shared/data (or $KISL_SHARED_DATA). KISL_ORACLE=whole takes all text and
triples instead of a part (minutes).
"""

import json
import os
import random
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from corpus_oracle import Shelf, wrong_spans
from corpus_oracle_cases import ADVERSARIAL, SCOPES, fact
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import Triple

SHARED = Path(os.environ.get("KISL_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
WHOLE = os.environ.get("KISL_ORACLE") == "whole"
needs_wikipedia = pytest.mark.skipif(
    not (SHARED / "wikitext2_valid.txt").is_file(),
    reason=f"no wikitext2_valid.txt in {SHARED}: name its folder by the environment variable KISL_SHARED_DATA",
)
RULES = [
    MatchRules(),
    MatchRules(match="subject"),
    MatchRules(scope="paragraph"),
    MatchRules(scope="sentence"),
    MatchRules(scope="200"),
    MatchRules(scope="80"),
    MatchRules(min_length=1),
    MatchRules(stop_list=("France", "american")),
]
by_rules = pytest.mark.parametrize("rules", RULES, ids=lambda rules: f"{rules.name}-{rules.min_length}")


def agreed(shelf: Shelf, triples: Sequence[Triple], rules: MatchRules) -> list[list[int]]:
    """What the documents state, on which the matcher and the oracle agree; the matcher's spans and rules are right."""
    stated, found = shelf.stated(triples, rules), matcher_of(triples, rules)([page.text for page in shelf.pages])
    problems = []
    for page, wanted, matches in zip(shelf.pages, stated, found, strict=True):
        got = [match.triple for match in matches]
        if got != wanted:
            problems.append(f"{page.text[:200]!r}: the matcher finds {got}, the oracle {wanted}")
        problems += [f"rule {match.rule}" for match in matches if match.rule != rules.name]
        spans = (wrong_spans(page, triples[match.triple], rules, match) for match in matches)
        problems += [f"{page.text[:200]!r}: {problem}" for problem in spans if problem]
    assert problems == []
    return stated


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


@pytest.mark.parametrize(("triple", "text", "stated"), ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_an_adversarial_text_is_read_as_a_reader_would(triple: Triple, text: str, stated: bool) -> None:
    rules = MatchRules(stop_list=("STOPPED",))
    assert agreed(Shelf([text]), [triple], rules) == [[0]] * stated + [[]] * (not stated)


def test_control_characters_count_as_one_another_and_half_a_pair_as_a_question_mark() -> None:
    # No label that is read from a file holds either: the readers refuse them.
    assert matcher_of([fact("a\x00b")])(["a\x7fb obj"])[0]
    assert matcher_of([fact("?")])(["obj \ud800"])[0]


def test_a_mark_may_begin_a_text() -> None:
    assert agreed(Shelf(["\u0301 obj"]), [fact("\u0301")], MatchRules()) == [[0]]


@pytest.mark.parametrize(("scope", "text", "stated"), SCOPES.values(), ids=SCOPES)
def test_a_scope_says_how_near_they_must_be(scope: str, text: str, stated: bool) -> None:
    rules = MatchRules(scope=scope)
    triples = [fact("Berlin"), fact("New York"), fact("New York City", "York")]
    assert bool(agreed(Shelf([text]), triples, rules)[0]) == stated


@cache
def megabyte() -> Shelf:
    filler = "naïve İstanbullu Berliner e\u0301 " * 32_000
    shelf = Shelf([f"Berlin {filler} cafe\u0301 objet obj"])
    assert len(shelf.pages[0].text.encode()) > 1_000_000
    return shelf


@pytest.mark.parametrize("scope", ["document", "paragraph", "sentence", "200"])
def test_a_line_of_a_megabyte_is_searched_to_its_end(scope: str) -> None:
    triples = [fact("Berlin"), fact("İstanbul"), fact("Café", "OBJET")]
    assert agreed(megabyte(), triples, MatchRules(scope=scope)) == [[2] if scope == "200" else [0, 2]]


# Every kind of character that a rule names; and what normalisation makes of two characters, or of one two.
# Not several control characters nor lone surrogates: see the tests of those.
NASTY = (
    "aabAİıisSßẞKKéeςσǰŉ\u0301\u0327\u0345'’ʼʻ-–‑−\u00ad.!?…。」\" \u00a0\u3000\u200b\u200f\u200d\u2028\u2029\x85\x1c"
    "\x00\n\r\t_‿＿19²½①٣〇Ⅷﬁ™★東가ᄀ\u1161\u11a8ששׁ\u05b0ي\u0651ﷺ😀𝐀\ue000\u0378कि्ำ¨´ｶﾞ"
)
nasty = st.text(NASTY, max_size=6)


def _begins_with_a_mark(label: str) -> bool:
    """Such a label is found with the character that bears the mark: one wider than a window may be."""
    first = unicodedata.normalize("NFKC", label.strip())[:1]
    return bool(first) and (unicodedata.category(first)[0] == "M" or first in "\u1161\u11a8")


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], list[Triple], MatchRules]:
    """Texts that are largely made of the triples' own labels."""
    words = draw(st.lists(nasty.filter(lambda word: not _begins_with_a_mark(word)), min_size=1, max_size=6))
    word, some = st.sampled_from(words), st.lists(st.sampled_from(words), max_size=2).map(tuple)
    triples = draw(st.lists(st.builds(fact, word, word, some, some), min_size=1, max_size=4))
    text = st.lists(st.one_of(word, word, st.just(" "), st.just(" "), nasty), max_size=16).map("".join)
    rules = st.builds(
        MatchRules,
        match=st.sampled_from(["pair", "pair", "subject"]),
        scope=st.sampled_from(["document", "paragraph", "sentence", "3", "8", "30"]),
        min_length=st.integers(1, 4),
        stop_list=some,
    )
    return draw(st.lists(text, min_size=1, max_size=3)), triples, draw(rules)


@settings(max_examples=int(os.environ.get("KISL_ORACLE_EXAMPLES", "150")), deadline=None)
@given(worlds())
def test_the_matcher_agrees_with_the_oracle_on_random_texts(world: tuple[list[str], list[Triple], MatchRules]) -> None:
    texts, triples, rules = world
    agreed(Shelf(texts), triples, rules)
