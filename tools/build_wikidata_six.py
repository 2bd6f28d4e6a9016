"""Choose the bundled facts from a larger file of Wikidata facts.

python tools/build_wikidata_six.py RAW.jsonl kisl_plugin/data/wikidata_six.jsonl

RAW holds one Wikidata fact a line (subject, subject_id, subject_aliases, relation_id, object, object_id), as
collected by the BEAR probe (arXiv 2404.04113). The choice is a pure function of the facts in RAW, not of their order.
"""

import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from kisl_plugin.labels import folded_words, normalised
from kisl_plugin.triples import CONTROL, INJECTED, Triple, triples_to_jsonl

RELATIONS = ("P19", "P50", "P57", "P69", "P103", "P175")
PER_OBJECT = 7
LONG_WORD = 4
BRACKETS = {"(": ")", "[": "]", "{": "}"}
URL_LIKE = re.compile(r"https?:|www\.|\w\.(com|org|net|de|fr|io|tv)\b", re.IGNORECASE)


def read_raw(path: Path) -> list[Triple]:
    """The six relations' facts, labels normalised, in an order of their own."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    triples = [
        Triple(
            subject=normalised(row["subject"]),
            relation_id=row["relation_id"],
            object=normalised(row["object"]),
            subject_id=row["subject_id"],
            object_id=row["object_id"],
            subject_aliases=_aliases(row["subject_aliases"], normalised(row["subject"])),
        )
        for row in rows
        if row["relation_id"] in RELATIONS
    ]
    return sorted(set(triples), key=lambda t: (RELATIONS.index(t.relation_id), t.object, digest(t)))


def _aliases(labels: list[str], subject: str) -> tuple[str, ...]:
    clean = {normalised(label): None for label in labels}
    return tuple(label for label in clean if well_formed(label) and label != subject)


def digest(triple: Triple) -> str:
    """The hash that chooses among an object's facts."""
    return hashlib.sha256(f"{triple.subject_id}|{triple.relation_id}|{triple.object_id}".encode()).hexdigest()


def well_formed(label: str) -> bool:
    """No category, control or invisible character, open bracket or web address."""
    open_brackets: list[str] = []
    for char in label:
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return False
        if char in BRACKETS:
            open_brackets.append(BRACKETS[char])
        elif char in BRACKETS.values() and (not open_brackets or open_brackets.pop() != char):
            return False
    return bool(label) and not open_brackets and "Category:" not in label and not URL_LIKE.search(label)


def leaks(triple: Triple) -> bool:
    """Whether the subject's label holds all the object's words in a row, or a word that begins with a long one."""
    subject, obj = folded_words(triple.subject), folded_words(triple.object)
    whole = f" {' '.join(obj)} " in f" {' '.join(subject)} "
    return whole or any(mine.startswith(word) for word in obj if len(word) >= LONG_WORD for mine in subject)


def usable(triples: list[Triple]) -> list[Triple]:
    """The facts whose question has one answer and does not hold it; prints what each filter left out."""
    names = Counter((t.relation_id, folded_words(t.subject)) for t in triples)
    objects = Counter((t.relation_id, t.subject_id) for t in triples)
    filters = {
        "several objects": lambda t: objects[t.relation_id, t.subject_id] > 1,
        "label of two subjects": lambda t: names[t.relation_id, folded_words(t.subject)] > 1,
        "malformed label": lambda t: not (well_formed(t.subject) and well_formed(t.object)),
        "subject no name": lambda t: t.subject[:1].islower(),
        "subject is object": lambda t: t.subject_id == t.object_id or t.subject == t.object,
        "subject leaks object": leaks,
    }
    for name, out in filters.items():
        kept = [t for t in triples if not out(t)]
        print(f"{name}: {len(triples) - len(kept)} out")
        triples = kept
    return triples


def choose(triples: list[Triple]) -> list[Triple]:
    """Each object's PER_OBJECT facts with the smallest hashes, the first as a control; scarcer objects are left out."""
    of_object: dict[tuple[str, str], list[Triple]] = defaultdict(list)
    for triple in triples:
        of_object[triple.relation_id, triple.object].append(triple)
    chosen = []
    for facts in of_object.values():
        if len(facts) >= PER_OBJECT:
            control, *others = sorted(facts, key=digest)[:PER_OBJECT]
            chosen += [replace(control, group=CONTROL), *(replace(t, group=INJECTED) for t in others)]
    return chosen


def main(raw: str, out: str) -> None:
    """Build the file and print the counts that data/README.md gives."""
    chosen = choose(usable(read_raw(Path(raw))))
    Path(out).write_text(triples_to_jsonl(chosen), encoding="utf-8", newline="\n")
    for relation_id in RELATIONS:
        of_relation = [t for t in chosen if t.relation_id == relation_id]
        control = sum(t.group == CONTROL for t in of_relation)
        objects = len({t.object for t in of_relation})
        print(f"{relation_id}: {len(of_relation)} triples, {objects} objects, {control} control")


if __name__ == "__main__":
    main(*sys.argv[1:])
