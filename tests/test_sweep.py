"""A sweep: its file, the runs that this makes, and its plan."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from sweep_files import ROWS, write_models
from tiny_world import make_world

from kisl_plugin.cli.main import main
from kisl_plugin.errors import InputError
from kisl_plugin.grid import all_runs, yaml_of
from kisl_plugin.neox_config import read_yamls
from kisl_plugin.plan import read_settings
from kisl_plugin.sweep import Sweep, disk_of, plan_sweep, read_sweep
from kisl_plugin.sweep.pool import places

PAPER: dict[str, Any] = {
    "models": ["137m", "300m", "562m", "1b"],
    "tokens": ["58e9"],
    "frequency": [0, 10, 50, 100, 200, 500, 1000, 2000],
    "seed": [1, 2, 3],
    "triples": "wikidata_six",
    "data_path": "data/fineweb_edu_text_document",
    "engine": "neox",
    "tasks": "kisl",
    "overrides": {"micro_batch": 8},
    "slurm": {"partition": "a100", "gpus": 8, "hours": 24, "1b": {"nodes": 2}},
}


def kisl(*words: object) -> Result:
    return CliRunner().invoke(main, ["sweep", *map(str, words)])


def small(world: Path, folder: Path, **changes: Any) -> Sweep:
    values = {"models": write_models(folder, world)[:1], "frequency": 2, "seed": 1, "engine": "local"}
    return read_sweep({**values, "triples": str(world / "facts.jsonl"), **changes}, folder / "out")


# ---- the file and its runs


def test_the_paper_s_file_is_a_run_for_each_combination(tmp_path: Path) -> None:
    sweep = read_sweep(PAPER, tmp_path)
    kinds = {(run.model, run.values["kisl"]["frequency"], run.values["seed"]) for run in sweep.runs}
    assert len(sweep.runs) == len({run.name for run in sweep.runs}) == len(kinds) == 4 * 8 * 3
    first, last = sweep.runs[0], sweep.runs[-1]
    assert first.name.startswith("137m_58b_f0_s1_")
    assert last.name.startswith("1b_58b_f2000_s3_")
    assert (first.slurm.get("nodes"), last.slurm["nodes"]) == (None, 2)
    assert last.slurm["gpus"] == 8
    assert last.params == 1_050_629_888


def test_the_yamls_that_are_written_are_the_grid_s_but_for_what_the_file_says(tmp_path: Path) -> None:
    sweep = read_sweep(PAPER, tmp_path)
    plan_sweep(sweep)
    assert {path.stem for path in (tmp_path / "configs").iterdir()} == {run.name for run in sweep.runs}
    for one in sweep.runs[::7]:
        values = dict(read_yamls([one.config]).values)
        assert values == one.values
        name = f"{one.model}_f{values['kisl']['frequency']}"
        grid = yaml.safe_load(next(yaml_of(run) for run in all_runs() if run.name == name))
        seed = values["seed"]
        folder = str(tmp_path / "runs" / one.name)
        changes = {"seed": seed, "kisl": {**grid["kisl"], "seed": seed}, "save": folder, "load": folder}
        assert values == {**grid, **changes, "train_micro_batch_size_per_gpu": 8}
        assert one.tokens == values["train_iters"] * values["train_batch_size"] * values["seq_length"]


def test_every_key_of_the_kisl_section_may_be_a_list_and_a_list_that_is_one_value_stays_one(
    world: Path, tmp_path: Path
) -> None:
    lists = {"spacing": ["shuffled", "even"], "window": [[0.0, 0.5], [0.5, 1.0]], "template": [0, 1]}
    sweep = small(world, tmp_path, **lists)
    sections = [read_settings(run.values["kisl"], "", 0) for run in sweep.runs]
    assert {(s.spacing, s.window, s.template) for s in sections} == {
        (spacing, window, (0, 1)) for spacing in ("shuffled", "even") for window in ((0.0, 0.5), (0.5, 1.0))
    }
    assert any(run.name.startswith("small_f2_even_0.5-1.0_s1_") for run in sweep.runs)
    (one,) = small(world, tmp_path, window=[0.0, 0.5], frequency={"injected": 3}).runs
    assert one.values["kisl"]["window"] == [0.0, 0.5]
    assert one.name.startswith("small_f3_s1_")


def test_without_tokens_and_frequency_the_model_s_own_yaml_decides(world: Path, tmp_path: Path) -> None:
    (one,) = small(world, tmp_path, frequency=None, triples=None, seed=None).runs
    assert (one.values["kisl"]["frequency"], one.train_iters, one.tokens) == (3, 20, 20 * 4 * ROWS)
    (longer,) = small(world, tmp_path, tokens=10 * 4 * ROWS).runs
    assert (longer.train_iters, longer.tokens) == (10, 10 * 4 * ROWS)


def test_overrides_reach_one_value_of_a_section_and_one_model_alone(world: Path, tmp_path: Path) -> None:
    overrides = {"optimizer.params.lr": 0.1, "micro_batch": 2, "large": {"weight_decay": 0.5}}
    sweep = small(world, tmp_path, models=write_models(tmp_path, world), overrides=overrides)
    first, second = (run.values for run in sweep.runs)
    assert first["optimizer"]["params"] == {"lr": 0.1, "betas": [0.9, 0.95]} == second["optimizer"]["params"]
    assert (first["train_micro_batch_size_per_gpu"], first["gradient_accumulation_steps"]) == (2, None)
    assert (first.get("weight_decay"), second["weight_decay"]) == (None, 0.5)


CHANGES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "another learning rate": lambda world, _: {"overrides": {"optimizer.params.lr": 0.1}},
    "another batch": lambda world, _: {"overrides": {"train_batch_size": 8}},
    "another engine": lambda world, _: {"engine": "neox"},
    "another seed": lambda world, _: {"seed": 2},
    "another budget": lambda world, _: {"tokens": 4000},
    "another spacing": lambda world, _: {"spacing": "even"},
    "another corpus": lambda world, other: {"data_path": str(other / "text")},
    "another tokenizer": lambda world, other: {"overrides": {"vocab_file": str(other / "tokenizer.json")}},
    "another order of triples": lambda world, other: {"triples": str(other / "facts.jsonl")},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_value_of_any_input_is_another_run(change: str, world: Path, tmp_path: Path) -> None:
    other = make_world(tmp_path / "other", documents=200)
    lines = (other / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    (other / "facts.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8")
    (before,), (after,) = small(world, tmp_path).runs, small(world, tmp_path, **CHANGES[change](world, other)).runs
    assert before.name != after.name
    assert before.folder != after.folder


def test_inputs_that_only_moved_and_keys_that_change_no_result_make_the_same_run(world: Path, tmp_path: Path) -> None:
    (before,) = small(world, tmp_path).runs
    moved = shutil.copytree(world, tmp_path / "moved")
    neutral = {"checkpoint_factor": 7, "log_interval": 1, "micro_batch": 2, "vocab_file": str(moved / "tokenizer.json")}
    changes = {"data_path": str(moved / "text"), "triples": str(moved / "facts.jsonl"), "overrides": neutral}
    (after,) = small(world, tmp_path, **changes).runs
    assert before.name == after.name
    assert pickle.loads(pickle.dumps(after)) == after


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ["137m"]}, "model is unknown; did you mean models?"),
        ({"models": None}, "models is None; expected names or YAMLs, one or a list"),
        ({"models": ["137n"]}, "model '137n' is unknown; "),
        ({"models": ["nowhere.yml"]}, "nowhere.yml: cannot be read"),
        ({"tokens": [0]}, "tokens is [0]; expected numbers above 0, one or a list"),
        ({"tokens": [1e5]}, "tokens 100,000: a step of 137m has 1,048,576; expected that or more"),
        ({"frequency": [1, -2]}, "kisl.frequency is -2; expected a whole number"),
        ({"seed": [1, 1]}, "is in it twice; leave out what is listed twice"),
        ({"seed": "a"}, "seed is 'a'; expected whole numbers, one or a list"),
        ({"triples": "nowhere.jsonl"}, "'nowhere.jsonl': no such file"),
        ({"engine": "nexo"}, "engine is 'nexo'; expected neox, local, or one that a plugin adds"),
        ({"overrides": {"seed": 1}}, "overrides.seed: the sweep fills it in; give it as seed"),
        ({"overrides": ["lr"]}, "overrides is ['lr']; expected keys of GPT-NeoX and values"),
        ({"overrides": {"hidden_size": "wide"}}, "the YAML of 137m: a size that is no whole number above 0"),
    ],
)
def test_a_wrong_file_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yml"
    values = {**PAPER, "models": ["137m"], **changes}
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    for command in ("plan", "run", "status"):
        result = kisl(command, file, "--out", tmp_path / "out")
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert message in result.output
    assert not (tmp_path / "out").exists()


def test_only_chooses_runs_by_name_in_every_command_and_changes_none_of_them(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yml"
    file.write_text(yaml.safe_dump(PAPER), encoding="utf-8")
    sweep = read_sweep(file, tmp_path)
    chosen = sweep.only(["137m_*_f200_*", "1b_58b_f0_s1_*"])
    assert chosen.runs == tuple(
        run
        for run in sweep.runs
        if (run.model, run.values["kisl"]["frequency"]) == ("137m", 200) or run.name.startswith("1b_58b_f0_s1_")
    )
    assert sweep.only([]) == sweep
    one = chosen.runs[0].name
    assert kisl("status", file, "--only", one).output.splitlines()[1].split() == [one, "waiting", "0/55,313"]
    for words in (["plan"], ["run", "--dry-run"]):
        lines = kisl(*words, file, "--out", tmp_path, "--only", one).output.splitlines()
        assert lines[1].split()[:5] == ["137m", "138M", "58B", "1", "0"]
    assert [path.stem for path in (tmp_path / "configs").iterdir()] == [one]


def test_a_pattern_that_matches_no_run_is_one_line_that_lists_some_names(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yml"
    file.write_text(yaml.safe_dump(PAPER), encoding="utf-8")
    names = [run.name for run in read_sweep(file).runs]
    for command in ("plan", "run", "status"):
        result = kisl(command, file, "--out", tmp_path / "out", "--only", "137m_*", "--only", "f200")
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert f"{file}: --only 'f200' matches none of its 96 runs" in result.output
        assert result.output.endswith(f"The names: {', '.join(names[:5])}, …\n")
    assert not (tmp_path / "out").exists()


# ---- the plan


def test_the_plan_of_the_paper_s_grid_counts_what_it_takes_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yml"
    file.write_text(yaml.safe_dump(PAPER), encoding="utf-8")
    first, second = (kisl(*words, file, "--out", tmp_path) for words in (["plan"], ["run", "--dry-run"]))
    assert (first.exit_code, second.output) == (0, first.output)
    lines = [line.split() for line in first.output.splitlines()]
    assert max(len(line) for line in first.output.splitlines() if str(tmp_path) not in line) <= 80
    flops = 24 * 6 * 57_999_884_288 * sum((137_644_800, 300_323_840, 563_672_320, 1_050_629_888))
    row = next(line for line in lines if line and line[0] == "all")
    assert row[1:5] == ["96", "0", f"{flops:.3g}", f"{flops:.3g}"]
    assert row[5] == f"{flops / (0.4 * 312e12) / 3600:,.0f}"
    maker = "(vocab_file: data/tokenizer.json) · kisl corpus tokenizer --input TEXT --output data/tokenizer.json"
    assert maker in " ".join(first.output.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "sweep.yml"]
    refused = kisl("run", file, "--out", tmp_path)
    corpus = "the corpus (data_path: data/fineweb_edu_text_document.bin and .idx) · kisl corpus build"
    assert (refused.exit_code, corpus in refused.output) == (2, True)


def test_a_plan_for_the_embedded_engine_measures_this_machine(world: Path, tmp_path: Path) -> None:
    plan = plan_sweep(small(world, tmp_path), measure=True)
    (state,) = plan.states
    run, seconds = state.run, plan.seconds_left(state)
    assert plan.basis.startswith("measured here")
    assert seconds is not None
    assert seconds > 0
    assert state.flops_left == run.flops == 6 * run.params * run.tokens
    assert disk_of(run) == run.params * (5 * 12 + 4)  # 5 checkpoints in fp32 with Adam's moments, and the model


# ---- what runs side by side


@pytest.mark.parametrize(
    ("visible", "jobs", "engine", "gpus", "dealt"),
    [
        ("0,1,2,3", None, "neox", None, ["0,1,2,3"]),  # one run on all
        ("0,1,2,3", 2, "neox", None, ["0,1", "2,3"]),
        ("0,1,2,3", None, "neox", 2, ["0,1", "2,3"]),
        ("4,6", None, "local", None, ["4", "6"]),
        ("4,6", 4, "local", None, ["4", "6", "4", "6"]),
        ("GPU-a,GPU-b", 1, "neox", 1, ["GPU-a"]),
        ("", 3, "local", None, None),
    ],
)
def test_gpus_are_dealt_among_the_runs_side_by_side_and_a_cpu_run_has_one_thread(
    visible: str, jobs: int | None, engine: str, gpus: int | None, dealt: list[str] | None,
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.delenv("OMP_NUM_THREADS")
    sweep = small(world, tmp_path, engine=engine, gpus=gpus)
    expected = [{"CUDA_VISIBLE_DEVICES": names} for names in dealt or ()]
    assert places(sweep, jobs) == (expected or [{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}] * 3)


def test_more_gpus_than_there_are_is_one_line(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    for jobs, gpus, count in ((2, 2, "2 × 2"), (None, 4, "1 × 4")):
        with pytest.raises(InputError, match=f"{count} GPUs; expected at most the 3 that are visible here"):
            places(small(world, tmp_path, engine="neox", gpus=gpus), jobs)
