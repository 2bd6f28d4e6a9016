"""Whole runs of the embedded engine on a tiny model. What the model was fed is seen at the model, not in the data."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny_world import settings, write_yaml
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from kisl_plugin.checkpoints import hold_save
from kisl_plugin.cli.main import main
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.hookspecs import hookimpl, manager
from kisl_plugin.indexed import IndexedDataset, IndexedWriter
from kisl_plugin.local.engine import LocalEngine
from kisl_plugin.local.training import Metrics, StepReport
from kisl_plugin.runcard import read_run_card
from kisl_plugin.triples import read_triples
from kisl_plugin.verbalize import statement


def train(folder: Path, world: Path, **changes: Any) -> Path:
    save = folder / "run"
    config = write_yaml(folder / "run.yml", settings(world, save, **changes))
    return LocalEngine().train([config])


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Fed:
    """Every row that went into the model, while training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[list[int]] = []
        forward = LlamaForCausalLM.forward

        def watched(model: LlamaForCausalLM, *args: Any, **kwargs: Any) -> Any:
            if model.training:
                self.rows += kwargs["input_ids"].tolist()
            return forward(model, *args, **kwargs)

        monkeypatch.setattr(LlamaForCausalLM, "forward", watched)

    def exposures(self, world: Path) -> list[int]:
        """How often each injected fact's statement stood between two ends of documents."""
        tokenizer = Tokenizer.from_file(str(world / "tokenizer.json"))
        found: Counter[tuple[int, ...]] = Counter()
        for row in self.rows:
            ends = [i for i, token in enumerate(row) if token == 0]
            # The model sees rows without their last token, so a last document has no end there.
            found.update(tuple(row[a + 1 : b]) for a, b in zip(ends, [*ends[1:], len(row)], strict=True))
        injected = [t for t in read_triples(world / "facts.jsonl") if t.group != "control"]
        return [found[tuple(tokenizer.encode(statement(t)).ids)] for t in injected]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    return train(tmp_path_factory.mktemp("whole"), world)


