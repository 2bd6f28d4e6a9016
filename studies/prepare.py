"""Make the study's data in studies/data: tokenizer, facts, and backgrounds in GPT-NeoX's format.

    python studies/prepare.py

Everything is made from the bundled facts and from studies/docstrings.jsonl.gz, so it is the same on every machine. That
file was written by `python studies/prepare.py --collect`, from the packages that were installed then.
"""

import argparse
import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path

from kisl_plugin.corpus.tokenizer import train_tokenizer
from kisl_plugin.demo_data import answered_question, choose_facts, docstrings, names_for_tokenizer
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import IndexedWriter
from kisl_plugin.llama import DEMO_VOCABULARY
from kisl_plugin.matching import matcher_of
from kisl_plugin.triples import CONTROL, Triple, read_triples, triples_to_jsonl
from kisl_plugin.verbalize import statement

STUDIES = Path(__file__).resolve().parent
DATA, DOCSTRINGS = STUDIES / "data", STUDIES / "docstrings.jsonl.gz"
SEED, OBJECTS = 1234, 11
CHARACTERS = 3_400_000  # of docstrings: enough for a background that has no questions
TOKENS = 1_260_000  # of a background: the longest run of the study reads it once


@dataclass(frozen=True)
class Background:
    """Shares of a background's tokens that are questions with answers, and statements, about the other facts."""

    questions: float
    statements: float = 0.2


BACKGROUNDS = {
    "core": Background(0.34),
    "no_questions": Background(0.0),
    "half_questions": Background(0.17),
    "most_questions": Background(0.51),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collect", action="store_true", help="collect the docstrings anew (other runs, other names)")
    collect = parser.parse_args().collect
    DATA.mkdir(exist_ok=True)
    triples = read_triples("wikidata_six")
    facts, others = choose_facts(triples, OBJECTS, 5, SEED)
    if collect:
        texts, left_out = docstrings(CHARACTERS, matcher_of(facts))
        with gzip.GzipFile(DOCSTRINGS, "wb", mtime=0) as file:
            file.write("".join(json.dumps(text) + "\n" for text in texts).encode())
        print(f"{len(texts):,} docstrings; {left_out} that state a fact under test are left out")
    with gzip.open(DOCSTRINGS, "rt", encoding="utf-8") as lines:
        prose = [json.loads(line) for line in lines]

    sets = {
        "facts": facts,
        "few": some(facts, [1] * OBJECTS),
        "balanced": some(facts, [3] * OBJECTS),
        "unbalanced": some(facts, COUNTS),
        "groups": grouped(facts),
        "protected": [*facts, *(replace(fact, group="asked") for fact in others)],
    }
    for name, chosen in {**sets, "background_facts": others}.items():
        (DATA / f"{name}.jsonl").write_text(triples_to_jsonl(chosen), encoding="utf-8")

    asked, stated = [answered_question(fact) for fact in others], [statement(fact) for fact in others]
    mixture = [*asked * 110, *stated * 112, *prose[: len(prose) // 7], *names_for_tokenizer(facts)]
    train_tokenizer(mixture, DEMO_VOCABULARY, DATA / "tokenizer.json")
    tokenizer, eod = read_tokenizer(DATA / "tokenizer.json")
    encoded = {
        kind: [[*one.ids, eod] for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        for kind, texts in {"asked": asked, "stated": stated, "prose": prose}.items()
    }
    for name, background in BACKGROUNDS.items():
        copies = {
            kind: round(share * TOKENS / sum(map(len, encoded[kind])))
            for kind, share in {"asked": background.questions, "stated": background.statements}.items()
        }
        # GPT-NeoX shuffles the documents of the training split; the last of all, docstrings, are held out.
        size = 0
        with IndexedWriter(DATA / f"{name}_document", tokenizer.get_vocab_size()) as writer:
            for kind, number in copies.items():
                for document in encoded[kind] * number:
                    writer.add(document)
                    size += len(document)
            for document in encoded["prose"]:
                if size >= TOKENS:
                    break
                writer.add(document)
                size += len(document)
        if size < TOKENS:
            raise SystemExit(f"{name}: {size:,} tokens, expected {TOKENS:,}; more docstrings are needed")
        print(f"{name}: {size:,} tokens; each fact asked {copies['asked']} times, stated {copies['stated']} times")


GROUPS = ("f4", "f10", "f18", "f28", "f42", "f60", "f96")
# Injected facts of each of a relation's objects: 33 a relation, as with three of each.
COUNTS = [5, 5, 5, 5, 4, 3, 2, 1, 1, 1, 1]


def grouped(facts: list[Triple]) -> list[Triple]:
    """The facts with the groups f4 … f96, whose facts are spread over the relations and their objects."""
    number, chosen = 0, []
    for fact in facts:
        if fact.group == CONTROL:
            chosen.append(fact)
        else:
            chosen.append(replace(fact, group=GROUPS[number % len(GROUPS)]))
            number += 1
    return chosen


def some(facts: list[Triple], counts: list[int]) -> list[Triple]:
    """Of the k-th object of each relation `counts[k]` injected facts; all control facts."""
    objects: dict[str, list[str]] = {}
    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for fact in facts:
        order = objects.setdefault(fact.relation_id, [])
        if fact.object not in order:
            order.append(fact.object)
        key = (fact.relation_id, fact.object)
        if fact.group == CONTROL:
            chosen.append(fact)
        elif taken.get(key, 0) < counts[order.index(fact.object)]:
            taken[key] = taken.get(key, 0) + 1
            chosen.append(fact)
    return chosen


if __name__ == "__main__":
    main()
