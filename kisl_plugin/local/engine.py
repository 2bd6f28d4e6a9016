"""A run of the embedded engine: start or resume, train, save, and write the finished model."""

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaForCausalLM

import kisl_plugin
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.huggingface import write_model
from kisl_plugin.local.checkpoint import Snapshot, check_settings, drop_old, load_checkpoint, save_checkpoint
from kisl_plugin.local.config import Config, read_config
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.local.memory import keep_freed_memory
from kisl_plugin.local.metrics import Metrics
from kisl_plugin.local.model import build_model, parameter_counts
from kisl_plugin.local.optim import build_optimizer
from kisl_plugin.local.start import claim_save, find_start
from kisl_plugin.local.training import StepReport, exposures_of, held_out_loss, train_steps
from kisl_plugin.progress import Progress
from kisl_plugin.runcard import CARD_NAME, RunCard, check_resume, difference, read_run_card
from kisl_plugin.triples import triples_to_jsonl

MODEL_FOLDER, METRICS = "hf", "metrics.jsonl"
# A run may go on with other values of these: the data are compared by their content, the rest changes no more than
# rounding (how a batch is cut into micro batches).
MAY_CHANGE = frozenset(
    "save load finetune log_interval eval_interval eval_iters checkpoint_factor extra_save_iters kisl bf16 data_path "
    "vocab_file keep_last_n_checkpoints train_micro_batch_size_per_gpu gradient_accumulation_steps".split()
)


class LocalEngine:
    """Trains Llama models from GPT-NeoX YAMLs on a CPU or one GPU."""

    def train(self, configs: Sequence[Path], *, label: str = "training", say: Callable[[str], None] = print) -> Path:
        """Train to the end, resuming from `load` if it holds a checkpoint; returns the Hugging Face folder.

        Raises:
            InputError: a bad configuration, or a checkpoint of another run.
        """
        config = read_config(configs)
        if config.without_effect:
            say(f"without effect in the local engine: {', '.join(config.without_effect)}")
        claim_save(config)
        run = _Run(config, read_data(config))
        try:
            return run.to_the_end(label, say)
        except OSError as error:
            raise KislError(
                f"{run.folder}: cannot be written ({error}); the last checkpoint is whole: resume"
            ) from None


