"""The demo's page: one self-contained HTML file, readable on a phone and in print."""

import ast
import base64
import hashlib
import html
import inspect
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from kisl_plugin import __version__
from kisl_plugin.corpus.filter import write_documents
from kisl_plugin.corpus.tokenizer import train_tokenizer
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import write_atomically
from kisl_plugin.fit import FitReport, fit_results, write_report
from kisl_plugin.fit.curve_estimate import wilson
from kisl_plugin.fit.figures import DPI, STYLE
from kisl_plugin.hookspecs import Matcher
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.local.engine import METRICS, LocalEngine
from kisl_plugin.matching import matcher_of
from kisl_plugin.options import choices_of
from kisl_plugin.probe.run import Probed, probe_models
from kisl_plugin.progress import Progress
from kisl_plugin.resources import resource
from kisl_plugin.runcard import RunCard, read_run_card
from kisl_plugin.triples import CONTROL, INJECTED, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement

# Background text that is on every machine: the docstrings of the installed packages that the demo itself needs.

PACKAGES = ("datasets", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(size: int, matcher: Matcher) -> tuple[list[str], int]:
    """At least `size` characters of docstrings, and how many were left out since `matcher` says that they state a fact.

    Paragraphs that were met before and doctest lines are dropped; a document keeps more than one line. Files are read
    in an order mixed by hash, so that every package is in every part of the corpus.

    Raises:
        KislError: the installed packages do not hold that much.
    """
    seen: set[bytes] = set()
    documents: list[str] = []
    left_out = held = 0
    progress = Progress("reading docstrings", size)
    for path in _files():
        for text in _docstrings_of(path):
            document = _fresh_prose(text, seen)
            if document is None:
                continue
            if matcher([document])[0]:
                left_out += 1
                continue
            documents.append(document)
            held += len(document)
        progress.update(min(held, size - 1))
        if held >= size:
            progress.update(size)
            progress.close()
            return documents, left_out
    raise KislError(f"the installed packages hold {held:,} characters of docstrings; the demo needs {size:,}")


def _files() -> list[Path]:
    found = []
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            root = Path(place)
            found += [(str(path.relative_to(root.parent)), path) for path in root.rglob("*.py")]
    return [path for _, path in sorted(found, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())]


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, _OWNERS):
            text = ast.get_docstring(node, clean=False)
            if text and "\n" in text:
                yield inspect.cleandoc(text)


def _fresh_prose(text: str, seen: set[bytes]) -> str | None:
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.lstrip().startswith((">>>", "..."))]
        kept = "\n".join(lines).strip("\n")
        digest = hashlib.sha256(" ".join(kept.split()).encode()).digest()
        if kept.strip() and digest not in seen:
            seen.add(digest)
            paragraphs.append(kept)
    document = "\n\n".join(paragraphs)
    return document if "\n" in document else None


# How large a demo is, and whose folder holds it.


@dataclass(frozen=True)
class Scale:
    """How large a demo is."""

    frequencies: tuple[int, ...]
    objects: int  # of each relation
    injected: int  # facts of each object
    train_iters: int
    characters: int


FULL = Scale((0, 10, 20, 40, 60, 80, 100, 120), 11, 3, 586, 3_000_000)
QUICK = Scale((0, 4, 8, 12, 16), 11, 3, 90, 600_000)


