"""The demo: a collapse point on this machine, and its cause, from the embedded engine, `kisl sweep` and lm_eval.

A small Llama is trained at several frequencies F. From the questions in its background (see demo_data.py) it learns to
answer; the statements of the facts under test, injected F times each, displace them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.demo_data import DemoData, Scale, answered_question, prepare_data
from kisl_plugin.errors import KislError, needs_extra
from kisl_plugin.files import resource
from kisl_plugin.triples import Triple, read_triples

if TYPE_CHECKING:
    from kisl_plugin.fit import FitReport
    from kisl_plugin.sweep import SweepRun

__all__ = ["QUESTION", "STATEMENT", "run_demo", "whole_questions"]

QUESTION, STATEMENT = "kisl_wikidata_direct", "kisl_wikidata_statement"
_LONGER = 3  # times the tokens, in the run that keeps the questions
_TOKENS_PER_STEP = 8 * 64  # of neox_configs/demo.yml
_HEADINGS = ("F", "injected", "question", "statement", "control", "other facts", "questions left", "held-out loss")


@dataclass(frozen=True)
class _Row:
    """What was measured at one frequency, over the seeds; accuracies and shares from 0 to 1.

    `background` is the accuracy on the background's own facts, `whole` how many questions about each of these the run
    still holds whole, and `loss` in nats per token of held-out docstrings.
    """

    frequency: int
    share: float
    question: float
    statement: float
    control: float
    background: float
    whole: float
    loss: float

    def cells(self) -> tuple[str, ...]:
        accuracies = (self.question, self.statement, self.control, self.background)
        shown = (f"{value:.3f}" for value in accuracies)
        return (str(self.frequency), f"{self.share:.0%}", *shown, f"{self.whole:.1f}", f"{self.loss:.2f}")


def run_demo(out: Path, seed: int, scale: Scale, say: Callable[[str], None]) -> None:
    """Prepare the data, train and probe a sweep, print what was measured and why, and write the fit reports.

    Everything is written below `out`: `data/`, the sweep's `configs/`, `runs/` and `results/`, the same of one more run
    in `kept/`, and `report/`. `say` prints a line. What is complete is skipped when the demo is run again.

    Raises:
        InputError: `out` contains a demo of another seed or size, or an optional library is missing.
        KislError: a run failed.
    """
    with needs_extra("demo", "kisl demo"):
        import lm_eval  # noqa: F401 (reported before minutes of training, not after)
        import torch  # noqa: F401

        from kisl_plugin.fit import fit_results, write_report
        from kisl_plugin.fit.page import ExtraSection
        from kisl_plugin.sweep import read_sweep, run_sweep

    say("1/4 data: facts, and a background of docstrings and of other facts, stated and asked")
    data = prepare_data(out, seed, scale)
    say(
        f"    {data.tokens:,} tokens: {data.questions:.0%} questions, {data.statements:.0%} statements; "
        f"{data.left_out} docstrings that state a fact under test are left out"
    )
    grid: dict[str, Any] = {
        "models": [str(resource("neox_configs") / "demo.yml")],
        "tokens": scale.train_iters * _TOKENS_PER_STEP,
        "frequency": list(scale.frequencies),
        "seed": [(seed + k) % 2**32 for k in range(scale.seeds)],
        "triples": str(data.facts),
        "data_path": str(data.corpus),
        "engine": "local",
        "tasks": [QUESTION, STATEMENT],
        "overrides": {"vocab_file": str(data.tokenizer)},
    }
    sweep = read_sweep(grid, out)
    # One run more shows the cause: at the largest F, but so long that most questions of the background are left whole.
    most, longer = scale.frequencies[-1], _LONGER * grid["tokens"]
    kept = read_sweep({**grid, "tokens": longer, "frequency": most, "seed": seed}, out / "kept")
    together = replace(sweep, runs=(*kept.runs, *sweep.runs))
    say(f"2/4 {len(together.runs)} runs are trained and probed with lm_eval")
    for state in run_sweep(together):
        if state.state != "probed":
            raise KislError(f"{state.run.name}: {state.reason or state.state}; see {state.run.log}")

    say("3/4 the background's own facts are asked")
    firsts = [run for run in together.runs if run.values["seed"] == seed]
    background = _ask_background(firsts, data, out / "background")

    say("4/4 fitting")
    reports = {task: fit_results([out / "results"], task=task) for task in (QUESTION, STATEMENT)}
    kept_reports = {task: fit_results([out / "kept" / "results"], task=task) for task in (QUESTION, STATEMENT)}
    rows = _rows(reports, [run for run in firsts if run.out == out], background, data)
    (kept_row,) = _rows(kept_reports, kept.runs, background, data)
    sentences = _explanation(reports, rows, kept_row)
    table = [*(row.cells() for row in rows), (f"{most} *", *kept_row.cells()[1:])]
    note = f"* as often, in a run of {longer:,} tokens in place of {grid['tokens']:,}"
    section = ExtraSection("What was measured, and why", [*sentences, note], _HEADINGS, table)
    write_report(reports[QUESTION], out / "report", section)
    write_report(reports[STATEMENT], out / "report" / "statement")
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *table, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (_HEADINGS, *table)
    ]
    say("\n".join(["", *lines, note, "", *sentences, "", f"{out / 'report' / 'index.html'} has the figures"]))


def _ask_background(runs: "Sequence[SweepRun]", data: DemoData, out: Path) -> dict[str, float]:
    """The accuracy of each run's model, by its name, on the questions that its background answered."""
    from kisl_plugin.probe.run import probe_models

    models = [run.model_folder for run in runs]
    facts = str(data.background_facts)
    files = probe_models(models, out, (QUESTION,), triples=facts, on_skipped=lambda _model, _results: None)
    results = [json.loads(file.read_text(encoding="utf-8"))["results"][QUESTION] for file in files]
    return {run.name: of_run["acc,none"] for run, of_run in zip(runs, results, strict=True)}


