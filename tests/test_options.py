"""Options: one right, three wrong, the same wherever and whenever they are chosen."""

import random
import unicodedata
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kisl_plugin.errors import InputError
from kisl_plugin.options import choices_of
from kisl_plugin.triples import CONTROL, Triple

LABELS = (
    "Chinese", "Mandarin Chinese", "Czech", "CZECH!", "Dutch", "the Dutch", "Thai", "Welsh", "Québécois", "Quebecois",
    "Serbo-Croatian", "Serbo Croatian", "Irish", "Łódź", "Lodz", "Hindi", "Urdu", "Modern Standard Hindi",
)  # fmt: skip

fact = st.builds(
    Triple,
    subject=st.sampled_from("ABCDEFGH"),
    relation_id=st.sampled_from(("P1", "P2")),
    object=st.sampled_from(LABELS),
    subject_id=st.sampled_from(("", "Q1", "Q2")),
    object_id=st.sampled_from(("", "", "", "O1", "O2")),
    object_aliases=st.sampled_from(((), (), ("Cymraeg",), ("cymraeg", "Gaeilge"), ("Czech",))),
    group=st.sampled_from(("injected", CONTROL)),
)
# Objects that are nobody's variant, so that there are always enough.
ROOM = [
    Triple(f"other {n}", relation, f"{word} tongue{n}")
    for n, word in enumerate(("Alpha", "Beta", "Gamma", "Delta"))
    for relation in ("P1", "P2")
]
facts = st.lists(fact, min_size=1, max_size=25, unique=True).map(lambda some: some + ROOM)


def _plain(label: str) -> str:
    apart = unicodedata.normalize("NFKD", label.lower().replace("ł", "l"))
    kept = "".join(c for c in apart if c.isalnum() or c in " -").replace("-", " ")
    return kept.removeprefix("the ")


def _same(a: str, b: str, triples: list[Triple], relation_id: str) -> bool:
    """A naive account of "variant", from the triples themselves."""

    def known(label: str) -> tuple[set[str], set[str]]:
        of = [t for t in triples if t.relation_id == relation_id and t.object == label]
        names = {label, *(alias for t in of for alias in t.object_aliases)}
        return {t.object_id for t in of if t.object_id}, {_plain(name).replace(" ", "") for name in names}

    (ids_a, names_a), (ids_b, names_b) = known(a), known(b)
    words_a, words_b = set(_plain(a).split()), set(_plain(b).split())
    return bool(a == b or ids_a & ids_b or names_a & names_b or words_a <= words_b or words_b <= words_a)


@settings(max_examples=80, deadline=None)
@given(facts)
def test_the_answer_is_right_and_no_other_option_is_right_or_a_variant_of_one(triples: list[Triple]) -> None:
    for triple, choices in zip(triples, choices_of(triples), strict=True):
        assert choices.options[choices.answer] == triple.object
        others = [o for n, o in enumerate(choices.options) if n != choices.answer]
        true = {
            t.object
            for t in triples
            if t.relation_id == triple.relation_id
            and (t.subject == triple.subject or (t.subject_id and t.subject_id == triple.subject_id))
        }
        for n, other in enumerate(others):
            assert any(t.object == other and t.relation_id == triple.relation_id for t in triples)
            assert not any(_same(other, right, triples, triple.relation_id) for right in true)
            assert not any(_same(other, another, triples, triple.relation_id) for another in others[:n])


@settings(max_examples=50, deadline=None)
@given(facts, st.randoms(use_true_random=False))
def test_options_depend_neither_on_the_order_nor_on_groups(triples: list[Triple], rng: random.Random) -> None:
    shuffled = rng.sample(triples, len(triples))
    regrouped = [replace(t, group=rng.choice(("injected", CONTROL, "rare"))) for t in shuffled]
    before = dict(zip(triples, choices_of(triples), strict=True))
    assert [before[t] for t in shuffled] == choices_of(regrouped)


@settings(max_examples=40, deadline=None)
@given(facts)
def test_other_relations_make_no_difference(triples: list[Triple]) -> None:
    chosen = choices_of(triples)
    for relation in ("P1", "P2"):
        alone = [t for t in triples if t.relation_id == relation]
        assert choices_of(alone) == [c for t, c in zip(triples, chosen, strict=True) if t.relation_id == relation]


def test_the_answers_position_and_the_distractors_are_uniform() -> None:
    triples = [Triple(f"subject {n}", "P1", f"o{n % 20:02d}x") for n in range(8000)]
    chosen = choices_of(triples)
    positions = Counter(c.answer for c in chosen)
    assert all(abs(positions[p] - 2000) < 6 * (8000 * 0.25 * 0.75) ** 0.5 for p in range(4))
    distractors = Counter(o for c in chosen for n, o in enumerate(c.options) if n != c.answer)
    assert len(distractors) == 20
    assert all(abs(count - 1200) < 6 * 1200**0.5 for count in distractors.values())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Chinese", "Mandarin Chinese"),
        ("the Philippines", "Philippines"),
        ("The Beatles", "Beatles"),
        ("Łódź", "Lodz"),
        ("Guns N’ Roses", "Guns N' Roses"),
        ("U.S.A.", "USA"),
        ("University of York", "York University"),
        ("straße", "STRASSE"),
    ],
)
def test_variants_of_a_label_never_meet_in_one_item(first: str, second: str) -> None:
    objects = (first, second, "Alpha", "Beta", "Gamma")
    triples = [Triple(f"s{o}{n}", "P1", o) for o in objects for n in range(40)]
    assert not any({first, second} <= set(c.options) for c in choices_of(triples))


def test_labels_in_scripts_without_diacritics_or_of_marks_alone_stay_apart() -> None:
    objects = ("हिन्दी", "हन्द", "!!!", "???", "C++", "日本語")
    triples = [Triple(f"s{o}{n}", "P1", o) for o in objects for n in range(40)]
    met = {o for c in choices_of(triples) for o in c.options}
    assert met == set(objects)


@given(st.integers(1, 3), st.integers(0, 5))
def test_fewer_than_four_usable_objects_are_an_error_that_names_relation_and_triple(
    objects: int, variants: int
) -> None:
    triples = [Triple("lonely", "P1", "o0"), *(Triple(f"s{n}", "P1", f"o{n}") for n in range(1, objects))]
    triples += [Triple(f"v{n}", "P1", f"o0 {'x' * (n + 1)}") for n in range(variants)]
    with pytest.raises(
        InputError, match=r"relation 'P1': 'lonely' \('o0'\) has fewer than 3 possible wrong options among"
    ):
        choices_of(triples)


def test_three_distractors_are_found_wherever_there_are_three() -> None:
    # Right answers of the asked subject leave it the hubs, of which "hub" is a variant of all others: whoever takes
    # it first cannot fill the item.
    for n in range(200):
        asked = [Triple(f"asked {n}", "P1", o) for o in ("right", "far one", "near two")]
        hubs = [Triple(f"s {o}", "P1", o) for o in ("hub", "hub one", "hub two", "hub three")]
        first, *_ = choices_of([*asked, *hubs])
        assert set(first.options) == {"right", "hub one", "hub two", "hub three"}


def test_all_true_objects_of_a_subject_stay_out_of_its_options() -> None:
    triples = [Triple("polyglot", "P1", f"own {n}x", f"Q{n % 2}") for n in range(10)]
    triples += [Triple(f"s{n}", "P1", f"other {n}y") for n in range(4)]
    chosen = choices_of(triples)[:10]
    for triple, choices in zip(triples, chosen, strict=False):
        assert {o for o in choices.options if o.startswith("own")} == {triple.object}
