"""The demo's data: facts of wikidata_six, a tokenizer, and a background that every machine can make.

The background holds text (the docstrings of the installed packages) and, as web text does, statements of other facts
and questions about them with their answers. It states none of the facts under test.
"""

import ast
import hashlib
import inspect
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import read_object, write_atomically
from kisl_plugin.hookspecs import Matcher
from kisl_plugin.llama import DEMO_VOCABULARY
from kisl_plugin.progress import Progress
from kisl_plugin.triples import CONTROL, INJECTED, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import question, statement

__all__ = [
    "FULL",
    "QUICK",
    "DemoData",
    "Scale",
    "answered_question",
    "choose_facts",
    "docstrings",
    "names_for_tokenizer",
    "prepare_data",
]

PACKAGES = ("datasets", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
_TEMPLATE = 1  # of the background's questions: the one that kisl_wikidata_direct asks
_NAME_WEIGHT = 100  # how often the tokenizer is shown each name, as a corpus of a usual size would


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