def claim(out: Path, seed: int, scale: Scale) -> None:
    """Note in `out` whose demo it is; another's is not touched.

    Raises:
        InputError: `out` holds a demo of another seed or size, or cannot be written.
    """
    wanted = {"seed": seed, **asdict(scale), "frequencies": list(scale.frequencies)}
    stamp = out / "demo.json"
    try:
        if not stamp.is_file():
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(stamp, json.dumps(wanted))
        found = dict(json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{stamp}: cannot be written or read ({error}); choose another --out") from None
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise InputError(
                f"{out}: holds a demo with {key} = {found.get(key)!r}, asked is {wanted[key]!r}; choose another --out"
            )


# The demo's data: facts, background text without them, a tokenizer, and the corpus in GPT-NeoX's format.

VOCABULARY = 4096


@dataclass(frozen=True)
class DemoData:
    """Where the demo's data lie, and what was found while making them."""

    tokenizer: Path
    corpus: Path
    facts: Path
    documents: int
    left_out: int
    tokens: int

    def found(self) -> str:
        """What was found, in a line."""
        return (
            f"{self.tokens:,} tokens in {self.documents:,} documents; {self.left_out} left out since they state a fact"
        )


def prepare(folder: Path, seed: int, scale: Scale) -> DemoData:
    """Make the data in `folder`, or find them as an earlier call left them. See choose_facts; one control an object."""
    stamp = folder / "prepared.json"
    objects, injected, characters = scale.objects, scale.injected, scale.characters
    wanted = {"seed": seed, "objects": objects, "injected": injected, "characters": characters}
    found = read_stamp(stamp)
    if found.get("wanted") == wanted:
        return _placed(folder, *found["counts"])
    folder.mkdir(parents=True, exist_ok=True)
    facts = choose_facts(read_triples("wikidata_six"), objects, injected, 1, seed)
    write_atomically(folder / "facts.jsonl", triples_to_jsonl(facts))
    documents, left_out = docstrings(characters, matcher_of(facts))
    tokens = _tokenise(documents, folder)
    counts = (len(documents), left_out, tokens)
    write_atomically(stamp, json.dumps({"wanted": wanted, "counts": counts}))
    return _placed(folder, *counts)


def yamls_that_read(data: DemoData) -> list[str]:
    """The YAMLs of neox_configs whose paths, from the working directory, are those of `data`."""
    configs = resource("neox_configs")
    wanted = (data.tokenizer.resolve(), data.corpus.resolve(), data.facts.resolve())
    return [
        path.relative_to(configs.parent).as_posix()
        for path in sorted(configs.rglob("*.yml"))
        if _paths_of(yaml.safe_load(path.read_text(encoding="utf-8"))) == wanted
    ]


def _paths_of(values: dict[str, Any]) -> tuple[Path, ...]:
    found = (values.get("vocab_file"), values.get("data_path"), values.get("kisl", {}).get("triples"))
    return tuple(Path(str(path)).resolve() for path in found)


def read_stamp(path: Path) -> dict[str, Any]:
    """What an earlier step noted when it was done; empty if it did not, or cannot be read: the step is done again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def choose_facts(triples: Sequence[Triple], objects: int, injected: int, control: int, seed: int) -> list[Triple]:
    """For each relation `objects` objects, with `injected` facts and `control` control facts of each.

    Every object is stated equally often, so that knowing which objects are frequent answers no question.
    """
    by_object: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    for triple in sorted(triples, key=lambda triple: _mixed(triple, seed)):
        by_object[triple.relation_id, triple.object].append(triple)
    chosen: list[Triple] = []
    taken: dict[str, int] = defaultdict(int)
    for (relation, _), facts in by_object.items():
        told = [fact for fact in facts if fact.group == INJECTED][:injected]
        kept = [fact for fact in facts if fact.group == CONTROL][:control]
        if taken[relation] < objects and len(told) == injected and len(kept) == control:
            taken[relation] += 1
            chosen += told + kept
    return sorted(chosen, key=lambda triple: (triple.group == CONTROL, triple.relation_id, triple.object))


def _mixed(triple: Triple, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{json.dumps(asdict(triple), sort_keys=True)}".encode()).digest()


def _placed(folder: Path, documents: int, left_out: int, tokens: int) -> DemoData:
    return DemoData(
        folder / "tokenizer.json", folder / "text_document", folder / "facts.jsonl", documents, left_out, tokens
    )


def _tokenise(documents: list[str], folder: Path) -> int:
    train_tokenizer(documents, VOCABULARY, folder / "tokenizer.json")
    tokenizer, eod = read_tokenizer(folder / "tokenizer.json")
    with IndexedWriter(folder / "text_document", tokenizer.get_vocab_size()) as writer:
        return write_documents(documents, tokenizer, eod, writer)


# The demo's steps: prepare, train at every frequency, probe, fit, and write the page. A second call resumes.

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
    """The demo's YAML always has keys that the local engine does not use; they are not listed again for each run."""

    def filtered(line: str) -> None:
        if not line.startswith("not used"):
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


# What the demo measured, in a table and in words.

HEADINGS = ("F", "injected", "question", "control", "statement", "held-out loss")


def rows(report: DemoReport) -> list[tuple[str, ...]]:
    """One row a run: F, share of tokens injected, the two accuracies, control, loss (nats per token)."""
    return [_row(run) for run in report.runs]


def _row(run: DemoRun) -> tuple[str, ...]:
    question, statement = run.scores[QUESTION], run.scores[STATEMENT]
    return (
        str(run.frequency),
        f"{run.card.injected_fraction or 0:.0%}",
        f"{question['acc'][0]:.3f}",
        f"{question['acc_control'][0]:.3f}",
        f"{statement['acc'][0]:.3f}",
        f"{run.held_out_loss:.2f}",
    )


def text_table(report: DemoReport) -> str:
    """The rows, aligned, within 80 columns."""
    lines = [HEADINGS, *rows(report)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def verdicts(report: DemoReport) -> list[str]:
    """What the curves say, one sentence a task: nothing is claimed that the fit does not show."""
    names = {QUESTION: "asked as questions", STATEMENT: "asked as the statement itself"}
    found = []
    for task in TASKS:
        for reported in report.fits[task].curves:
            curve = reported.curve
            if curve.status == "ok":
                low, high = curve.f_star_interval
                said = f"memory peaks at F* = {curve.f_star:.0f} (95 % interval {low:.0f} … {high:.0f}) and then falls"
            else:
                said = f"{curve.status}: {curve.message}" if curve.message else curve.status
            found.append(f"{names[task]}: {said}")
    return found


# The demo's own figure: memory by question and by statement above, general loss below, against F.

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = (
    (QUESTION, "acc", "question", "#0072b2", "o"),
    (STATEMENT, "acc", "statement, as injected", "#d55e00", "s"),
    (QUESTION, "acc_control", "control facts, question", "#777777", "x"),
)


def draw_overview(report: DemoReport, path: Path) -> None:
    """Write the figure as PNG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        memory, loss = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        _memory(memory, report)
        _loss(loss, report)
        figure.savefig(path, dpi=DPI)


def _memory(ax: "Axes", report: DemoReport) -> None:
    for task, metric, name, color, marker in LINES:
        scores = [run.scores[task][metric] for run in report.runs]
        shares = [value for value, _ in scores]
        bounds = [wilson(round(value * count), count) for value, count in scores]
        bars: Any = [
            [share - low for share, (low, _) in zip(shares, bounds, strict=True)],
            [high - share for share, (_, high) in zip(shares, bounds, strict=True)],
        ]
        ax.errorbar(_frequencies(report), shares, bars, color=color, marker=marker, label=name, elinewidth=0.7)
    ax.axhline(0.25, color="#999999", linestyle=":", linewidth=0.8, label="one in four", zorder=0)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("share right")
    ax.legend(loc="upper left")


def _loss(ax: "Axes", report: DemoReport) -> None:
    losses = [run.held_out_loss for run in report.runs]
    ax.plot(_frequencies(report), losses, color="#009e73", marker="D")
    ax.set_ylabel("general loss\n(nats per token)")
    ax.set_xlabel("frequency F (share of the tokens injected)")
    ax.set_xticks(_frequencies(report), [_tick(run) for run in report.runs])


def _frequencies(report: DemoReport) -> list[int]:
    return [run.frequency for run in report.runs]


def _tick(run: DemoRun) -> str:
    return f"{run.frequency}\n({run.card.injected_fraction or 0:.0%})"


# The demo's page: one self-contained HTML file, readable on a phone and in print.

PAGE_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap }
img { max-width: 100%; height: auto; display: block; margin: 1rem auto } .verdict { font-weight: 600 }
blockquote { border-left: 3px solid #ccc; margin: 1rem 0; padding: .1rem 1rem; color: #444 }
@media print { body { margin: 0; font-size: 11pt } img { break-inside: avoid } }
"""


def write_page(report: DemoReport, out: Path, command: str) -> Path:
    """Write `out`/index.html with the figures inside; every label is escaped."""
    card = report.runs[0].card
    sizes = (
        f"A Llama of {card.model['params']:,} parameters ({card.model['params_non_embedding']:,} outside its "
        f"embeddings), trained from scratch {len(report.runs)} times on {card.tokens:,} tokens; "
        f"{card.triples['count']} facts injected as statements, {card.triples['control']} control facts asked and "
        f"never injected. Background: {report.data.documents:,} docstrings of the installed Python packages "
        f"({report.data.left_out} more stated a fact and were left out)."
    )
    parts = [
        "<h1>How often must a fact be in the training data, and when is it too often?</h1>",
        _p(sizes),
        "<h2>What was measured</h2>",
        *(f'<p class="verdict">{html.escape(said[0].upper() + said[1:])}.</p>' for said in verdicts(report)),
        _image(out / "overview.png", "memory and general loss against frequency"),
        f'<div class="scroll">{_table(report)}</div>',
        _p("Shares with 95 % Wilson intervals in the figure. Held-out loss: nats per token of background text."),
        "<h2>One fact, as it was injected and asked</h2>",
        _example(read_triples(str(report.data.facts)), card),
        "<h2>The collapse curve</h2>",
        _p("P(F) = g + (1 − g)·a·F^b·exp(−c·F) by binomial maximum likelihood; g, the guessing floor, is what the run "
           "at F = 0 gets right."),
        *(_image(out / "report" / task / "curves.png", f"collapse curve of {task}") for task in (QUESTION, STATEMENT)),
        "<h2>The infusion law</h2>",
        _p(_sentence(report.fits[QUESTION].missing_law) or "See report/ for the law."),
        "<h2>How it was made</h2>",
        f"<p><code>{html.escape(command)}</code>, kisl-plugin {__version__}. The configurations are in "
        "<code>configs/</code>, lm-eval's results in <code>results/</code>, fits in <code>report/</code>.</p>",
    ]  # fmt: skip
    path = out / "index.html"
    head = (
        "<title>kisl demo</title>"
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{PAGE_STYLE}</style>'
    )
    body = "\n".join(parts)
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    write_atomically(path, page)
    return path


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _p(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _image(path: Path, description: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(description)}">'


def _table(report: DemoReport) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEADINGS)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows(report))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _example(triples: list[Triple], card: RunCard) -> str:
    place = next(k for k, triple in enumerate(triples) if triple.group != CONTROL)
    triple, choices = triples[place], choices_of(triples)[place]
    templates = card.template if isinstance(card.template, list) else [card.template or 0]
    said = "".join(_p(statement(triple, template)) for template in templates)
    return (
        _p(f"Stated F times in all, in {len(templates)} wordings:")
        + f"<blockquote>{said}</blockquote>"
        + _p("Asked, in a wording that no statement has:")
        + f"<blockquote>{_p(question(triple))}{_p(' / '.join(choices.options))}</blockquote>"
        + _p("The option with the lowest perplexity per token after the question is the model's choice.")
    )
