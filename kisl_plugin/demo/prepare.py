"""The demo's data: facts, background text without them, a tokenizer, and the corpus in GPT-NeoX's format."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kisl_plugin.demo.text import docstrings
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.matching import matcher_of
from kisl_plugin.runcard import write_atomically
from kisl_plugin.triples import CONTROL, INJECTED, Triple, read_triples, triples_to_jsonl

EOD, PADDING = "<|endoftext|>", "<|padding|>"
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


def prepare(folder: Path, seed: int, injected: int, control: int, characters: int) -> DemoData:
    """Make the data in `folder`, or find them as an earlier call left them."""
    stamp = folder / "prepared.json"
    wanted = {"seed": seed, "injected": injected, "control": control, "characters": characters}
    if stamp.is_file():
        found = json.loads(stamp.read_text(encoding="utf-8"))
        if found["wanted"] == wanted:
            return _placed(folder, *found["counts"])
    folder.mkdir(parents=True, exist_ok=True)
    facts = choose_facts(read_triples("wikidata_six"), injected, control, seed)
    write_atomically(folder / "facts.jsonl", triples_to_jsonl(facts))
    documents, left_out = docstrings(characters, matcher_of("subject_object", facts))
    tokens = _tokenise(documents, folder)
    counts = (len(documents), left_out, tokens)
    write_atomically(stamp, json.dumps({"wanted": wanted, "counts": counts}))
    return _placed(folder, *counts)


def choose_facts(triples: Sequence[Triple], injected: int, control: int, seed: int) -> list[Triple]:
    """A mixed choice of facts, as many of every relation as whole numbers allow."""
    chosen = []
    for group, count in ((INJECTED, injected), (CONTROL, control)):
        by_relation: dict[str, list[Triple]] = defaultdict(list)
        for triple in triples:
            if triple.group == group:
                by_relation[triple.relation_id].append(triple)
        share, rest = divmod(count, len(by_relation))
        for place, relation in enumerate(sorted(by_relation)):
            mixed = sorted(by_relation[relation], key=lambda triple: _mixed(triple, seed))
            chosen += mixed[: share + (place < rest)]
    return chosen


def _mixed(triple: Triple, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{json.dumps(asdict(triple), sort_keys=True)}".encode()).digest()


def _placed(folder: Path, documents: int, left_out: int, tokens: int) -> DemoData:
    return DemoData(
        folder / "tokenizer.json", folder / "text_document", folder / "facts.jsonl", documents, left_out, tokens
    )


def _tokenise(documents: list[str], folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOD, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    eod = tokenizer.token_to_id(EOD)
    tokens = 0
    with IndexedWriter(folder / "text_document", tokenizer.get_vocab_size()) as writer:
        for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
            writer.add([*encoding.ids, eod])
            tokens += len(encoding.ids) + 1
    return tokens
