"""Where triples come from, built in."""

import json
from pathlib import Path

from kisl_plugin.hookspecs import hookimpl
from kisl_plugin.triples import INJECTED, Triple

BUNDLED = ("wikidata_six",)
SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")


@hookimpl
def kisl_read_triples(source: str) -> list[Triple] | None:
    path = Path(__file__).parent / "data" / f"{source}.jsonl" if source in BUNDLED else Path(source)
    if not path.is_file():
        return None
    out = []
    for line in path.read_text(encoding="utf-8").splitlines():
        r = json.loads(line)
        out.append(
            Triple(
                r["subject"],
                r["relation_id"],
                r["object"],
                r.get("subject_id", ""),
                r.get("object_id", ""),
                tuple(r.get("subject_aliases", ())),
                tuple(r.get("object_aliases", ())),
                r.get("group", INJECTED),
            )
        )
    return out
