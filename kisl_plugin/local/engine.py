"""A run of the embedded engine: start or resume, train, save, and write the finished model."""

import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaForCausalLM

import kisl_plugin
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import write_atomically
from kisl_plugin.huggingface import write_model
from kisl_plugin.local.config import Config, read_config
from kisl_plugin.local.data import RunData, read_data
from kisl_plugin.local.model import build_model, build_optimizer, parameter_counts
from kisl_plugin.local.training import Metrics, StepReport, exposures_of, held_out_loss, keep_freed_memory, train_steps
from kisl_plugin.neox_config import claim_folder, is_same, refuse_mixed_runs
from kisl_plugin.progress import Progress
from kisl_plugin.runcard import CARD_NAME, RunCard, check_resume, read_run_card, schedule_difference, write_run_card
from kisl_plugin.triples import triples_to_jsonl

# Checkpoints that a kill at any moment leaves whole: written beside, then renamed; `latest` says which is newest.

LATEST = "latest"
STATE, SETTINGS, CONFIGS = "state.pt", "settings.json", "configs"


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on exactly: there is no other state."""

    iteration: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    settings: Mapping[str, Any]


def save_checkpoint(
    folder: Path, snapshot: Snapshot, card: RunCard | None, triples_jsonl: str, configs: Mapping[str, str]
) -> Path:
    """Write `folder`/global_step<iteration> and point `latest` at it.

    What `latest` names must not be written anew: a kill in between would leave it nowhere.
    """
    name = f"global_step{snapshot.iteration}"
    draft, target = folder / f"{name}.part", folder / name
    shutil.rmtree(draft, ignore_errors=True)
    (draft / CONFIGS).mkdir(parents=True)
    try:
        torch.save({"model": snapshot.model, "optimizer": snapshot.optimizer}, draft / STATE)
    except RuntimeError as error:  # torch's way to say that the disk is full
        raise OSError(f"{draft / STATE}: {str(error).splitlines()[0]}") from None
    write_atomically(draft / SETTINGS, json.dumps({"iteration": snapshot.iteration, **snapshot.settings}, indent=2))
    for file, text in configs.items():
        write_atomically(draft / CONFIGS / file, text)
    if card is not None:
        write_run_card(draft, card, triples_jsonl)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    write_atomically(folder / LATEST, name + "\n")
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, or None where there is none yet.

    Raises:
        InputError: `latest` names a checkpoint that is not there.
    """
    try:
        name = (folder / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / LATEST}: cannot be read ({error}); expected the folder of a run") from None
    target = folder / name
    if any(target.glob("*model_states.pt")):
        raise InputError(f"{target}: is a checkpoint of GPT-NeoX, not of this engine; choose another save and load")
    if not (target / STATE).is_file():
        raise InputError(f"{folder / LATEST}: names {name!r}, which is not there; put the name of a checkpoint there")
    return target


def load_checkpoint(checkpoint: Path) -> Snapshot:
    """Read a checkpoint. Tensors only: nothing in the file is executed."""
    try:
        state = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
        settings = json.loads((checkpoint / SETTINGS).read_text(encoding="utf-8"))
        return Snapshot(settings.pop("iteration"), state["model"], state["optimizer"], settings)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"{checkpoint}: cannot be read as a checkpoint of the local engine ({reason})") from None


def check_settings(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse to resume with settings under which the run would not be the same.

    Raises:
        InputError: names the first that differs, with both values.
    """
    for key in sorted(saved.keys() | now.keys()):
        if saved.get(key) != now.get(key):
            raise InputError(
                f"{where}: trained with {key} = {saved.get(key)!r}, now {now.get(key)!r}; restore the old value to "
                "resume, or set finetune: true to start a new run from these weights"
            )


def drop_old(folder: Path, keep: int | None) -> None:
    """Delete all but the newest `keep` checkpoints (all are kept without it); never the one that `latest` names."""
    found = sorted(folder.glob("global_step*[0-9]"), key=lambda path: int(path.name.removeprefix("global_step")))
    latest = latest_checkpoint(folder)
    for path in found[:-keep] if keep else []:
        if path != latest:
            shutil.rmtree(path)


# Where a run begins: fresh, from its own checkpoint, or from the weights of another run.


def find_start(config: Config) -> tuple[Path | None, bool]:
    """The checkpoint to begin with (None: fresh), and whether it is another run's, whose weights alone count.

    An interrupted continued run resumes from its own `save`. A run never begins in a `save` that holds another's
    checkpoints, where the two would get mixed up.

    Raises:
        InputError: finetune has nothing to start from, or `save` is another run's.
    """
    save, load, finetune = Path(config["save"]), config["load"], config["finetune"]
    own = latest_checkpoint(save)
    if own is not None and finetune != is_same(load, save):
        return own, False
    parent = latest_checkpoint(Path(load)) if load is not None else None
    refuse_mixed_runs(save, load, finetune=finetune, own=own, parent=parent, where=config.where)
    return parent, finetune


def claim_save(config: Config) -> None:
    """Make `save`, before any time is spent.

    Raises:
        InputError: it is missing, is no folder, or cannot be written.
    """
    if config["save"] is None:
        raise InputError(f"{config.where}: save is missing; checkpoints and the finished model are written there")
    claim_folder(Path(config["save"]), config.where)


# A run of the embedded engine: start or resume, train, save, and write the finished model.

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
        return found.iteration == card.iteration and not schedule_difference(found, card)

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
