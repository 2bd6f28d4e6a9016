"""The demo: a collapse point on this machine, and its cause, from the embedded engine, `kisl sweep` and lm_eval.

A small Llama is trained at several frequencies F, on a background that every machine can make: the docstrings of the
installed packages and, as web text has them, statements of other facts, and questions about them with their answers.
From these questions it learns to answer; the statements of the facts under test, injected F times each, displace them.
"""

import ast
import hashlib
import inspect
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import read_object, resource, write_atomically
from kisl_plugin.grid import DEMO_VOCABULARY
from kisl_plugin.hookspecs import Matcher
from kisl_plugin.progress import Progress, text_table
from kisl_plugin.triples import CONTROL, INJECTED, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement

if TYPE_CHECKING:
    from kisl_plugin.fit import FitReport
    from kisl_plugin.sweep import SweepRun

__all__ = [
    "FULL",
    "QUESTION",
    "QUICK",
    "STATEMENT",
    "DemoData",
    "Scale",
    "answered_question",
    "choose_facts",
    "docstrings",
    "names_for_tokenizer",
    "prepare_data",
    "run_demo",
    "whole_questions",
]

QUESTION, STATEMENT = "kisl_wikidata_direct", "kisl_wikidata_statement"
PACKAGES = ("datasets", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
_TEMPLATE = 1  # of the background's questions: the one that kisl_wikidata_direct asks
_NAME_WEIGHT = 100  # how often the tokenizer is shown each name, as a corpus of a usual size would
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


@dataclass(frozen=True)
class Scale:
    """The size of a demo: a run for each of `frequencies` and of `seeds` seeds, in `train_iters` steps of a batch.

    `objects` per relation, and of each object `injected` facts under test. The background holds `characters` of
    docstrings, and each of its own facts so many times as a statement, and as a question with its answer.
    """

    frequencies: tuple[int, ...]
    seeds: int
    train_iters: int
    characters: int
    statement_copies: int
    question_copies: int
    objects: int = 11
    injected: int = 3


# The background fills the run at F = 0 once; a fifth of its tokens are statements, a third questions.
FULL = Scale((0, 3, 8, 16, 28, 45, 80, 160), 2, 600, 450_000, 112, 110)
QUICK = Scale((0, 6, 14, 28), 1, 120, 110_000, 22, 22)


@dataclass(frozen=True)
class DemoData:
    """The demo's files, and what the corpus holds.

    `questions` and `statements` are shares of its tokens; `left_out` docstrings state a fact under test.
    """

    tokenizer: Path
    corpus: Path
    facts: Path
    background_facts: Path
    documents: int
    tokens: int
    questions: float
    statements: float
    left_out: int


def prepare_data(out: Path, seed: int, scale: Scale) -> DemoData:
    """Make `out`/data: facts, a tokenizer, and a background without the facts under test, in GPT-NeoX's format.

    Raises:
        InputError: `out` contains a demo of another seed or size, or cannot be written.
    """
    with needs_extra("demo", "kisl demo"):
        import tokenizers  # noqa: F401 (reported before the docstrings are read, not after)

    from kisl_plugin.corpus.tokenizer import train_tokenizer
    from kisl_plugin.huggingface import read_tokenizer
    from kisl_plugin.indexed import IndexedWriter
    from kisl_plugin.matching import matcher_of

    parameters = {"seed": seed, **asdict(scale), "frequencies": list(scale.frequencies)}
    data, stamp = out / "data", out / "demo.json"
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not stamp.is_file():
            write_atomically(stamp, json.dumps(parameters))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error}); choose another --out") from None
    earlier = read_object(stamp)
    for key, value in parameters.items():
        if earlier.get(key) != value:
            raise InputError(
                f"{out}: contains a demo with {key} = {earlier.get(key)!r}, expected {value!r}; choose another --out"
            )
    counts = read_object(data / "counts.json")
    if not counts:
        facts, others = choose_facts(read_triples("wikidata_six"), scale.objects, scale.injected, seed)
        write_atomically(data / "facts.jsonl", triples_to_jsonl(facts))
        write_atomically(data / "background_facts.jsonl", triples_to_jsonl(others))
        prose, left_out = docstrings(scale.characters, matcher_of(facts))
        # GPT-NeoX shuffles the documents of the training split; the last of all, docstrings, are held out.
        kinds = [
            [answered_question(fact) for fact in others] * scale.question_copies,
            [statement(fact) for fact in others] * scale.statement_copies,
            prose,
        ]
        texts_shown = [text for texts in (*kinds, names_for_tokenizer(facts)) for text in texts]
        train_tokenizer(texts_shown, DEMO_VOCABULARY, data / "tokenizer.json")
        tokenizer, eod = read_tokenizer(data / "tokenizer.json")
        tokens = []
        with IndexedWriter(data / "text_document", tokenizer.get_vocab_size()) as writer:
            for texts in kinds:
                encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
                for encoding in encodings:
                    writer.add([*encoding.ids, eod])
                tokens.append(sum(len(encoding.ids) + 1 for encoding in encodings))
        counts = {
            "documents": sum(map(len, kinds)),
            "tokens": sum(tokens),
            "questions": tokens[0] / sum(tokens),
            "statements": tokens[1] / sum(tokens),
            "left_out": left_out,
        }
        write_atomically(data / "counts.json", json.dumps(counts))
    return DemoData(
        tokenizer=data / "tokenizer.json",
        corpus=data / "text_document",
        facts=data / "facts.jsonl",
        background_facts=data / "background_facts.jsonl",
        **counts,
    )


