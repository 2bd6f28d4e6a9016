"""The demo's data: facts, background text without them, a tokenizer, and the corpus in GPT-NeoX's format."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.corpus.tokenise import write_documents
from kisl_plugin.corpus.vocabulary import train_tokenizer
from kisl_plugin.demo.scale import Scale
from kisl_plugin.demo.text import docstrings
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.matching import matcher_of
from kisl_plugin.resources import resource
from kisl_plugin.runcard import write_atomically
from kisl_plugin.tokenizer import read_tokenizer
from kisl_plugin.triples import CONTROL, INJECTED, Triple, read_triples, triples_to_jsonl

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
