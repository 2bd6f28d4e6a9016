"""The demo's steps: prepare, train at every frequency, probe, fit, and write the page. A second call resumes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from kisl_plugin.demo.prepare import DemoData, prepare, read_stamp
from kisl_plugin.demo.scale import Scale, claim
from kisl_plugin.fit import FitReport, fit_results, write_report
from kisl_plugin.local.engine import METRICS, LocalEngine
from kisl_plugin.probe.run import Probed, probe_models
from kisl_plugin.resources import resource
from kisl_plugin.runcard import RunCard, read_run_card, write_atomically

QUESTION, STATEMENT = "kisl_wikidata", "kisl_wikidata_statement"
TASKS = (QUESTION, STATEMENT)
Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoRun:
    """One trained and probed model. `scores`: task → metric → (share right, items)."""

    frequency: int
    card: RunCard
    held_out_loss: float
    scores: dict[str, dict[str, tuple[float, int]]]


@dataclass(frozen=True)
class DemoReport:
    """What the demo measured."""

    data: DemoData
    runs: list[DemoRun]
    fits: dict[str, FitReport]


def run_demo(out: Path, seed: int, scale: Scale, say: Say) -> DemoReport:
    """Run every step that is not done yet; everything is written below `out`.

    Raises:
        InputError: `out` holds a demo of another seed or size.
    """
    # Too small a model for more threads; and two give every machine the same sums.
    torch.set_num_threads(2)
    claim(out, seed, scale)
    say("1/4 data: facts, and the docstrings of the installed packages")
    data = prepare(out / "data", seed, scale)
    say(f"    {data.found()}")
    say(f"2/4 training at F = {', '.join(map(str, scale.frequencies))}")
    models = {f: _train(out, data, f, seed, scale, say) for f in scale.frequencies}
    say(f"3/4 probing with lm_eval: {' and '.join(TASKS)}")
    _probe(out, list(models.values()), say)
    say("4/4 fitting")
    fits = {task: fit_results([out / "results"], task=task) for task in TASKS}
    for task, fit in fits.items():
        write_report(fit, out / "report" / task)
    return DemoReport(data, [_outcome(out, f, model) for f, model in models.items()], fits)


def _train(out: Path, data: DemoData, frequency: int, seed: int, scale: Scale, say: Say) -> Path:
    folder = _run_folder(out, frequency)
    config = out / "configs" / f"f{frequency:03d}.yml"
    config.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config, _yaml(out, data, frequency, seed, scale))
    return LocalEngine().train([config], label=f"    F = {frequency:>3}", say=_only_news(folder, say))


def _only_news(folder: Path, say: Say) -> Say:
    """The demo's YAML always holds keys without effect here; once is in the docs, not eight times on the screen."""

    def filtered(line: str) -> None:
        if not line.startswith("without effect"):
            say(f"    {line.replace(str(folder), folder.name)}")

    return filtered


def _yaml(out: Path, data: DemoData, frequency: int, seed: int, scale: Scale) -> str:
    base = yaml.safe_load((resource("neox_configs") / "demo.yml").read_text(encoding="utf-8"))
    folder = str(_run_folder(out, frequency))
    base.update(
        train_iters=scale.train_iters,
        seed=seed,
        vocab_file=str(data.tokenizer),
        data_path=str(data.corpus),
        save=folder,
        load=folder,
        kisl={**base["kisl"], "triples": str(data.facts), "frequency": frequency},
    )
    return yaml.safe_dump(base, sort_keys=False)


def _run_folder(out: Path, frequency: int) -> Path:
    return out / "runs" / f"f{frequency:03d}"


def _probe(out: Path, models: Sequence[Path], say: Say) -> None:
    waiting = [model for model in models if _probed(model) is None]
    if len(waiting) < len(models):
        say(f"    {len(models) - len(waiting)} of {len(models)} models are probed already")

    def keep(probed: Probed) -> None:
        scores = {
            task: {name: [accuracy.value, accuracy.count] for name, accuracy in metrics.items()}
            for task, metrics in probed.scores.items()
        }
        created = read_run_card(probed.model).created
        write_atomically(_stamp(probed.model), json.dumps({"created": created, "scores": scores}))
        question, statement = (probed.scores[task]["acc"].value for task in TASKS)
        say(f"    {probed.model.parent.name}: question {question:.3f} · statement {statement:.3f}")

    if waiting:
        probe_models(waiting, out / "results", tasks=TASKS, on_done=keep)


def _stamp(model: Path) -> Path:
    return model.parent / "probed.json"


def _probed(model: Path) -> dict[str, Any] | None:
    """The scores of an earlier call, if they are this very model's."""
    found = read_stamp(_stamp(model))
    return found["scores"] if found.get("created") == read_run_card(model).created else None


def _outcome(out: Path, frequency: int, model: Path) -> DemoRun:
    lines = (_run_folder(out, frequency) / METRICS).read_text(encoding="utf-8").splitlines()
    held_out = [record["held_out_loss"] for record in map(json.loads, lines) if "held_out_loss" in record]
    scores = {
        task: {name: (value, count) for name, (value, count) in metrics.items()}
        for task, metrics in (_probed(model) or {}).items()
    }
    return DemoRun(frequency, read_run_card(model), held_out[-1], scores)
