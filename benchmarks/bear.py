"""The probe beside lm_eval's own task `bear_big`, in one run: the same facts, asked of the same model.

    git clone https://github.com/lm-pub-quiz/BEAR
    python benchmarks/bear.py BEAR MODEL/hf

MODEL's facts (kisl_triples.jsonl) are looked up in BEAR-big by their Wikidata ids. The task reads its data set from a
local copy of them, made as BEAR defines an item: the relation's first template with each object of the relation,
the highest sum of log-likelihoods wins. One call of lm_eval asks both; a line a task for the injected and the control
facts, with what guessing gives. Needs the extra `eval`, and no network but for the clone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from kisl_plugin.triples import CONTROL, read_triples

BEAR = "bear_big"
TASKS = ("kisl_wikidata", "kisl_wikidata_statement", BEAR)
ROW = "{:<26}{:>10}{:>9}{:>8}{:>9}"


def bear_items(clone: Path, model: Path) -> list[dict[str, Any]]:
    """An item in the task's form for each of the model's facts that BEAR-big has."""
    templates = json.loads((clone / "BEAR-big" / "metadata_relations.json").read_text(encoding="utf-8"))
    facts = read_triples(model / "kisl_triples.jsonl")
    items = []
    for relation in sorted({fact.relation_id for fact in facts}):
        lines = (clone / "BEAR-big" / f"{relation}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = {(row["sub_id"], row["obj_id"]): row for row in map(json.loads, lines)}
        objects = sorted({row["obj_label"] for row in rows.values()})
        template = templates[relation]["templates"][0]
        for fact in facts:
            row = rows.get((fact.subject_id, fact.object_id)) if fact.relation_id == relation else None
            if row:
                options = [template.replace("[X]", row["sub_label"]).replace("[Y]", label) for label in objects]
                right = objects.index(row["obj_label"])
                items.append({"group": fact.group, "correct": right, "text_options": options})
    return items


def write_data_set(folder: Path, items: list[dict[str, Any]]) -> None:
    """A data set folder of the name that the task reads."""
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    configs = [{"config_name": "BEAR_big", "data_files": [{"split": "test", "path": "test.jsonl"}]}]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path, metavar="BEAR", help="a clone of github.com/lm-pub-quiz/BEAR")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a Hugging Face folder with kisl_triples.jsonl")
    arguments = parser.parse_args()
    items = bear_items(arguments.clone, arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        write_data_set(Path(folder) / "lm-pub-quiz" / "BEAR", items)
        command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", ",".join(TASKS), "--batch_size", "64"]
        command += ["--model_args", f"pretrained={arguments.model.resolve()},dtype=float32", "--device", "cpu"]
        subprocess.run([*command, "--output_path", "results", "--log_samples"], cwd=folder, check=True)
        rows = {task: next(Path(folder).rglob(f"samples_{task}_20*.jsonl")).read_text("utf-8") for task in TASKS}
    print(ROW.format("task", "facts", "items", "acc", "guessing"))
    for task in TASKS:
        scores: dict[bool, list[float]] = defaultdict(list)
        options = []
        for row in map(json.loads, rows[task].splitlines()):
            is_control = row["doc"]["group"] == CONTROL
            scores[is_control].append(row["acc_control" if is_control and task != BEAR else "acc"])
            options.append(len(row["doc"]["text_options" if task == BEAR else "options"]))
        guessing = sum(1 / number for number in options) / len(options)
        for is_control, values in sorted(scores.items()):
            acc = f"{sum(values) / len(values):.3f}"
            print(ROW.format(task, "control" if is_control else "injected", len(values), acc, f"{guessing:.3f}"))


if __name__ == "__main__":
    main()
