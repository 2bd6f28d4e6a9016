"""A run of the embedded engine: start or resume, train, save checkpoints, and write the finished model.

A checkpoint is written beside its final place and then renamed, and `latest` names the newest one, so that a run that
is killed at any moment resumes to the same weights. There is no other state: rows and schedule follow from the YAMLs.
"""

import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import kisl_plugin
from kisl_plugin.checkpoints import (
    LATEST,
    STATE,
    earlier_checkpoint,
    find_start,
    hold_save,
    new_run_id,
    refuse_other_run,
)
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256, sha256_of_files, write_atomically
from kisl_plugin.hookspecs import manager
from kisl_plugin.huggingface import write_model
from kisl_plugin.local import training
from kisl_plugin.local.config import LocalConfig, read_config
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.neox_config import ROUNDING_KEYS
from kisl_plugin.progress import Progress
from kisl_plugin.runcard import CARD_NAME, RunCard, check_resume, describe_optimizer, read_run_card, write_run_card
from kisl_plugin.triples import triples_to_jsonl

__all__ = ["METRICS", "LocalEngine"]

MODEL_FOLDER, METRICS = "hf", "metrics.jsonl"
_SETTINGS = "settings.json"
# A run may resume with other values of these: the data are compared by their content, and the rest changes no more
# than rounding.
_MAY_CHANGE = ROUNDING_KEYS | {"finetune", "kisl", "bf16", "data_path", "vocab_file"}


class LocalEngine:
    """Trains Llama models from GPT-NeoX YAMLs on a CPU or one GPU."""

    def train(self, configs: Sequence[Path]) -> Path:
        """Train to the end, resuming from `load` if it contains a checkpoint; returns the Hugging Face folder.

        Raises:
            InputError: a bad configuration, or a checkpoint of another run.
            KislError: another run saves to the same folder, or it cannot be written to.
        """
        config = read_config(configs)
        if config.unused:
            print(f"not used by the local engine: {', '.join(config.unused)}")
        if config["save"] is None:
            raise InputError(f"{config.where}: save is missing; checkpoints and the finished model are written there")
        folder = Path(config["save"])
        with hold_save(folder, config.where):
            data = read_data(config, print)
            run = _Run(config, data)
            try:
                return run.train()
            except OSError as error:
                raise KislError(
                    f"{folder}: cannot be written ({error}); the last checkpoint is complete: run again to resume"
                ) from None


