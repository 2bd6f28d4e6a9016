"""Runs that are killed, resumed, laid out anew or continued."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from running import fed_rows, neox_settings, run, start, train
from safetensors import safe_open
from test_layouts import counted, expected
from tiny_world import write_yaml

from kisl_plugin.checkpoints import hold_save
from kisl_plugin.errors import KislError
from kisl_plugin.files import sha256
from kisl_plugin.indexed import IndexedDataset
from kisl_plugin.runcard import read_run_card


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def kill_after(checkpoint: str, config: Path, save: Path, log: Path) -> None:
    """Start a run and kill every process of it with SIGKILL once `latest` names `checkpoint`."""
    process = start(["train", str(config)], config.parent, log, KISL_SPY_DELAY="0.2")
    latest = save / "latest"
    deadline = time.monotonic() + 300
    while not (latest.is_file() and latest.read_text() == checkpoint):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0][-3000:]
        time.sleep(0.05)
    with pytest.raises(KislError, match="another run saves to"), hold_save(save, "second.yml"):
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@dataclass(frozen=True)
class Resumed:
    """A run that was killed half-way and resumed: its checkpoints, and the rows of both parts."""

    save: Path
    rows: NDArray[np.int64]


@pytest.fixture(scope="module")
def resumed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    folder = tmp_path_factory.mktemp("killed")
    save = folder / "run"
    config = write_yaml(folder / "run.yml", neox_settings(world, save, max_position_embeddings=256))
    kill_after("global_step8", config, save, folder / "first")
    assert not (save / "global_step20").exists()
    begun = int((save / "latest").read_text().removeprefix("global_step"))
    again = train(config, folder, folder / "second")
    assert re.findall(r"^kisl: (\d+) of 36 exposures$", again.output, re.M)[-1] == "36"
    assert again.output.rindex("kisl: 36 exposures of 12 triples (F = 3) in 80 samples") > again.output.index(
        "training"
    )
    first, second = fed_rows(folder / "first"), fed_rows(folder / "second")
    assert len(second) == (20 - begun) * 4
    return Resumed(save, np.concatenate([first[: begun * 4], second]))


def test_a_killed_run_resumes_on_the_rows_and_to_the_weights_of_the_uninterrupted_one(
    resumed: Resumed, world: Path, tmp_path: Path
) -> None:
    config = write_yaml(tmp_path / "whole.yml", neox_settings(world, tmp_path / "whole", max_position_embeddings=256))
    done = train(config, tmp_path, tmp_path / "log")
    assert f"next: kisl export {tmp_path / 'whole'} whole_hf" in done.output
    rows = fed_rows(tmp_path / "log")
    np.testing.assert_array_equal(resumed.rows, rows)
    assert same_weights(tmp_path / "whole" / "global_step20", resumed.save / "global_step20")
    assert counted(rows, world) == expected(world)


def test_the_card_of_a_resumed_run_has_its_id_its_data_and_its_optimizer(resumed: Resumed, world: Path) -> None:
    cards = [read_run_card(path) for path in sorted(resumed.save.glob("global_step*"))]
    assert len(cards) >= 4 and len({card.run_id for card in cards}) == 1
    card, text = cards[0], (world / "tokenizer.json").read_text(encoding="utf-8")
    assert card.run_id and card.data == {
        "corpus": IndexedDataset(world / "text").fingerprint(),
        "tokenizer": sha256(text),
    }
    assert card.optimizer == {
        "name": "adam", "lr": 0.005, "betas": [0.9, 0.95], "schedule": "cosine", "weight_decay": 0.1,
        "gradient_clipping": 1.0, "warmup": 0.01, "min_lr": 0.0, "batch": 4,
    }  # fmt: skip


def test_a_killed_and_resumed_run_is_exported_probed_and_fitted(resumed: Resumed, tmp_path: Path) -> None:
    say("kisl", "export", str(resumed.save), str(tmp_path / "hf"), cwd=tmp_path)
    probe = ["--model", "hf", "--model_args", f"pretrained={tmp_path / 'hf'},dtype=float32", "--device", "cpu"]
    said = say("lm_eval", "--tasks", "kisl_wikidata", *probe, "--output_path", "results", cwd=tmp_path)
    assert "acc_control" in said
    said = say("kisl-fit", "results", cwd=tmp_path)
    assert "1 observation" in said
    fitted = json.loads((tmp_path / "report" / "fit.json").read_text())
    card = read_run_card(resumed.save / "global_step20")
    assert card.engine == "neox" and card.tokens == 20 * 4 * 64
    assert [(curve["params"], curve["tokens"]) for curve in fitted["curves"]] == [(card.model["params"], card.tokens)]
    weights_of = safe_open(tmp_path / "hf" / "model.safetensors", framework="np")
    assert sum(weights_of.get_tensor(name).size for name in weights_of.keys()) == card.model["params"]  # noqa: SIM118


def say(command: str, *arguments: str, cwd: Path) -> str:
    """Run a command of this environment, which must succeed."""
    place = Path(sys.executable).parent / command
    done = subprocess.run([str(place), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.matrix
def test_a_resume_on_another_number_of_processes_is_exact(world: Path, tmp_path: Path) -> None:
    values = neox_settings(world, tmp_path / "run")
    one = write_yaml(tmp_path / "one.yml", {**values, "exit_interval": 8})
    run(["train", str(one)], tmp_path, tmp_path / "one-log")
    assert (tmp_path / "run" / "latest").read_text() == "global_step8"
    train(write_yaml(tmp_path / "two.yml", {**values, "num_gpus": 2}), tmp_path, tmp_path / "two-log")
    rows = np.concatenate([fed_rows(tmp_path / "one-log"), fed_rows(tmp_path / "two-log")])
    assert len(rows) == 80
    assert counted(rows, world) == expected(world)


@pytest.mark.matrix
def test_under_zero_1_a_resume_on_another_number_of_processes_is_refused_as_deepspeed_would(
    world: Path, tmp_path: Path
) -> None:
    values = neox_settings(world, tmp_path / "run", zero_optimization={"stage": 1})
    two = write_yaml(tmp_path / "two.yml", {**values, "num_gpus": 2, "exit_interval": 8})
    run(["train", str(two)], tmp_path)
    done = run(["train", str(write_yaml(tmp_path / "one.yml", values))], tmp_path)
    assert done.status == 2
    assert "divided among 2 data-parallel processes and this run has 1" in done.output
    train(write_yaml(tmp_path / "same.yml", {**values, "num_gpus": 2}), tmp_path)


@pytest.mark.matrix
def test_continued_pretraining_is_a_new_run_whose_card_names_its_parent(world: Path, tmp_path: Path) -> None:
    parent = write_yaml(tmp_path / "parent.yml", neox_settings(world, tmp_path / "parent"))
    train(parent, tmp_path)
    changes: dict[str, Any] = {"load": str(tmp_path / "parent"), "finetune": True, "train_iters": 12, "iteration": 20}
    section = {"triples": str(world / "facts.jsonl"), "frequency": 5, "window": [0.5, 1.0]}
    values = neox_settings(world, tmp_path / "child", kisl=section, **changes)
    child = write_yaml(tmp_path / "child.yml", {**values, "exit_interval": 7})
    run(["train", str(child)], tmp_path, tmp_path / "first")
    assert (tmp_path / "child" / "latest").read_text() == "global_step4"
    child = write_yaml(tmp_path / "child.yml", values)
    assert "resuming this continued run" in train(child, tmp_path, tmp_path / "second").output
    rows = np.concatenate([fed_rows(tmp_path / "first")[: 4 * 4], fed_rows(tmp_path / "second")])
    assert len(rows) == 12 * 4
    assert counted(rows, world) == expected(world, 5)
    assert not any(counted(rows[:24], world).values()), "the window's first half holds statements"
    card = read_run_card(tmp_path / "child" / "global_step12")
    assert card.parent == read_run_card(tmp_path / "parent" / "global_step20").to_dict()
    assert card.tokens == 12 * 4 * 64


@pytest.mark.matrix
def test_a_launch_that_a_signal_ends_is_no_success_and_a_sigterm_reaches_every_process(
    world: Path, tmp_path: Path
) -> None:
    config = write_yaml(tmp_path / "run.yml", neox_settings(world, tmp_path / "run"))
    for name, number, status in (("launch.py", signal.SIGKILL, 1), ("deepy.py", signal.SIGTERM, 128 + 15)):
        process = start(["train", str(config)], tmp_path, tmp_path / name, KISL_SPY_DELAY="0.5")
        try:
            workers = wait_for_workers(process, tmp_path / name)
            target = process.pid if name == "deepy.py" else launcher_of(process.pid)
            os.kill(target, number)
            said, _ = process.communicate(timeout=60)
            assert process.returncode == status, said[-1000:]
            if name == "deepy.py":
                assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
            else:
                assert "was ended by signal 9" in said
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def wait_for_workers(process: "subprocess.Popen[str]", log: Path) -> list[int]:
    """Wait until the run trains; returns its processes."""
    deadline = time.monotonic() + 120
    while not any(log.glob("dp*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return children_of(launcher_of(process.pid))


def launcher_of(pid: int) -> int:
    return next(child for child in children_of(pid) if "launch" in Path(f"/proc/{child}/cmdline").read_text())


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_finished_run_that_is_started_again_says_so_and_touches_nothing(resumed: Resumed, tmp_path: Path) -> None:
    config = resumed.save.parent / "run.yml"
    before = {path: path.stat().st_mtime_ns for path in resumed.save.rglob("*") if "lock" not in path.name}
    done = train(config, tmp_path)
    assert "global_step20: already trained to iteration 20" in done.output
    assert before == {path: path.stat().st_mtime_ns for path in resumed.save.rglob("*") if "lock" not in path.name}


def test_after_a_power_cut_one_line_says_how_to_go_on_and_a_cut_index_map_is_made_again(
    resumed: Resumed, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(resumed.save, tmp_path / "run")
    newest, latest = tmp_path / "run" / "global_step20", tmp_path / "run" / "latest"
    config = write_yaml(tmp_path / "run.yml", neox_settings(world, tmp_path / "run", max_position_embeddings=256))
    latest.unlink()
    lost = run(["train", str(config)], tmp_path)
    latest.write_text("global_step20")
    (newest / "mp_rank_00_model_states.pt").write_bytes(b"PK" + bytes(1000))
    cut = run(["train", str(config)], tmp_path)
    for done, name in ((lost, "global_step20"), (cut, "global_step16")):
        last = done.output.splitlines()[-1]
        assert done.status == 2 and last.startswith("Error: ")
        assert last.endswith(f": printf {name} > {latest}"), last
    latest.write_text("global_step16")
    maps = list(world.glob("text_*_train_indexmap_80ns_64sl_7s_*_shuffle_idx.npy"))
    assert maps
    for path in maps:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = train(config, tmp_path)
    assert all(f"kisl: {path} is cut off and is made again" in again.output for path in maps)
    assert same_weights(newest, resumed.save / "global_step20")


def test_a_yaml_of_the_grid_runs_on_a_cpu_with_the_overrides_of_the_docs(world: Path, tmp_path: Path) -> None:
    words = "train_iters=2 train_batch_size=2 train_micro_batch_size_per_gpu=2 seq_length=256"
    words += f" hidden_size=96 kisl.frequency=1 kisl.triples={world}/facts.jsonl vocab_file={world}/tokenizer.json"
    words += f" data_path={world}/text save={tmp_path}/a load={tmp_path}/a"
    grid = Path(__file__).parents[2] / "neox_configs" / "137m_f200.yml"
    done = run(["train", str(grid), "--override", *words.split()], tmp_path, tmp_path / "log")
    assert done.status == 0, done.output[-3000:]
    assert "no GPU: attention_config is [[['global'], 12]]" in done.output
    rows = fed_rows(tmp_path / "log")
    assert rows.shape == (4, 256)
    assert counted(rows, world) == expected(world, 1)


def test_a_worker_that_outlives_its_launchers_keeps_other_runs_out(world: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "run.yml", neox_settings(world, tmp_path / "run"))
    process = start(["train", str(config)], tmp_path, tmp_path / "log", KISL_SPY_DELAY="5")
    try:
        (worker,) = wait_for_workers(process, tmp_path / "log")
        os.kill(launcher_of(process.pid), signal.SIGKILL)
        process.kill()
        process.wait()
        with (
            pytest.raises(KislError, match=rf"another run saves to .*run \(process {worker} on "),
            hold_save(tmp_path / "run", "second.yml"),
        ):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_run_without_a_section_is_upstreams_to_the_bit_and_a_frequency_of_0_has_its_rows(
    world: Path, tmp_path: Path
) -> None:
    plain = write_yaml(tmp_path / "plain.yml", neox_settings(world, tmp_path / "plain", kisl=None))
    with_plugin = train(plain, tmp_path, tmp_path / "plain-log")
    upstream = write_yaml(tmp_path / "upstream.yml", neox_settings(world, tmp_path / "upstream", kisl=None))
    worker = Path(__file__).parent / "upstream_worker.py"
    without = run([str(worker), str(upstream)], tmp_path, tmp_path / "upstream-log")
    assert without.status == 0, without.output[-3000:]
    losses = [re.findall(r"lm_loss(?: value)?: (\S+)", run_.output) for run_ in (with_plugin, without)]
    assert losses[0] == losses[1] and len(losses[0]) >= 6
    assert same_weights(tmp_path / "plain" / "global_step20", tmp_path / "upstream" / "global_step20")
    assert not list((tmp_path / "plain").rglob("kisl.json"))
    zero = {"triples": str(world / "facts.jsonl"), "frequency": 0}
    train(
        write_yaml(tmp_path / "zero.yml", neox_settings(world, tmp_path / "zero", kisl=zero)),
        tmp_path,
        tmp_path / "log",
    )
    np.testing.assert_array_equal(fed_rows(tmp_path / "log"), fed_rows(tmp_path / "upstream-log"))
    assert read_run_card(tmp_path / "zero" / "global_step20").frequency == 0