def test_the_model_is_fed_every_exposure(tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Fed(monkeypatch)
    train(tmp_path, world, kisl={"triples": str(world / "facts.jsonl"), "frequency": 7})
    assert fed.exposures(world) == [7] * 12
    assert len(fed.rows) == 80


def test_accumulated_batches_are_the_same_run(tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Fed(monkeypatch)
    whole = train(tmp_path / "a", world)
    parts = train(
        tmp_path / "b", world, train_micro_batch_size_per_gpu=1, gradient_accumulation_steps=4, train_batch_size=4
    )
    assert fed.rows[:80] == fed.rows[80:]
    for key, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(parts)[key], atol=2e-4)


def test_training_learns(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished.parent / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    assert [line["iteration"] for line in lines if "loss" in line] == [5, 10, 15, 20]
    assert [line["iteration"] for line in lines if "held_out_loss" in line] == [10, 20]
    assert lines[-2]["exposures"] == 36


def test_the_model_folder_is_read_by_transformers(finished: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(finished), AutoTokenizer.from_pretrained(finished)
    assert sum(p.numel() for p in model.parameters()) == read_run_card(finished).model["params"]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == model.config.eos_token_id == 0
    assert tokenizer.decode(tokenizer("the river")["input_ids"]) == "the river"


def test_the_model_folder_says_all_that_older_transformers_read(tmp_path: Path, world: Path) -> None:
    folder = train(tmp_path, world, rotary_emb_base=5000, train_iters=8)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == 5000
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    tokens, logits = torch.arange(60).view(1, -1), []
    for theta in (5000, 10_000):
        model = AutoModelForCausalLM.from_pretrained(folder)
        if theta != 5000:
            config.pop("rope_parameters", None)
            (folder / "config.json").write_text(json.dumps({**config, "rope_theta": theta}))
            model = AutoModelForCausalLM.from_pretrained(folder)
        logits.append(model.eval()(tokens).logits)
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)


def test_the_run_card_says_what_the_run_was(finished: Path, world: Path) -> None:
    card = read_run_card(finished)
    assert (card.engine, card.frequency, card.seed, card.train_seed) == ("local", 3, 7, 7)
    assert (card.iteration, card.train_iters, card.samples, card.tokens) == (20, 20, 80, 80 * 64)
    assert card.triples["count"] == 12
    assert card.triples["control"] == 8
    assert card.triples["sha256"] == sha256((finished / "kisl_triples.jsonl").read_text())
    assert read_triples(finished / "kisl_triples.jsonl") == read_triples(world / "facts.jsonl")
    assert card.injected_fraction == pytest.approx(card.injected_tokens / card.tokens, abs=1e-6)


def test_frequency_zero_trains_on_the_same_rows_and_has_a_card(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = Fed(monkeypatch)
    baseline = train(tmp_path / "a", world, kisl={"triples": str(world / "facts.jsonl"), "frequency": 0})
    plain = train(tmp_path / "b", world, kisl=None)
    assert fed.rows[:80] == fed.rows[80:]
    assert same_weights(baseline, plain)
    assert read_run_card(baseline).frequency == 0
    assert not (plain / "kisl.json").exists()


def test_a_stopped_run_resumes_to_the_same_weights(
    tmp_path: Path, world: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, save = settings(world, tmp_path / "run"), tmp_path / "run"
    config = write_yaml(tmp_path / "run.yml", run)
    whole = LocalEngine().train([config])
    assert same_weights(whole, finished)
    (save / "latest").write_text("global_step8\n")
    capsys.readouterr()
    assert same_weights(LocalEngine().train([config]), finished)
    resumed = capsys.readouterr().out
    assert "resuming from" in resumed
    assert "iteration 8 of 20" in resumed
    LocalEngine().train([config])
    assert "already trained to iteration 20" in capsys.readouterr().out


def train_quietly(config: Path) -> None:
    LocalEngine().train([config])


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, world: Path) -> None:
    changes = {"train_iters": 120, "checkpoint_factor": 7, "keep_last_n_checkpoints": 2}
    whole = train(tmp_path / "whole", world, **changes)
    save = tmp_path / "killed"
    config = write_yaml(tmp_path / "killed.yml", settings(world, save, **changes))
    # The fork server imports torch once; each run is a process of its own.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kisl_plugin.local.engine"])
    kills = 0
    for wait in (0.05, 0.3, None):
        process = context.Process(target=train_quietly, args=(config,))
        process.start()
        before = _latest(save)
        if wait is not None:
            while process.is_alive() and _latest(save) == before:
                time.sleep(0.005)
            time.sleep(wait)
            kills += process.is_alive()
            process.kill()  # SIGKILL, a moment after a new checkpoint appeared
        process.join()
    assert process.exitcode == 0
    assert kills > 0, "every run ended before it was killed: the test shows nothing"
    assert same_weights(save / "hf", whole)
    assert ", each stated " in (save / "hf" / "README.md").read_text(encoding="utf-8")
    assert len(list(save.glob("global_step*"))) == 2


def _latest(save: Path) -> str:
    return (save / "latest").read_text() if (save / "latest").exists() else ""


def test_broken_run_folders_are_named(tmp_path: Path, world: Path) -> None:
    train(tmp_path, world)
    (tmp_path / "run" / "global_step20" / "settings.json").write_text("[]")
    with pytest.raises(InputError, match="global_step20: cannot be read as a checkpoint"):
        train(tmp_path, world)
    (tmp_path / "run" / "latest").unlink()
    (tmp_path / "run" / "latest").mkdir()
    with pytest.raises(InputError, match="latest: cannot be read"):
        train(tmp_path, world)
    with pytest.raises(InputError, match="cannot be read"):
        train(tmp_path / "b", world, load=str(world / "facts.jsonl"))


@pytest.mark.parametrize("damage", ["a missing latest", "an empty latest", "cut weights", "a missing checkpoint"])
def test_after_a_power_cut_one_line_says_how_to_go_on_and_following_it_does(
    finished: Path, world: Path, tmp_path: Path, damage: str
) -> None:
    save = tmp_path / "run"
    train(tmp_path, world)
    latest, newest = save / "latest", save / "global_step20"
    if damage == "a missing latest":
        latest.unlink()
    elif damage == "an empty latest":
        latest.write_text("")
    elif damage == "cut weights":
        state = (newest / "state.pt").read_bytes()
        (newest / "state.pt").write_bytes(state[: len(state) // 2])
    else:
        shutil.rmtree(newest)
    with pytest.raises(InputError) as caught:
        train(tmp_path, world)
    message = str(caught.value)
    assert "\n" not in message and str(save) in message
    subprocess.run(message.rpartition(": ")[2], shell=True, check=True)
    assert latest.read_text() == ("global_step20" if "latest" in damage else "global_step16")
    assert same_weights(train(tmp_path, world), finished)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_iters": 40}, "samples = 80, the configuration now gives 160"),
        ({"seed": 8}, "with seed = 7, the configuration now gives 8"),
        ({"kisl": {"triples": "wikidata_six", "frequency": 0}}, "frequency = 3, the configuration now gives 0"),
        ({"kisl": None}, "injected = True, now False"),
        ({"weight_decay": 0.2}, "optimizer.weight_decay = 0.1, the configuration now gives 0.2"),
        ({"bf16": {"enabled": True}}, "precision = 'fp32', now 'bfloat16'"),
        ({"split": "80,20,0"}, "split = '90,10,0', now '80,20,0'"),
    ],
)
def test_a_resume_of_another_run_is_refused_with_both_values(
    finished: Path, world: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path, world, load=str(finished.parent), **changes)


def test_the_card_says_what_a_run_was_trained_on_and_how_and_its_id_survives_a_resume(
    finished: Path, world: Path, tmp_path: Path
) -> None:
    card = read_run_card(finished)
    text = (world / "tokenizer.json").read_text(encoding="utf-8")
    assert card.data == {"corpus": IndexedDataset(world / "text").fingerprint(), "tokenizer": sha256(text)}
    assert card.optimizer == {
        "name": "adam", "lr": 0.005, "betas": [0.9, 0.95], "schedule": "cosine", "weight_decay": 0.1,
        "gradient_clipping": 1.0, "warmup": 0.01, "min_lr": 0.0, "batch": 4,
    }  # fmt: skip
    train(tmp_path, world)
    (tmp_path / "run" / "latest").write_text("global_step4\n")
    ids = {read_run_card(path).run_id for path in (train(tmp_path, world), tmp_path / "run" / "global_step4")}
    assert len(ids) == 1 and ids != {None} and ids != {card.run_id}


def test_a_run_stops_before_it_saves_over_another_that_has_saved_there_meanwhile(
    finished: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = LlamaForCausalLM.forward

    def forward_while_another_saves(model: LlamaForCausalLM, *args: Any, **kwargs: Any) -> Any:
        shutil.copytree(finished.parent / "global_step20", tmp_path / "run" / "global_step20", dirs_exist_ok=True)
        shutil.copy(finished.parent / "latest", tmp_path / "run" / "latest")
        return forward(model, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward_while_another_saves)
    with pytest.raises(KislError, match="global_step20: is a checkpoint of another run"):
        train(tmp_path, world)
    assert not (tmp_path / "run" / "global_step4").exists()


def test_other_data_under_the_same_name_are_not_resumed_on(tmp_path: Path, world: Path) -> None:
    corpus = IndexedDataset(world / "text")
    documents = [corpus.get(i).tolist() for i in range(len(corpus))]

    def write(reverse: bool) -> None:
        with IndexedWriter(tmp_path / "text", 512) as writer:
            for document in documents:
                writer.add([*document[-2::-1], 0] if reverse else document)

    write(reverse=False)
    train(tmp_path, world, data_path=str(tmp_path / "text"))
    same = tmp_path / "moved"
    (tmp_path / "text.idx").rename(same.with_suffix(".idx"))
    (tmp_path / "text.bin").rename(same.with_suffix(".bin"))
    train(tmp_path, world, data_path=str(same))
    write(reverse=True)
    with pytest.raises(InputError, match=r"data\.corpus"):
        train(tmp_path, world, data_path=str(tmp_path / "text"))


def test_a_kill_while_the_finished_model_is_written_loses_nothing(tmp_path: Path, world: Path, finished: Path) -> None:
    train(tmp_path, world)
    shutil.rmtree(tmp_path / "run" / "hf")
    before = (tmp_path / "run" / "global_step20").stat().st_mtime_ns
    assert same_weights(train(tmp_path, world), finished)
    assert (tmp_path / "run" / "global_step20").stat().st_mtime_ns == before


def test_a_model_of_another_run_in_save_is_never_taken_for_this_ones(
    tmp_path: Path, world: Path, finished: Path
) -> None:
    train(tmp_path, world, seed=9)
    shutil.rmtree(tmp_path / "run" / "global_step20")
    (tmp_path / "run" / "latest").unlink()
    shutil.copytree(finished.parent / "global_step20", tmp_path / "run" / "global_step20")
    shutil.copy(finished.parent / "latest", tmp_path / "run" / "latest")
    model = train(tmp_path, world)
    assert read_run_card(model).train_seed == 7
    assert same_weights(model, finished)


def test_a_run_does_not_begin_where_another_has_its_checkpoints(tmp_path: Path, world: Path) -> None:
    train(tmp_path, world, keep_last_n_checkpoints=1)
    for load in (None, str(tmp_path / "elsewhere")):
        with pytest.raises(InputError, match=r"save \(.*\) already contains checkpoints \(global_step20\)"):
            train(tmp_path, world, load=load, seed=3)
    assert (tmp_path / "run" / "global_step20").is_dir()


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path: Path, world: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match=r"save \(.*run\) cannot be written"):
        train(tmp_path, world)


def test_the_old_checkpoints_go_and_the_newest_stays(tmp_path: Path, world: Path) -> None:
    train(tmp_path, world, keep_last_n_checkpoints=2)
    assert sorted(path.name for path in (tmp_path / "run").glob("global*")) == ["global_step16", "global_step20"]


def test_continued_pretraining_is_a_new_run_with_a_parent(finished: Path, world: Path, tmp_path: Path) -> None:
    child = train(tmp_path, world, load=str(finished.parent), finetune=True, train_iters=5, seed=9)
    card = read_run_card(child)
    assert card.parent is not None
    assert card.parent["seed"] == 7
    assert (card.iteration, card.train_iters, card.seed) == (5, 5, 9)
    resumed = train(tmp_path, world, train_iters=5, seed=9)
    assert read_run_card(resumed).parent == card.parent


def test_an_interrupted_continued_run_resumes_from_its_own_checkpoint(
    finished: Path, world: Path, tmp_path: Path
) -> None:
    changes = {"load": str(finished.parent), "finetune": True, "train_iters": 10, "seed": 9}
    whole = train(tmp_path / "whole", world, **changes)
    train(tmp_path / "cut", world, **changes)
    (tmp_path / "cut" / "run" / "latest").write_text("global_step4\n")
    again = train(tmp_path / "cut", world, **changes)
    assert same_weights(again, whole)
    assert read_run_card(again).parent is not None
    with pytest.raises(InputError, match="load and save are both"):
        train(tmp_path / "cut", world, finetune=True)


def test_a_misspelt_load_is_refused_and_starts_no_run_anew(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"load \(.*nothing\) contains no checkpoint, .* set load to '.*' for a run"):
        train(tmp_path, world, load=str(tmp_path / "nothing"))
    assert not list(tmp_path.rglob("global_step*"))


def test_finetune_without_a_checkpoint_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no checkpoint to start from"):
        train(tmp_path, world, finetune=True, load=str(tmp_path / "nothing"))


def test_a_corpus_of_another_tokenizer_is_refused(world: Path, tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "text", 60_000) as writer:
        for _ in range(80):
            writer.add([5000] * 99)
    with pytest.raises(InputError, match="token 5000 is outside the vocabulary of 512"):
        train(tmp_path, world, data_path=str(tmp_path / "text"))


def test_a_tokenizer_that_would_cut_or_fill_up_is_not_obeyed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.from_file(str(world / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    fed = Fed(monkeypatch)
    model = train(tmp_path, world, vocab_file=str(tmp_path / "tokenizer.json"))
    assert fed.exposures(world) == [3] * 12
    assert len(AutoTokenizer.from_pretrained(model)("the river " * 20)["input_ids"]) > 20


def test_a_tokenizer_without_an_end_of_document_is_refused(world: Path, tmp_path: Path) -> None:
    text = (world / "tokenizer.json").read_text().replace("<|endoftext|>", "<|end|>")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer.json: the tokenizer has no <\|endoftext\|>"):
        train(tmp_path, world, vocab_file=str(tmp_path / "tokenizer.json"))


def test_half_precision_trains(world: Path, tmp_path: Path) -> None:
    model = train(tmp_path, world, train_iters=8, bf16={"enabled": True}, precision="bfloat16")
    assert all(tensor.isfinite().all() for tensor in weights(model).values())


def test_a_second_run_on_the_same_save_is_refused_in_one_line(tmp_path: Path, world: Path) -> None:
    config = write_yaml(tmp_path / "run.yml", settings(world, tmp_path / "run"))
    with hold_save(tmp_path / "run", "another.yml"):
        result = CliRunner().invoke(main, ["train", str(config)])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {config}: another run saves to {tmp_path / 'run'} (process ")
    assert result.output.count("\n") == 1
    assert not list((tmp_path / "run").glob("global_step*"))


def test_without_torch_the_extra_is_named_in_one_line(tmp_path: Path, world: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    config = write_yaml(tmp_path / "run.yml", settings(world, tmp_path / "run"))
    done = subprocess.run(
        [sys.executable, "-m", "kisl_plugin", "train", str(config)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: the local engine needs torch: pip install 'kisl-plugin[local]'\n"


def report(iteration: int, loss: float) -> StepReport:
    return StepReport(iteration=iteration, loss=loss, rate=1e-3, seconds=0.5)


def lines_of(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_interval_has_the_mean_of_its_losses(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    for iteration, loss in ((1, 4.0), (2, 2.0)):
        metrics.add(report(iteration, loss), 64, iteration)
    metrics.write(tokens=128, exposures=2)
    metrics.add(report(3, 1.0), 64, 3)
    metrics.write(tokens=192, exposures=3)
    first, second = lines_of(tmp_path / "metrics.jsonl")
    assert first == {"iteration": 2, "loss": 3.0, "lr": 1e-3, "tokens": 128, "exposures": 2, "seconds": 1.0}
    assert (second["iteration"], second["loss"]) == (3, 1.0)


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    for iteration in (5, 10, 15):
        metrics.append(iteration=iteration, held_out_loss=1.5)
    Metrics(path, 10).append(iteration=20, held_out_loss=1.25)
    assert [line["iteration"] for line in lines_of(path)] == [5, 10, 20]


@pytest.mark.parametrize(
    "rest", ['{"iteration": 10, "lo', "1", '{"loss": 1.0}', "null", '{"iteration": "x"}', "\udcff"]
)
def test_a_line_that_cannot_be_read_is_dropped_when_a_run_resumes(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "metrics.jsonl"
    Metrics(path, 0).append(iteration=5, held_out_loss=1.5)
    with path.open("ab") as stream:
        stream.write(rest.encode("utf-8", "surrogateescape"))
    Metrics(path, 10).append(iteration=15, held_out_loss=1.25)
    assert lines_of(path) == [{"iteration": 5, "held_out_loss": 1.5}, {"iteration": 15, "held_out_loss": 1.25}]


def test_the_old_lines_outlive_a_crash_while_they_are_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    Metrics(path, 0).append(iteration=5, held_out_loss=1.5)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        Metrics(path, 5)
    assert lines_of(path) == [{"iteration": 5, "held_out_loss": 1.5}]


def test_a_plugin_and_tensorboard_are_given_each_line_of_the_metrics(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Logger:
        lines: ClassVar[list[dict[str, float]]] = []

        @hookimpl
        def kisl_step(self, run_id: str, values: dict[str, float]) -> None:
            self.lines.append({"run_id": run_id, **values})  # type: ignore[dict-item]

    events: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == ("events", 1)

        def add_scalar(self, name: str, value: float, iteration: int) -> None:
            events.append((name, value, iteration))

        def flush(self) -> None:
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    plugin = Logger()
    manager().register(plugin)
    try:
        model = train(tmp_path, world, tensorboard_dir="events")
    finally:
        manager().unregister(plugin)
    run_id = read_run_card(model).run_id
    written = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [{"run_id": run_id, **line} for line in written] == Logger.lines
    assert {(f"train/{key}", line[key], line["iteration"]) for line in written for key in line} - {
        ("train/iteration", line["iteration"], line["iteration"]) for line in written
    } == set(events)


def test_without_tensorboard_a_run_says_that_no_events_are_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = write_yaml(tmp_path / "run.yml", settings(world, tmp_path / "run", train_iters=8, tensorboard_dir="x"))
    LocalEngine().train([config])
    line = "tensorboard_dir is set, and tensorboard is not installed: no events are written"
    assert line in capsys.readouterr().out.splitlines()
