"""The demo: the whole loop on this machine, with the local engine and background text that every machine has.

A small Llama is trained at several frequencies F on the docstrings of the installed packages, with bundled facts stated
F times each, and probed with lm_eval. Every step that is complete is skipped when the demo is run again.
"""

import ast
import hashlib
import inspect
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import write_atomically
from kisl_plugin.hookspecs import Matcher
from kisl_plugin.progress import Progress
from kisl_plugin.resources import resource
from kisl_plugin.runcard import read_run_card
from kisl_plugin.triples import CONTROL, INJECTED, Triple, read_triples, triples_to_jsonl

__all__ = ["FULL", "QUICK", "DemoData", "Scale", "choose_facts", "docstrings", "prepare_data", "run_demo"]

PACKAGES = ("datasets", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
QUESTION, STATEMENT = "kisl_wikidata", "kisl_wikidata_statement"
_VOCABULARY = 4096
_HEADINGS = ("F", "injected", "question", "control", "statement", "held-out loss")


@dataclass(frozen=True)
class Scale:
    """The size of a demo. `objects` per relation, `injected` facts per object, `characters` of background text."""

    frequencies: tuple[int, ...]
    objects: int
    injected: int
    train_iters: int
    characters: int


FULL = Scale((0, 10, 20, 40, 60, 80, 100, 120), 11, 3, 586, 3_000_000)
QUICK = Scale((0, 4, 8, 12, 16), 11, 3, 90, 600_000)


@dataclass(frozen=True)
class DemoData:
    """The demo's files, and how many documents were left out because they state a fact."""

    tokenizer: Path
    corpus: Path
    facts: Path
    documents: int
    left_out: int
    tokens: int


def run_demo(out: Path, seed: int, scale: Scale, say: Callable[[str], None]) -> None:
    """Prepare the data, train and probe a model for every frequency, print the table, and write the fit reports.

    Everything is written below `out`: `data/`, `configs/`, `runs/`, `results/`, `report/`. `say` prints a line.

    Raises:
        InputError: `out` contains a demo of another seed or size, or an optional library is missing.
    """
    with needs_extra("demo", "kisl demo"):
        import lm_eval  # noqa: F401 (reported before minutes of training, not after)
        import torch

        from kisl_plugin.fit import fit_results, write_report
        from kisl_plugin.local.engine import METRICS, LocalEngine
        from kisl_plugin.probe.run import Scores, probe_models

    # More threads do not help so small a model, and with two every machine computes the same sums.
    torch.set_num_threads(2)
    say("1/4 data: facts, and the docstrings of the installed packages")
    data = prepare_data(out, seed, scale)
    say(f"    {data.tokens:,} tokens in {data.documents:,} documents; {data.left_out} that state a fact are left out")

    say(f"2/4 training at F = {', '.join(map(str, scale.frequencies))}")
    base = yaml.safe_load((resource("neox_configs") / "demo.yml").read_text(encoding="utf-8"))
    (out / "configs").mkdir(exist_ok=True)
    models = []
    for frequency in scale.frequencies:
        run = out / "runs" / f"f{frequency:03d}"
        values = {
            **base,
            "train_iters": scale.train_iters,
            "seed": seed,
            "vocab_file": str(data.tokenizer),
            "data_path": str(data.corpus),
            "save": str(run),
            "load": str(run),
            "kisl": {**base["kisl"], "triples": str(data.facts), "frequency": frequency},
        }
        config = write_atomically(out / "configs" / f"{run.name}.yml", yaml.safe_dump(values, sort_keys=False))

        # The engine's own lines, such as which keys of demo.yml it does not use, would be the same for each run.
        models.append(LocalEngine().train([config], label=f"    F = {frequency:>3}", say=lambda _: None))
        say(f"    {run.name} is trained")

    say(f"3/4 probing with lm_eval: {QUESTION} and {STATEMENT}")

    def keep_scores(model: Path, scores: Scores) -> None:
        values = {task: {name: value for name, (value, _) in metrics.items()} for task, metrics in scores.items()}
        stamp = {"created": read_run_card(model).created, "scores": values}
        write_atomically(model.parent / "scores.json", json.dumps(stamp))
        say(f"    {model.parent.name}: question {values[QUESTION]['acc']:.3f}")

    unprobed = [model for model in models if not _scores_of(model)]
    if len(unprobed) < len(models):
        say(f"    {len(models) - len(unprobed)} of {len(models)} models are already probed")
    if unprobed:
        probe_models(unprobed, out / "results", tasks=(QUESTION, STATEMENT), on_done=keep_scores)

    say("4/4 fitting")
    for task in (QUESTION, STATEMENT):
        write_report(fit_results([out / "results"], task=task), out / "report" / task)
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for model in models:
        card, scores = read_run_card(model), _scores_of(model)
        records = map(json.loads, (model.parent / METRICS).read_text(encoding="utf-8").splitlines())
        losses = [record["held_out_loss"] for record in records if "held_out_loss" in record]  # nats per token
        accuracies = (scores[QUESTION]["acc"], scores[QUESTION]["acc_control"], scores[STATEMENT]["acc"])
        share = f"{card.injected_fraction or 0:.0%}"
        rows.append((str(card.frequency), share, *(f"{value:.3f}" for value in accuracies), f"{losses[-1]:.2f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    say("\n".join(["", *lines, ""]))
    for task, name in ((QUESTION, "asked as questions"), (STATEMENT, "asked as the statements themselves")):
        fit = json.loads((out / "report" / task / "fit.json").read_text(encoding="utf-8"))
        for curve in fit["curves"]:
            collapse = f", F* = {curve['f_star']:.3g}" if curve["status"] == "ok" else ""
            say(f"{name}: {curve['status']}{collapse} ({out / 'report' / task / 'index.html'})")


def _scores_of(model: Path) -> dict[str, dict[str, float]]:
    """The scores of an earlier call by task and metric, if they are this model's; else none."""
    stamp = _read_json(model.parent / "scores.json")
    return stamp["scores"] if stamp.get("created") == read_run_card(model).created else {}


def prepare_data(out: Path, seed: int, scale: Scale) -> DemoData:
    """Make `out`/data: facts, a tokenizer, and background text without the facts, in GPT-NeoX's format.

    Raises:
        InputError: `out` contains a demo of another seed or size, or cannot be written.
    """
    with needs_extra("demo", "kisl demo"):
        import ahocorasick_rs  # noqa: F401 (reported before the docstrings are read, not after)
        import tokenizers  # noqa: F401

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
    earlier = _read_json(stamp)
    for key, value in parameters.items():
        if earlier.get(key) != value:
            raise InputError(
                f"{out}: contains a demo with {key} = {earlier.get(key)!r}, expected {value!r}; choose another --out"
            )
    counts = _read_json(data / "counts.json")
    if not counts:
        facts = choose_facts(read_triples("wikidata_six"), scale.objects, scale.injected, 1, seed)
        write_atomically(data / "facts.jsonl", triples_to_jsonl(facts))
        documents, left_out = docstrings(scale.characters, matcher_of(facts))
        train_tokenizer(documents, _VOCABULARY, data / "tokenizer.json")
        tokenizer, eod = read_tokenizer(data / "tokenizer.json")
        tokens = 0
        with IndexedWriter(data / "text_document", tokenizer.get_vocab_size()) as writer:
            for encoding in tokenizer.encode_batch_fast(documents, add_special_tokens=False):
                writer.add([*encoding.ids, eod])
                tokens += len(encoding.ids) + 1
        counts = {"documents": len(documents), "left_out": left_out, "tokens": tokens}
        write_atomically(data / "counts.json", json.dumps(counts))
    return DemoData(data / "tokenizer.json", data / "text_document", data / "facts.jsonl", **counts)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file that an earlier call wrote; empty if there is none or it cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def choose_facts(triples: Sequence[Triple], objects: int, injected: int, control: int, seed: int) -> list[Triple]:
    """For each relation `objects` objects, with `injected` facts and `control` control facts of each.

    Every object is stated equally often, so no question can be answered by knowing which objects are frequent.
    """

    def hashed(triple: Triple) -> bytes:
        return hashlib.sha256(f"{seed}|{json.dumps(asdict(triple), sort_keys=True)}".encode()).digest()

    by_object: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    for triple in sorted(triples, key=hashed):
        by_object[triple.relation_id, triple.object].append(triple)
    chosen: list[Triple] = []
    objects_of: Counter[str] = Counter()
    for (relation, _), facts in by_object.items():
        stated = [fact for fact in facts if fact.group == INJECTED][:injected]
        unstated = [fact for fact in facts if fact.group == CONTROL][:control]
        if objects_of[relation] < objects and len(stated) == injected and len(unstated) == control:
            objects_of[relation] += 1
            chosen += stated + unstated
    return sorted(chosen, key=lambda triple: (triple.group == CONTROL, triple.relation_id, triple.object))


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
