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
from itertools import product
from pathlib import Path
from typing import Any

from kisl_plugin.triples import CONTROL, Triple, folded_words, normalised, triples_to_jsonl

# How many facts each object of a relation gets. P103 has fewer objects left, each with more facts.
PER_OBJECT = {"P19": 7, "P50": 7, "P57": 7, "P69": 7, "P103": 8, "P175": 7}
RELATIONS = tuple(PER_OBJECT)
LONG_WORD = 4
BRACKETS = {"(": ")", "[": "]", "{": "}"}
# Found by reading: places and peoples that have a "native language" (P103), and a label that a vandal wrote.
UNFIT = {
    "Q6418904": "Basseri",
    "Q208352": "Borjomi",
    "Q164714": "Danes",
    "Q3817714": "Enugu State",
    "Q109397319": "Gungula",
    "Q1011047": "Gurjaani",
    "Q875556": "Israelis",
    "Q15229609": "Jisonaayili",
    "Q2308140": "Kangeyam",
    "Q956954": "Kaspi",
    "Q919071": "Khalji dynasty",
    "Q1011016": "Kvareli",
    "Q180810": "Mtskheta",
    "Q4710008": "Saskhori",
    "Q1025823": "Stepantsminda",
    "Q165192": "Swedes",
    "Q941980": "Tkibuli",
    "Q20855220": "Tolon District",
    "Q18390350": "Yilonaayili",
    "Q20855260": "Zagyuri",
    "Q1031": "France Prešeren, vandalised",
}
# Names that English writes with an article; Wikidata's bare label becomes an alias.
WITH_ARTICLE = re.compile(
    "(University of|Hebrew University|Massachusetts Institute|London School|United States Military Academy|Karolinska)"
)
URL_LIKE = re.compile(r"https?:|www\.|\w\.(com|org|net|de|fr|io|tv)\b", re.IGNORECASE)


def read_raw(path: Path) -> list[Triple]:
    """The six relations' facts, labels normalised, in an order of their own."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    triples = [_triple(row) for row in rows if row["relation_id"] in RELATIONS]
    return sorted(set(triples), key=lambda t: (RELATIONS.index(t.relation_id), t.object, digest(t)))


def _triple(row: dict[str, Any]) -> Triple:
    subject, obj = normalised(row["subject"]), normalised(row["object"])
    article = "the " if WITH_ARTICLE.match(obj) else ""
    return Triple(
        subject=subject,
        relation_id=row["relation_id"],
        object=article + obj,
        subject_id=row["subject_id"],
        object_id=row["object_id"],
        subject_aliases=_aliases(row["subject_aliases"], subject),
        object_aliases=(obj,) if article else (),
    )


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
    """Whether the subject's label holds all the object's words in a row, or shares a long word or its beginning."""
    subject, obj = folded_words(triple.subject), folded_words(triple.object)
    whole = f" {' '.join(obj)} " in f" {' '.join(subject)} "
    long_ones = ([word for word in words if len(word) >= LONG_WORD] for words in (subject, obj))
    return whole or any(mine.startswith(its) or its.startswith(mine) for mine, its in product(*long_ones))


def usable(triples: list[Triple]) -> list[Triple]:
    """The facts whose question has one answer and does not hold it; prints what each filter left out."""
    names = Counter((t.relation_id, folded_words(t.subject)) for t in triples)
    objects = Counter((t.relation_id, t.subject_id) for t in triples)
    filters = {
        "several objects": lambda t: objects[t.relation_id, t.subject_id] > 1,
        "label of two subjects": lambda t: names[t.relation_id, folded_words(t.subject)] > 1,
        "malformed label": lambda t: not (well_formed(t.subject) and well_formed(t.object)),
        "subject without a capital": lambda t: t.subject[:1].islower(),
        "unfit by reading": lambda t: t.subject_id in UNFIT,
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
    for (relation_id, _), facts in of_object.items():
        if len(facts) >= PER_OBJECT[relation_id]:
            control, *others = sorted(facts, key=digest)[: PER_OBJECT[relation_id]]
            chosen += [replace(control, group=CONTROL), *others]
    return chosen


def main(raw: str, out: str) -> None:
    """Build the file and print the counts that data/README.md gives."""
    chosen = choose(usable(read_raw(Path(raw))))
    Path(out).write_text(triples_to_jsonl(chosen), encoding="utf-8", newline="\n")
    for relation_id in RELATIONS:
        of_relation = [t for t in chosen if t.relation_id == relation_id]
        share = sum(t.group == CONTROL for t in of_relation) / len(of_relation)
        objects = len({t.object for t in of_relation})
        print(f"{relation_id}: {len(of_relation)} triples, {objects} objects, {share:.3f} control")


if __name__ == "__main__":
    main(*sys.argv[1:])
