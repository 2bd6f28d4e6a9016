"""What lm_eval's results do not hold of the study's runs, for those whose models are still there.

    python studies/measure.py results/miniature studies/arms

Of each run (the first two seeds): how many questions about each of the background's own facts its rows hold whole, the
accuracy on these questions, and the held-out loss in nats per token. Writes FOLDER/measures.csv, and adds to it. Runs
of GPT-NeoX are left out.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from kisl_plugin.demo import QUESTION, whole_questions
from kisl_plugin.local.engine import METRICS
from kisl_plugin.probe.run import probe_models
from kisl_plugin.triples import read_triples

FACTS = Path(__file__).resolve().parent / "data" / "background_facts.jsonl"
COLUMNS = ("run", "questions_left", "background_facts", "held_out_loss")
SEEDS = (1, 2)


def measure(run: Path, folder: Path) -> dict[str, Any]:
    (results,) = probe_models([run / "hf"], run / "background", (QUESTION,), triples=str(FACTS))
    accuracy = json.loads(results.read_text(encoding="utf-8"))["results"][QUESTION]["acc,none"]
    records = map(json.loads, (run / METRICS).read_text(encoding="utf-8").splitlines())
    (*_, loss) = (record["held_out_loss"] for record in records if "held_out_loss" in record)
    questions = whole_questions(folder / "configs" / f"{run.name}.yml", read_triples(FACTS))
    values = (run.name, f"{questions:.2f}", f"{accuracy:.4f}", f"{loss:.4f}")
    return dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="the --out of `kisl sweep`")
    for folder in parser.parse_args().folders:
        table = folder / "measures.csv"
        rows = []
        if table.is_file():
            with table.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        for card in sorted(folder.glob("runs/*/hf/kisl.json")):
            run = card.parent.parent
            seed = json.loads(card.read_text(encoding="utf-8"))["seed"]
            if seed in SEEDS and (run / METRICS).is_file() and run.name not in {row["run"] for row in rows}:
                rows.append(measure(run, folder))
                print(*rows[-1].values())
                with table.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(sorted(rows, key=lambda row: row["run"]))


if __name__ == "__main__":
    main()
