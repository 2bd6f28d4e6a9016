"""The demo: a collapse point on this machine, and its cause, from the embedded engine, `kisl sweep` and lm_eval.

A small Llama is trained at several frequencies F. From the questions in its background (see demo_data.py) it learns to
answer; the statements of the facts under test, injected F times each, displace them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.demo_data import Scale, answered_question, prepare_data
from kisl_plugin.errors import KislError, needs_extra
from kisl_plugin.files import resource
from kisl_plugin.progress import text_table
from kisl_plugin.triples import Triple, read_triples

if TYPE_CHECKING:
    from kisl_plugin.fit import FitReport
    from kisl_plugin.sweep import SweepRun

__all__ = ["QUESTION", "STATEMENT", "run_demo", "whole_questions"]

QUESTION, STATEMENT = "kisl_wikidata_direct", "kisl_wikidata_statement"
_LONGER = 3  # times the tokens, in the run that keeps the questions
_TOKENS_PER_STEP = 8 * 64  # of neox_configs/demo.yml
# The table: what is measured at one frequency, over the seeds, and how it is written.
_COLUMNS = {
    "F": "{}",
    "injected": "{:.0%}",  # share of the tokens
    "question": "{:.3f}",  # this and the next three are accuracies
    "statement": "{:.3f}",
    "control": "{:.3f}",
    "other facts": "{:.3f}",  # those of the background, asked as questions
    "questions left": "{:.1f}",  # about each of these, whole in the run's rows
    "held-out loss": "{:.2f}",  # nats per token of docstrings
}
_Row = dict[str, float]


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
        from kisl_plugin.probe.run import probe_models
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
    files = probe_models(
        [run.model_folder for run in firsts],
        out / "background",
        (QUESTION,),
        triples=str(data.background_facts),
        on_skipped=lambda _model, _results: None,
    )
    results = [json.loads(file.read_text(encoding="utf-8"))["results"][QUESTION] for file in files]
    background = {run.name: of_run["acc,none"] for run, of_run in zip(firsts, results, strict=True)}

    say("4/4 fitting")
    reports = {task: fit_results([out / "results"], task=task) for task in (QUESTION, STATEMENT)}
    kept_reports = {task: fit_results([out / "kept" / "results"], task=task) for task in (QUESTION, STATEMENT)}
    facts = read_triples(data.background_facts)
    by_frequency = sorted(firsts, key=lambda run: run.values["kisl"]["frequency"])
    rows = [_measure(run, reports, background[run.name], facts) for run in by_frequency if run.out == out]
    kept_row = _measure(kept.runs[0], kept_reports, background[kept.runs[0].name], facts)
    sentences = _explanation(reports, rows, kept_row)
    table = [[form.format(row[name]) for name, form in _COLUMNS.items()] for row in (*rows, kept_row)]
    table[-1][0] += " *"
    note = f"* as often, in a run of {longer:,} tokens in place of {grid['tokens']:,}"
    section = ExtraSection("What was measured, and why", [*sentences, note], [*_COLUMNS], table)
    write_report(reports[QUESTION], out / "report", section)
    write_report(reports[STATEMENT], out / "report" / "statement")
    lines = text_table([[*_COLUMNS], *table], ">" * len(_COLUMNS))
    say("\n".join(["", *lines, note, "", *sentences, "", f"{out / 'report' / 'index.html'} has the figures"]))


def _measure(run: "SweepRun", reports: "Mapping[str, FitReport]", background: float, facts: Sequence[Triple]) -> _Row:
    """The row of the table at the run's frequency; `background` is its accuracy on the background's own `facts`."""
    from kisl_plugin.local.engine import METRICS

    frequency = run.values["kisl"]["frequency"]
    questions, statements = (
        [one for one in reports[task].observations if one.frequency == frequency] for task in (QUESTION, STATEMENT)
    )
    records = map(json.loads, (run.folder / METRICS).read_text(encoding="utf-8").splitlines())
    values = (
        frequency,
        questions[0].card.injected_fraction or 0.0,
        sum(one.correct for one in questions) / sum(one.total for one in questions),
        sum(one.correct for one in statements) / sum(one.total for one in statements),
        sum(one.control_correct or 0 for one in questions) / sum(one.control_total or 0 for one in questions),
        background,
        whole_questions(run.config, facts),
        [record["held_out_loss"] for record in records if "held_out_loss" in record][-1],
    )
    return dict(zip(_COLUMNS, values, strict=True))


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
    best = max(rows, key=lambda row: row["question"])
    curve = reports[QUESTION].curves[0].curve
    not_shown = "" if curve.ok else f" With this seed a fall is not shown beyond chance: {curve.message}."
    total = reports[QUESTION].observations[0].total
    (kept_low, _), (_, displaced_high) = (wilson(round(row["question"] * total), total) for row in (kept, last))
    cause = "repetition alone does no harm" if kept_low > displaced_high else "not clearly more"
    most = last["F"]
    return [
        f"Asked as questions: {finding(reports[QUESTION])}{not_shown}",
        f"Best was {best['question']:.3f} at F = {best['F']}; at F = {most} it is {last['question']:.3f} "
        f"(control facts, which were never injected: {last['control']:.3f}).",
        f"Asked as the injected statements: {finding(reports[STATEMENT])} At F = {most} it is {last['statement']:.3f}.",
        f"Why: at F = {most} the statements are {last['injected']:.0%} of the tokens. The model learns to answer "
        "from the questions about other facts in its background, and the statements displace and cut these: "
        f"{last['questions left']:.1f} whole questions a fact are left ({first['questions left']:.1f} at F = 0), and "
        f"the model answers {last['other facts']:.3f} of them ({first['other facts']:.3f} at F = 0).",
        f"In a run {_LONGER} times as long, with as many statements, {kept['questions left']:.1f} whole questions a "
        f"fact are left, and the model answers {kept['question']:.3f} of the questions about the facts under test: "
        f"{cause}.",
    ]
