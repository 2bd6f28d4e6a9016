import os
from pathlib import Path
from typing import Any

import pytest
from fit_files import TASK, results, run_card, with_metrics, write

from kisl_plugin.errors import InputError
from kisl_plugin.fit.results import Reading, read_results


def read(*paths: Path, task: str = TASK) -> Reading:
    return read_results(paths, task)


def reasons(reading: Reading) -> dict[str, str]:
    return {Path(aside.path).name: aside.reason for aside in reading.set_aside}


def test_a_result_becomes_one_observation(tmp_path: Path) -> None:
    file = write(tmp_path / "m" / "results_1.json", with_metrics(results(run_card(), 0.5), acc_control=0.25))
    (seen,) = read(tmp_path).observations
    assert (seen.params, seen.tokens, seen.frequency, seen.seed) == (137_000_000, 2_600_000_000, 200, 1)
    assert (seen.correct, seen.total, seen.control_correct, seen.control_total) == (200, 400, 25, 100)
    assert (seen.path, seen.model, seen.group) == (str(file), "models/x", None)


def test_results_are_found_in_hidden_folders_under_other_names_and_as_single_files(tmp_path: Path) -> None:
    write(tmp_path / ".__x" / "results_1.json", results(run_card(seed=1)))
    write(tmp_path / "deep" / "er" / "x_2026-01-01T00-00-00.1.json", results(run_card(seed=2)))
    single = write(tmp_path / "elsewhere" / "any.json", results(run_card(seed=3)))
    assert {seen.seed for seen in read(tmp_path).observations} == {1, 2, 3}
    assert [seen.seed for seen in read(single).observations] == [3]
    assert len(read(tmp_path, single, tmp_path / ".__x").observations) == 3


def test_loops_of_links_end_and_linked_results_count_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "results_1.json", results(run_card()))
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "results_2.json").symlink_to(tmp_path / "a" / "results_1.json")
    reading = read(tmp_path)
    assert len(reading.observations) == 1
    assert not reading.set_aside


def test_other_json_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    write(tmp_path / "tokenizer.json", {"model": {}})
    write(tmp_path / "half.json", "{")
    assert not read(tmp_path).set_aside


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([1], "not lm-eval results"),
        ({"results": {}}, "not lm-eval results"),
        (results(run_card(), task="hellaswag"), "no results of task kisl_wikidata; it holds hellaswag"),
        (results(None), "no run card (metadata.kisl): probe a model trained with kisl"),
        (results({"schema": 9}), "run card: schema is 9"),
        (results(run_card(model={})), "run card: model.params is None"),
        (results(run_card(tokens=0)), "run card: tokens is 0"),
        (results(run_card(iteration=500)), "unfinished run: iteration 500 of 1000"),
        (results(run_card(), config={"limit": 100.0}), "run with --limit 100.0"),
        (results(run_card(), **{"n-samples": {TASK: {"original": 500, "effective": 50}}}), "50 items answered"),
        (results(run_card(), 0.5001), "acc,none is 0.5001, which is no whole number of the 400 triples"),
        (results(run_card(), float("nan")), "acc,none is nan; expected a share"),
        (results(run_card(), 40.0), "acc,none is 40.0; expected a share"),
        (with_metrics(results(run_card()), acc_control=0.333), "acc_control,none is 0.333"),
        (results(run_card(frequency=None, groups={"a": {"frequency": 5, "count": 400}})), "no metric acc_a,none"),
        (results(run_card(frequency=None, groups={})), "groups is empty"),
        (results(run_card(frequency=None, groups={"a": {"frequency": 5, "count": 0}})), "counts 0 triples"),
        (results(run_card(triples={"count": 0}), **{"n-samples": {}}), "counts 0 triples"),
    ],
)
def test_what_cannot_be_used_is_set_aside_with_its_reason(tmp_path: Path, data: Any, reason: str) -> None:
    write(tmp_path / "results_good.json", results(run_card(seed=99)))
    write(tmp_path / "results_bad.json", data)
    reading = read(tmp_path)
    assert [seen.seed for seen in reading.observations] == [99]
    assert reason in reasons(reading)["results_bad.json"]
    assert "\n" not in reasons(reading)["results_bad.json"]


@pytest.mark.parametrize("effective", [500, 400, 100])
def test_every_way_in_which_lm_eval_counts_the_items_is_taken(tmp_path: Path, effective: int) -> None:
    counts = {"n-samples": {TASK: {"original": 500, "effective": effective}}}
    write(tmp_path / "results_1.json", results(run_card(), **counts))
    assert len(read(tmp_path).observations) == 1


def test_groups_are_observations_of_their_own(tmp_path: Path) -> None:
    groups = {"rare": {"frequency": 10, "count": 300}, "often": {"frequency": 500, "count": 100}}
    data = results(run_card(frequency=None, groups=groups), 0.1234567)
    write(tmp_path / "results_1.json", with_metrics(data, acc_rare=0.5, acc_often=0.9))
    cells = {(s.group, s.frequency, s.correct, s.total) for s in read(tmp_path).observations}
    assert cells == {("rare", 10, 150, 300), ("often", 500, 90, 100)}


def test_a_group_without_triples_is_skipped_and_the_others_are_used(tmp_path: Path) -> None:
    groups = {"none": {"frequency": 10, "count": 0}, "all": {"frequency": 500, "count": 400}}
    write(tmp_path / "results_1.json", with_metrics(results(run_card(frequency=None, groups=groups)), acc_all=0.5))
    reading = read(tmp_path)
    assert [(seen.group, seen.correct, seen.total) for seen in reading.observations] == [("all", 200, 400)]
    assert not reading.set_aside