class _Run:
    def __init__(self, config: LocalConfig, data: RunData) -> None:
        self.config, self.data = config, data
        self.folder = Path(config["save"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu":
            training.keep_freed_memory()
        self.triples_jsonl = triples_to_jsonl(data.plan.triples) if data.plan else ""
        self.card_fields = data.plan.card_fields() if data.plan else None
        self.settings = {key: value for key, value in config.values.items() if key not in _MAY_CHANGE}
        self.settings |= {
            "injected": data.plan is not None,
            "corpus_documents": len(data.corpus),
            "corpus_tokens": int(data.corpus.sizes.sum(dtype="int64")),
            "corpus_sha256": data.corpus.fingerprint(),
            "tokenizer_sha256": sha256(data.tokenizer.to_str()),
        }
        self.model = training.build_model(config, data.tokenizer.get_vocab_size(), data.eod)
        self.parent: dict[str, Any] | None = None
        self.run_id = new_run_id()
        self.start = 0
        state = self._resume()
        self.model.to(device)
        self.optimizer = training.build_optimizer(self.model, config, device)
        if state is not None:
            self.optimizer.load_state_dict(state)

    def train(self) -> Path:
        """Train the steps that are left and write the finished model; returns its folder."""
        config, end, finished = self.config, self.config["train_iters"], self.folder / MODEL_FOLDER
        card, is_written = self.card(end), (finished / "model.safetensors").is_file()
        # Without a card nothing shows that the finished model is this run's; then it is written again.
        if self.start == end and card is not None and is_written and (finished / CARD_NAME).is_file():
            undated = {"created": None, "versions": None}
            if {**read_run_card(finished).to_dict(), **undated} == {**card.to_dict(), **undated}:
                print(f"{finished}: already trained to iteration {end}")
                return finished
        tokens_per_step = config.batch * config["seq_length"]
        metrics = training.Metrics(self.folder / METRICS, self.start, self.loggers())
        progress = Progress("training", end)
        progress.update(self.start)
        schedule = self.data.plan.schedule if self.data.plan else None
        exposures = schedule.exposures_in(0, self.start * config.batch) if schedule else 0
        for report in training.train_steps(self.model, self.optimizer, config, self.data.train, self.start):
            step = report.iteration
            if schedule:
                exposures += schedule.exposures_in((step - 1) * config.batch, step * config.batch)
            progress.update(step, metrics.add(report, tokens_per_step, exposures))
            if step == end or step % config["log_interval"] == 0:
                metrics.write(step * tokens_per_step, exposures)
            if self.data.valid is not None and (step == end or step % config["eval_interval"] == 0):
                loss = training.held_out_loss(self.model, config, self.data.valid)
                metrics.append(iteration=step, held_out_loss=round(loss, 5))
            factor, others = config["checkpoint_factor"], config["extra_save_iters"] or ()
            if step == end or (factor and step % factor == 0) or step in others:
                self.save_checkpoint(step)
        progress.close()
        write_model(finished, self.model, self.data.tokenizer, self.card(end), self.triples_jsonl)
        return finished

    def loggers(self) -> list[Callable[[Mapping[str, float]], object]]:
        """What is called with each line of the metrics: plugins, and TensorBoard where it is there and asked for."""
        loggers: list[Callable[[Mapping[str, float]], object]] = [
            lambda values: manager().hook.kisl_step(run_id=self.run_id, values=values)
        ]
        if self.config["tensorboard_dir"] is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print("tensorboard_dir is set, and tensorboard is not installed: no events are written")
                return loggers
            writer: Any = SummaryWriter(self.config["tensorboard_dir"], purge_step=self.start + 1)

            def write_events(values: Mapping[str, float]) -> None:
                for name in values.keys() - {"iteration"}:
                    writer.add_scalar(f"train/{name}", values[name], values["iteration"])
                writer.flush()

            loggers.append(write_events)
        return loggers

    def _resume(self) -> Any:
        """Load the weights to start from, if any. Returns the optimizer's state where the run goes on from its own."""
        config = self.config
        checkpoint, continues = find_start(
            config["save"], config["load"], finetune=config["finetune"], where=config.where
        )
        if checkpoint is None:
            return None
        if any(checkpoint.glob("*model_states.pt")):
            raise InputError(
                f"{checkpoint}: is a checkpoint of GPT-NeoX, not of this engine; choose another save and load"
            )
        if not (checkpoint / STATE).is_file():
            latest = checkpoint.parent / LATEST
            raise InputError(f"{latest}: names {checkpoint.name!r}, which is missing; {earlier_checkpoint(checkpoint)}")
        try:
            # Tensors only: nothing in the file is executed.
            state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
            weights, optimizer_state = state["model"], state["optimizer"]
            settings = json.loads((checkpoint / _SETTINGS).read_text(encoding="utf-8"))
            iteration = settings.pop("iteration")
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(
                f"{checkpoint}: cannot be read as a checkpoint of the local engine ({reason}); "
                f"{earlier_checkpoint(checkpoint)}"
            ) from None
        card = read_run_card(checkpoint) if (checkpoint / CARD_NAME).is_file() else None
        if continues:
            self.start = iteration
            own_card = self.card(self.start)
            if card is not None and own_card is not None:
                check_resume(card, own_card, str(checkpoint))
                self.parent = dict(card.parent) if card.parent else None
                self.run_id = card.run_id or self.run_id
            for key in sorted(settings.keys() | self.settings.keys()):
                before, now = settings.get(key), self.settings.get(key)
                if before != now:
                    raise InputError(
                        f"{checkpoint}: trained with {key} = {before!r}, now {now!r}; restore the old value to resume, "
                        "or set finetune: true to start a new run from these weights"
                    )
            if self.start < config["train_iters"]:
                print(f"resuming from {checkpoint}, iteration {self.start} of {config['train_iters']}")
        elif card is not None:
            self.parent = card.to_dict()
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{checkpoint}: its weights do not fit this configuration ({reason})") from None
        return optimizer_state if continues else None

    def save_checkpoint(self, iteration: int) -> None:
        """Write `save`/global_step<iteration>, point `latest` at it, and delete what is beyond the newest to keep.

        What `latest` names is never written anew: a kill in between would leave the run without a checkpoint.
        """
        name = f"global_step{iteration}"
        draft, target = self.folder / f"{name}.part", self.folder / name
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, draft / STATE)
        except RuntimeError as error:  # torch's way to say that the disk is full
            raise OSError(f"{draft / STATE}: {str(error).splitlines()[0]}") from None
        write_atomically(draft / _SETTINGS, json.dumps({"iteration": iteration, **self.settings}, indent=2))
        card = self.card(iteration)
        if card is not None:
            refuse_other_run(self.folder, self.run_id)
            write_run_card(draft, card, self.triples_jsonl)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        write_atomically(self.folder / LATEST, name + "\n")
        steps = (int(path.name.removeprefix("global_step")) for path in self.folder.glob("global_step*[0-9]"))
        checkpoints = [self.folder / f"global_step{step}" for step in sorted(steps)]
        keep = self.config["keep_last_n_checkpoints"]
        for path in checkpoints[:-keep] if keep else []:
            if path != target:
                shutil.rmtree(path)

    def card(self, iteration: int) -> RunCard | None:
        """The run card at an iteration; None without a kisl section."""
        if self.card_fields is None:
            return None
        config, shape = self.config, self.model.config
        total, non_embedding = training.count_parameters(self.model)
        return RunCard(
            engine="local",
            model={
                "params": total,
                "params_non_embedding": non_embedding,
                "num_layers": shape.num_hidden_layers,
                "hidden_size": shape.hidden_size,
                "intermediate_size": shape.intermediate_size,
                "num_attention_heads": shape.num_attention_heads,
                "num_kv_heads": shape.num_key_value_heads,
                "vocab_size": shape.vocab_size,
                "precision": config["precision"],
            },
            tokens=iteration * config.batch * config["seq_length"],
            samples=config.samples,
            seq_length=config["seq_length"],
            iteration=iteration,
            train_iters=config["train_iters"],
            data={"corpus": self.settings["corpus_sha256"], "tokenizer": sha256_of_files(config["vocab_file"])},
            optimizer=describe_optimizer(config.values, config.batch),
            run_id=self.run_id,
            parent=self.parent,
            train_seed=config["seed"],
            versions={
                "kisl": kisl_plugin.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
            **self.card_fields,
        )
