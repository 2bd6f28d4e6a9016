from typing import Any

import pytest
from fit_files import run_card
from hypothesis import given
from hypothesis import strategies as st

from kisl_plugin.fit.predict import Sweep, sweep_of
from kisl_plugin.runcard import RunCard


def card(**changes: Any) -> RunCard:
    return RunCard.from_dict(run_card(**changes), "here")


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(1, 10_000), st.floats(1.0, 100.0))
def test_tokens_per_statement_are_the_mean_over_the_cards(frequencies: list[int], count: int, tokens: float) -> None:
    triples = {"source": "bundled", "count": count}
    spent = [max(1, round(f * count * tokens)) for f in frequencies]
    cards = [card(frequency=f, triples=triples, injected_tokens=s) for f, s in zip(frequencies, spent, strict=True)]
    found = sweep_of([*cards, card(frequency=0, triples={"count": 7})])
    mean = sum(s / f / count for f, s in zip(frequencies, spent, strict=True)) / len(spent)
    assert found.tokens_per_statement == pytest.approx(mean)
    assert (found.triples, found.source) == (count, "bundled")


def test_groups_are_weighed_by_their_exposures() -> None:
    groups = {"rare": {"frequency": 10, "count": 300}, "often": {"frequency": 100, "count": 100}}
    found = sweep_of([card(frequency=None, groups=groups, injected_tokens=13_000 * 9)])
    assert found.tokens_per_statement == 9


def test_what_most_cards_say_is_what_the_sweep_did() -> None:
    own = {"template": [0, 2], "window": [0.1, 0.9], "spacing": "even", "seq_length": 512}
    model = {"params": 137_000_000, "vocab_size": 50_304}
    found = sweep_of([card(**own, model=model), card(**own, model=model, seed=2), card(template=1, spacing="shuffled")])
    assert found == Sweep(
        triples=400,
        source="bundled",
        form="statement",
        template=(0, 2),
        spacing="even",
        window=(0.1, 0.9),
        seq_length=512,
        vocabulary=50_304,
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"window": {"from": 0}},
        {"window": [[0], 1]},
        {"injected_tokens": "many"},
        {"injected_tokens": -5},
        {"spacing": ["even"]},
        {"seq_length": 0},
        {"model": {"params": 1, "vocab_size": [1]}},
        {"triples": {"count": 400, "source": {"a": 1}}},
    ],
)
def test_an_optional_key_of_the_wrong_kind_is_as_if_it_were_not_there(odd: dict[str, Any]) -> None:
    source = None if "triples" in odd else "bundled"
    assert sweep_of([card(**odd)]) == Sweep(triples=400, source=source, form="statement")


def test_a_sweep_without_injection_says_nothing() -> None:
    assert sweep_of([]) == sweep_of([card(frequency=0)]) == Sweep()