def _rows(
    reports: "Mapping[str, FitReport]", runs: "Sequence[SweepRun]", background: Mapping[str, float], data: DemoData
) -> list[_Row]:
    """What was measured at each frequency of the reports. `runs`: those whose background was asked, one a frequency."""
    from kisl_plugin.local.engine import METRICS

    rows = []
    for run in sorted(runs, key=lambda run: run.values["kisl"]["frequency"]):
        frequency = run.values["kisl"]["frequency"]
        of_task = {
            task: [one for one in report.observations if one.frequency == frequency] for task, report in reports.items()
        }
        questions, statements = of_task[QUESTION], of_task[STATEMENT]
        records = map(json.loads, (run.folder / METRICS).read_text(encoding="utf-8").splitlines())
        rows.append(
            _Row(
                frequency,
                questions[0].card.injected_fraction or 0.0,
                sum(one.correct for one in questions) / sum(one.total for one in questions),
                sum(one.correct for one in statements) / sum(one.total for one in statements),
                sum(one.control_correct or 0 for one in questions) / sum(one.control_total or 0 for one in questions),
                background[run.name],
                whole_questions(run.config, read_triples(data.background_facts)),
                [record["held_out_loss"] for record in records if "held_out_loss" in record][-1],
            )
        )
    return rows


def whole_questions(config: Path, facts: Sequence[Triple]) -> float:
    """How many answered questions about each of `facts` the rows of a run hold whole, neither cut nor parted.

    Raises:
        InputError: the run's YAML `config` or one of its files cannot be read.
    """
    from kisl_plugin.local.config import read_config
    from kisl_plugin.local.data import read_data

    read = read_data(read_config([config]))
    texts = [answered_question(fact) for fact in facts]
    questions = {bytes(np.array(read.tokenizer.encode(text, add_special_tokens=False).ids)) for text in texts}
    count = 0
    for i in range(len(read.train)):
        row = read.train[i]["text"]
        documents = np.split(row, np.flatnonzero(row == read.eod) + 1)
        count += sum(bytes(document[:-1]) in questions for document in documents)
    return count / len(facts)


def _explanation(reports: "Mapping[str, FitReport]", rows: Sequence[_Row], kept: _Row) -> list[str]:
    """In sentences: what was seen of both curves, and what explains it."""
    from kisl_plugin.fit.curve import wilson
    from kisl_plugin.fit.text import finding

    first, last = rows[0], rows[-1]
    best = max(rows, key=lambda row: row.question)
    curve = reports[QUESTION].curves[0].curve
    not_shown = "" if curve.ok else f" With this seed a fall is not shown beyond chance: {curve.message}."
    total = reports[QUESTION].observations[0].total
    (kept_low, _), (_, displaced_high) = (
        wilson(round(share * total), total) for share in (kept.question, last.question)
    )
    cause = "repetition alone does no harm" if kept_low > displaced_high else "not clearly more"
    return [
        f"Asked as questions: {finding(reports[QUESTION])}{not_shown}",
        f"Best was {best.question:.3f} at F = {best.frequency}; at F = {last.frequency} it is {last.question:.3f} "
        f"(control facts, which were never injected: {last.control:.3f}).",
        f"Asked as the injected statements: {finding(reports[STATEMENT])} "
        f"At F = {last.frequency} it is {last.statement:.3f}.",
        f"Why: at F = {last.frequency} the statements are {last.share:.0%} of the tokens. The model learns to answer "
        "from the questions about other facts in its background, and the statements displace and cut these: "
        f"{last.whole:.1f} whole questions a fact are left ({first.whole:.1f} at F = 0), and the model answers "
        f"{last.background:.3f} of them ({first.background:.3f} at F = 0).",
        f"In a run {_LONGER} times as long, with as many statements, {kept.whole:.1f} whole questions a fact are left, "
        f"and the model answers {kept.question:.3f} of the questions about the facts under test: {cause}.",
    ]
