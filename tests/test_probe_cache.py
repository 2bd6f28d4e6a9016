"""lm_eval's caches know questions and not models: no model may get another's numbers from them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from probe_world import ByHand, ask, check_by_hand, llama, plain_model, some_triples, write_card
from transformers import AutoModelForCausalLM

pytest.importorskip("lm_eval")
TASKS = ("kisl_wikidata", "kisl_wikidata_statement")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of different weights that are asked the same questions."""
    root = tmp_path_factory.mktemp("models")
    folders = [plain_model(root / name) for name in ("first", "second")]
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(llama()).save_pretrained(folders[1])
    for folder in folders:
        write_card(folder, some_triples())
    return folders


def cached(path: Path) -> dict[str, Any]:
    from sqlitedict import SqliteDict

    with SqliteDict(str(path)) as entries:
        return dict(entries)


def test_use_cache_never_mixes_models(models: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "answers"
    for folder in [*models, models[0]]:
        check_by_hand(ask(folder, *TASKS, use_cache=str(path)), ByHand(folder))
    first, second = (ByHand(folder).score("Question:", " Albanian") for folder in models)
    assert first != second
    (file,) = tmp_path.iterdir()
    assert cached(file) == {}


def test_what_is_asked_of_the_model_after_the_probe_is_cached_as_ever(models: list[Path], tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(models[0]), dtype="float32", device="cpu")
    ask(models[0], model=lm, model_args=None, device=None, use_cache=str(tmp_path / "answers"))
    pair = ("Question:", " Albanian")
    ((summed, greedy),) = lm.loglikelihood([Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0)])
    (file,) = tmp_path.iterdir()
    assert list(cached(file).values()) == [(summed, greedy)]


def test_background_loss_is_never_another_models(models: list[Path], tmp_path: Path) -> None:
    settings = {"limit": 2}
    alone = [bits(ask(folder, "kisl_background", **settings)) for folder in models]
    together = [bits(ask(folder, "kisl_background", use_cache=str(tmp_path / "db"), **settings)) for folder in models]
    assert alone[0] != alone[1]
    assert together == pytest.approx(alone)
    (file,) = tmp_path.iterdir()
    assert cached(file) == {}


def bits(results: dict[str, Any]) -> float:
    value: float = results["results"]["kisl_background"]["bits_per_byte,none"]
    return value


def test_cached_requests_never_mix_models(models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "requests"))
    other = tmp_path / "other"
    write_card(plain_model(other), tuple(reversed(some_triples()))[:9])
    for folder, items in ((models[0], 18), (models[1], 18), (other, 9), (models[0], 18)):
        check_by_hand(ask(folder, *TASKS, cache_requests=True), ByHand(folder), items=items)
    assert not list(tmp_path.glob("requests/*"))