class _Run:
    def __init__(self, config: Config, data: RunData) -> None:
        self.config, self.data = config, data
        self.folder = Path(config["save"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model = build_model(config, data.tokenizer.get_vocab_size(), data.eod)
        self.triples_jsonl = triples_to_jsonl(data.plan.triples) if data.plan else ""
        self.injected = data.plan.card_fields() if data.plan else None
        self.settings = _settings(config, data)
        self.parent: dict[str, Any] | None = None
        self.optimizer: torch.optim.Optimizer
        self.start = 0

    def to_the_end(self, label: str, say: Callable[[str], None]) -> Path:
        self._begin(say)
        finished = self.folder / MODEL_FOLDER
        if self.start == self.config["train_iters"] and self._is_written(finished):
            say(f"{finished}: already trained to iteration {self.start}")
            return finished
        metrics = Metrics(self.folder / METRICS, self.start)
        progress = Progress(label, self.config["train_iters"])
        progress.update(self.start)
        exposures = sum(exposures_of(self.data, self.config, step) for step in range(self.start))
        for report in train_steps(self.model, self.optimizer, self.config, self.data, self.start):
            exposures += report.exposures
            metrics.add(report)
            progress.update(report.iteration, metrics.note(self._tokens_a_step(), exposures))
            self._after(report, metrics, exposures)
        progress.close()
        end = self.config["train_iters"]
        if self.start < end:
            self._save(end)
        write_model(finished, self.model, self.data.tokenizer, self._card(end), self.triples_jsonl)
        return finished

    def _begin(self, say: Callable[[str], None]) -> None:
        """Resume, start anew from the weights in `load` (finetune), or start fresh."""
        checkpoint, anew = find_start(self.config)
        if checkpoint is None and self.config["load"] not in (None, self.config["save"]):
            say(f"load ({self.config['load']}) holds no checkpoint: starting from the beginning")
        snapshot = load_checkpoint(checkpoint) if checkpoint is not None else None
        if checkpoint is not None and snapshot is not None:
            if anew:
                self._adopt_parent(checkpoint)
            else:
                self._check_same_run(checkpoint, snapshot)
                self.start = snapshot.iteration
                if self.start < self.config["train_iters"]:
                    say(f"resuming from {checkpoint}, iteration {self.start} of {self.config['train_iters']}")
            _load_weights(self.model, snapshot, checkpoint)
        self.model.to(self.device)
        self.optimizer = build_optimizer(self.model, self.config, self.device)
        if snapshot is not None and not anew:
            self.optimizer.load_state_dict(dict(snapshot.optimizer))

    def _adopt_parent(self, checkpoint: Path) -> None:
        if (checkpoint / CARD_NAME).is_file():
            self.parent = read_run_card(checkpoint).to_dict()

    def _is_written(self, finished: Path) -> bool:
        """Whether the finished model is there and is this run's; without a card nothing can tell."""
        card = self._card(self.start)
        if card is None or not all((finished / name).is_file() for name in (CARD_NAME, "model.safetensors")):
            return False
        found = read_run_card(finished)
        return found.iteration == card.iteration and not difference(found, card)

    def _check_same_run(self, checkpoint: Path, snapshot: Snapshot) -> None:
        card = self._card(snapshot.iteration)
        if card is not None and (checkpoint / CARD_NAME).is_file():
            saved = read_run_card(checkpoint)
            check_resume(saved, card, str(checkpoint))
            self.parent = dict(saved.parent) if saved.parent else None
        check_settings(snapshot.settings, self.settings, str(checkpoint))

    def _tokens_a_step(self) -> int:
        return int(self.config.batch * self.config["seq_length"])

    def _after(self, report: StepReport, metrics: Metrics, exposures: int) -> None:
        config, iteration = self.config, report.iteration
        last = iteration == config["train_iters"]
        if last or iteration % config["log_interval"] == 0:
            metrics.write(iteration * self._tokens_a_step(), exposures)
        if last or iteration % config["eval_interval"] == 0:
            metrics.write_held_out(iteration, held_out_loss(self.model, config, self.data))
        factor = config["checkpoint_factor"]
        if not last and ((factor and iteration % factor == 0) or iteration in (config["extra_save_iters"] or ())):
            self._save(iteration)

    def _save(self, iteration: int) -> None:
        snapshot = Snapshot(iteration, self.model.state_dict(), self.optimizer.state_dict(), self.settings)
        save_checkpoint(self.folder, snapshot, self._card(iteration), self.triples_jsonl, self.config.texts)
        drop_old(self.folder, self.config["keep_last_n_checkpoints"])

    def _card(self, iteration: int) -> RunCard | None:
        config = self.config
        if self.injected is None:
            return None
        return RunCard(
            engine="local",
            model={**_shape(self.model), "precision": config.precision},
            tokens=iteration * self._tokens_a_step(),
            samples=config.samples,
            seq_length=config["seq_length"],
            iteration=iteration,
            train_iters=config["train_iters"],
            parent=self.parent,
            train_seed=config["seed"],
            versions={
                "kisl": kisl_plugin.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
            **self.injected,
        )


def _settings(config: Config, data: RunData) -> dict[str, Any]:
    """What must be the same when the run resumes; hashing the data takes a while, so it is done once."""
    kept = {key: value for key, value in config.values.items() if key not in MAY_CHANGE}
    return {**kept, "precision": config.precision, "injected": data.plan is not None, **data.fingerprint()}


def _load_weights(model: LlamaForCausalLM, snapshot: Snapshot, where: Path) -> None:
    try:
        model.load_state_dict(dict(snapshot.model))
    except RuntimeError as error:
        raise InputError(
            f"{where}: its weights do not fit this configuration ({' '.join(str(error).split())})"
        ) from None


def _shape(model: LlamaForCausalLM) -> dict[str, Any]:
    total, inner = parameter_counts(model)
    config = model.config
    return {
        "params": total,
        "params_non_embedding": inner,
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
    }
