"""The question that four options share is fed once, and only where that changes no number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from probe_world import ByHand, ask, byte_level_bpe, check_by_hand, plain_model, save_model, some_triples, write_card
from transformers import BloomConfig

from kisl_plugin.verbalize import statement

pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM

from kisl_plugin.probe.scoring import TOLERANCE, Pair, in_full, shared_scores

FORMS = ("kisl_wikidata", "kisl_wikidata_statement")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = plain_model(tmp_path_factory.mktemp("shared"))
    write_card(model, some_triples())
    return model


def hf(folder: Path, **changes: Any) -> Any:
    return HFLM(pretrained=str(folder), device="cpu", **{"dtype": "float32", "batch_size": 4, **changes})


def fed(lm: Any) -> Callable[[], int]:
    """How many tokens the model has been fed since, padding left out of account by a batch of one."""
    count = [0]
    lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: count.__setitem__(0, count[0] + (args[0] if args else kwargs["input_ids"]).numel()),
        with_kwargs=True,
    )
    return lambda: count[0]


def pairs_of(judge: ByHand, rows: list[dict[str, Any]]) -> list[Pair]:
    return [Pair(*judge.encode(*pair)) for row in rows for pair in row["arguments"]]


def test_a_question_is_fed_once_for_its_four_options(folder: Path) -> None:
    lm = hf(folder, batch_size=1)
    tokens = fed(lm)
    rows = ask(folder, model=lm, model_args=None, device=None)["samples"]["kisl_wikidata"]
    pairs = pairs_of(ByHand(folder), rows)
    questions = sum(len(pair.context) for pair in pairs[::4])
    options = sum(len(pair.option) - 1 for pair in pairs)
    checked = tokens() - questions - options
    in_all = sum(len(pair.context) + len(pair.option) - 1 for pair in pairs)
    assert 0 < checked < in_all
    assert questions + options < in_all / 2


def test_the_shared_way_gives_the_numbers_of_lm_evals_own(folder: Path) -> None:
    lm = hf(folder)
    rows = ask(folder, *FORMS)["samples"]
    for task in FORMS:
        pairs = pairs_of(ByHand(folder), rows[task])
        shared, full = shared_scores(lm, pairs, in_full), in_full(lm, pairs)
        assert shared is not None
        for (a, says), (b, also_says), pair in zip(shared, full, pairs, strict=True):
            assert abs(a - b) / len(pair.option) < TOLERANCE
            assert says == also_says


def test_a_model_that_places_tokens_in_its_own_way_is_asked_in_full(tmp_path: Path) -> None:
    # ALiBi counts distances from the mask, not from the positions that it is given.
    config = BloomConfig(vocab_size=500, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3)
    save_model(tmp_path, byte_level_bpe([statement(triple) for triple in some_triples()]), config=config)
    write_card(tmp_path, some_triples())
    results = ask(tmp_path, *FORMS)
    judge = ByHand(tmp_path)
    check_by_hand(results, judge)
    pairs = pairs_of(judge, results["samples"]["kisl_wikidata"])
    assert shared_scores(hf(tmp_path), pairs, in_full) is None


def test_a_type_too_coarse_for_the_two_ways_to_agree_is_asked_in_full_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = pairs_of(ByHand(folder), ask(folder)["samples"]["kisl_wikidata"])
    assert "float32 is recommended" not in caplog.text
    assert shared_scores(hf(folder, dtype="bfloat16"), pairs, in_full) is None
    assert "float32 is recommended" in caplog.text


def test_a_model_whose_code_refuses_the_mask_is_asked_in_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = hf(folder)
    forward = lm.model.forward

    def own(input_ids: torch.Tensor, **others: Any) -> Any:
        if "position_ids" in others:
            raise TypeError("got an unexpected keyword argument 'position_ids'")
        return forward(input_ids, **others)

    monkeypatch.setattr(lm.model, "forward", own)
    check_by_hand(ask(folder, model=lm, model_args=None, device=None), ByHand(folder))


def test_the_one_item_whose_options_could_see_each_other_is_among_the_checked(tmp_path: Path) -> None:
    # ALiBi ignores the places that it is given: one-token options, which see no other, would not show it.
    config = BloomConfig(vocab_size=500, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.3)
    save_model(tmp_path, byte_level_bpe([statement(triple) for triple in some_triples()]), config=config)
    pairs = [
        Pair((item + 5, *range(7, 27 + item % 9)), (40 + option,) * (3 if item == 17 else 1))
        for item in range(60)
        for option in range(4)
    ]
    assert shared_scores(hf(tmp_path), pairs, in_full) is None


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_model_whose_places_depend_on_the_longest_text_is_asked_in_full(folder: Path, kind: str) -> None:
    lm = hf(folder)
    pairs = [Pair((5, 6), (7, 8)), Pair((5, 6), (9,))]
    assert shared_scores(lm, pairs, in_full) is not None
    lm.model.config.rope_parameters = {"rope_type": kind, "factor": 2.0}
    assert shared_scores(lm, pairs, in_full) is None


def test_a_model_that_has_diverged_is_not_trusted(tmp_path: Path) -> None:
    broken = plain_model(tmp_path, weight=float("nan"))
    pairs = [Pair((5, 6), (7, 8)), Pair((5, 6), (9,))]
    assert shared_scores(hf(broken), pairs, in_full) is None