def test_the_latest_probe_of_a_run_counts_and_the_others_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "results_a.json", results(run_card(), 0.5, date=3.0))
    write(tmp_path / "results_b.json", results(run_card(), 0.25, date=2.0))
    write(tmp_path / "results_c.json", results(run_card(), 0.75, date=4.0, config={"limit": 5}))
    write(tmp_path / "results_d.json", results(run_card(seed=2), 0.75, date=1.0))
    reading = read(tmp_path)
    assert [(seen.seed, seen.correct) for seen in reading.observations] == [(1, 200), (2, 300)]
    assert set(reasons(reading)) == {"results_b.json", "results_c.json"}
    assert "superseded by" in reasons(reading)["results_b.json"]
    assert "results_a.json" in reasons(reading)["results_b.json"]


def test_a_card_without_a_date_is_still_recognised_when_probed_again(tmp_path: Path) -> None:
    for day in (1.0, 2.0):
        write(tmp_path / f"results_{day}.json", results(run_card(created=None), date=day))
    assert len(read(tmp_path).observations) == 1


def test_a_run_that_was_trained_twice_is_one_observation(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        card = run_card(train_seed=5, created=f"2026-01-0{day}T00:00:00+00:00")
        write(tmp_path / f"results_{day}.json", results(card, day / 4, date=float(day % 3)))
    reading = read(tmp_path)
    assert [seen.correct for seen in reading.observations] == [200]
    assert set(reasons(reading)) == {"results_1.json", "results_3.json"}
    for reason in reasons(reading).values():
        assert "trained again with the same seeds" in reason
        assert "no new observation" in reason
        assert "results_2.json" in reason
        assert "train_seed" not in reason


def test_of_results_without_a_date_the_run_that_was_made_last_counts(tmp_path: Path) -> None:
    for name, day in (("a", 3), ("b", 1)):
        card = run_card(created=f"2026-01-0{day}T00:00:00+00:00")
        write(tmp_path / f"results_{name}.json", results(card, day / 4, date=None))
    reading = read(tmp_path)
    assert [seen.correct for seen in reading.observations] == [300]
    assert "no train_seed in the run cards" in reasons(reading)["results_b.json"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"train_seed": 1}, {"train_seed": 2}),
        ({"form": "statement"}, {"form": "question"}),
        ({"template": [0]}, {"template": [0, 1]}),
        ({"spacing": "even"}, {"spacing": "shuffled"}),
        ({"window": [0.0, 0.5]}, {"window": [0.5, 1.0]}),
        ({"seq_length": 128}, {"seq_length": 256}),
        ({"engine": "neox"}, {"engine": "local"}),
        ({"triples": {"source": "a", "count": 400}}, {"triples": {"source": "b", "count": 400}}),
        ({"parent": {"tokens": 1, "created": "x"}}, {"parent": {"tokens": 2, "created": "x"}}),
        ({"parent": {"parent": {"seed": 1}}}, {"parent": {"parent": {"seed": 2}}}),
    ],
)
def test_runs_of_other_settings_made_in_the_same_second_both_count(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    write(tmp_path / "results_1.json", results(run_card(**one)))
    write(tmp_path / "results_2.json", results(run_card(**other)))
    reading = read(tmp_path)
    assert len(reading.observations) == 2
    assert not reading.set_aside


def test_a_parent_that_was_trained_again_makes_no_other_run(tmp_path: Path) -> None:
    for day in ("1", "2"):
        parent = {**run_card(frequency=0), "created": day, "versions": {"torch": day}}
        write(tmp_path / f"results_{day}.json", results(run_card(parent=parent)))
    assert len(read(tmp_path).observations) == 1


def test_another_task_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card(), task="kisl_wikidata_statement"))
    assert len(read(tmp_path, task="kisl_wikidata_statement").observations) == 1
    assert not read(tmp_path).observations


def test_no_results_at_all_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no lm-eval results found; looked for results_\*\.json"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        read(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o000)
    assert "cannot be read" in reasons(read(tmp_path))["locked"]


def test_what_lm_eval_itself_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lm_eval = pytest.importorskip("lm_eval")
    from datasets import Dataset
    from lm_eval.api.model import LM
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class FirstOption(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
            return [(0.0 if request.args[1].strip() == "a" else -1.0, False) for request in requests]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    class Facts(ConfigurableTask):  # type: ignore[misc]
        def download(self, *_: Any, **__: Any) -> None:
            rows = [{"question": f"q{i}", "options": ["a", "b"], "right": int(i % 5 > 0)} for i in range(40)]
            self.dataset = {"test": Dataset.from_list(rows)}

    card = run_card(triples={"count": 40, "control": 0})
    config = {
        "task": TASK,
        "dataset_path": "unused",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "options",
        "doc_to_target": "right",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1, "kisl": card},
    }
    tracker = EvaluationTracker(output_path=str(tmp_path))
    for limit in (None, 10):
        found = lm_eval.simple_evaluate(
            model=FirstOption(),
            tasks=[Facts(config=config)],
            limit=limit,
            evaluation_tracker=tracker,
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
        )
        tracker.save_results_aggregated(found, found.pop("samples"))
    reading = read(tmp_path)
    assert [(seen.correct, seen.total) for seen in reading.observations] == [(8, 40)]
    assert [aside.reason for aside in reading.set_aside] == ["run with --limit 10: probe all items"]