def answered_question(fact: Triple) -> str:
    """A question of the background with its answer."""
    return f"{question(fact, _TEMPLATE)} {fact.object}"


def names_for_tokenizer(facts: Sequence[Triple]) -> list[str]:
    """The names in the facts, with and without a space before them, as often as a tokenizer is to be shown them."""
    labels = [name for fact in facts for name in (fact.subject, fact.object)]
    return [f"{space}{label}" for label in labels for space in ("", " ")] * _NAME_WEIGHT


def choose_facts(
    triples: Sequence[Triple], objects: int, injected: int, seed: int
) -> tuple[list[Triple], list[Triple]]:
    """The facts under test, and those of the background: `objects` objects of each relation, those with short names.

    Each object has `injected` facts to inject, one control fact, and one other fact that the background states and
    asks. Every object is stated equally often, so no question can be answered by knowing which objects are frequent.
    The seed decides which fact of an object is which.
    """

    def hashed(triple: Triple) -> bytes:
        return hashlib.sha256(f"{seed}|{json.dumps(asdict(triple), sort_keys=True)}".encode()).digest()

    by_object: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    namesakes = Counter(triple.subject for triple in triples)
    for triple in sorted(triples, key=lambda triple: (len(triple.subject), hashed(triple))):
        if namesakes[triple.subject] == 1 and not triple.subject.isdigit():
            by_object[triple.relation_id, triple.object].append(triple)
    # (letters of the names, facts to inject and one other, control fact) of each object with enough facts
    candidates: dict[str, list[tuple[int, list[Triple], Triple]]] = defaultdict(list)
    for (relation, label), facts in sorted(by_object.items()):
        stated = [fact for fact in facts if fact.group == INJECTED][: injected + 1]
        unstated = [fact for fact in facts if fact.group == CONTROL]
        if len(stated) == injected + 1 and unstated:
            letters = sum(len(fact.subject) + len(label) for fact in stated)
            candidates[relation].append((letters, sorted(stated, key=hashed), unstated[0]))
    under_test, others = [], []
    for of_relation in candidates.values():
        for _, (other, *stated), control in sorted(of_relation, key=lambda candidate: candidate[0])[:objects]:
            under_test += [*stated, control]
            others.append(other)
    under_test.sort(key=lambda triple: (triple.group == CONTROL, triple.relation_id, triple.object))
    return under_test, others


def docstrings(size: int, matcher: Matcher) -> tuple[list[str], int]:
    """At least `size` characters of docstrings, and how many were left out because `matcher` matches them.

    Repeated paragraphs and doctest lines are dropped; a document has more than one line. Files are read in an order
    mixed by hash, so that every package is in every part of the corpus.

    Raises:
        KislError: the installed packages do not contain that much.
    """
    specs = filter(None, map(find_spec, PACKAGES))
    roots = [Path(place) for spec in specs for place in spec.submodule_search_locations or []]
    files = [(str(path.relative_to(root.parent)), path) for root in roots for path in root.rglob("*.py")]
    files.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    paragraphs_before: set[str] = set()
    documents: list[str] = []
    left_out = characters = 0
    progress = Progress("reading docstrings", size)
    for _, path in files:
        for text in _docstrings_of(path):
            paragraphs = []
            for paragraph in text.split("\n\n"):
                lines = [line for line in paragraph.splitlines() if not line.lstrip().startswith((">>>", "..."))]
                prose = "\n".join(lines).strip("\n")
                folded = " ".join(prose.split())
                if folded and folded not in paragraphs_before:
                    paragraphs_before.add(folded)
                    paragraphs.append(prose)
            document = "\n\n".join(paragraphs)
            if "\n" in document and matcher([document])[0]:
                left_out += 1
            elif "\n" in document:
                documents.append(document)
                characters += len(document)
        progress.update(min(characters, size))
        if characters >= size:
            progress.close()
            return documents, left_out
    raise KislError(f"the installed packages contain {characters:,} characters of docstrings; the demo needs {size:,}")


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text and "\n" in text:
                yield inspect.cleandoc(text)


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
