"""Does the probe give the same numbers in every release of lm_eval from 0.4.4 on?

    python benchmarks/lm_eval_versions.py                                  # all: half an hour, 1.5 GB at a time
    python benchmarks/lm_eval_versions.py 0.4.9 0.4.12 --keep environments # 1.5 GB each, at once the next time

Each release gets a new virtual environment, the checkout's wheel, and the real `lm_eval` command: in another folder,
offline, with a random model of 60,000 parameters. It is asked by its run card and, where lm_eval has --metadata, by a
triples file and by a run card that stands elsewhere. Everything is compared with the newest release: each item's
perplexities (as nats per token) and choice, each metric, and the run card in the results. A release that is excluded
has to fail at a task that has nothing to do with this project. Needs the extra `test`; exit status 1 if one differs.
"""

import argparse
import csv
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_environments import RELEASES, ROOT, Environment, ReleaseError, build_wheel, make_environment
from packaging.version import Version

sys.path.append(str(ROOT / "tests"))
from probe_world import plain_model, some_triples, write_card  # the tests' tiny model

NEWEST = RELEASES[-1]
EXCLUDED = {"0.4.9.2": "cannot load any external task"}
FIRST_WITH_METADATA = Version("0.4.9")
TOLERANCE = 1e-5
SAME_AS = {"run_card": "card"}
ROW = "{:<9}{:<14}{:>6}{:>15}{:>9}  {}"

# A task of lm_eval's own kind, for the releases that are excluded.
PLAIN_TASK = """\
task: plain_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
num_fewshot: 0
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{answer}}}}"
"""


@dataclass(frozen=True)
class World:
    """What every release is asked: a model with a run card, one without, a triples file, a plain task."""

    folder: Path
    card: dict[str, Any]

    def questions(self, release: str) -> dict[str, list[str]]:
        """Arguments of `lm_eval` by what is asked."""
        asked = {"card": _model(self.folder / "with_card")}
        if Version(release) >= FIRST_WITH_METADATA:
            for key, path in (("triples", "facts.csv"), ("run_card", str(self.folder / "with_card" / "kisl.json"))):
                asked[key] = [*_model(self.folder / "without"), "--metadata", json.dumps({key: path})]
        return asked


@dataclass(frozen=True)
class Answer:
    """What `lm_eval` wrote for one question: metrics by (task, name), the items' documents by (task, number)."""

    metrics: dict[tuple[str, str], float]
    items: dict[tuple[str, int], dict[str, Any]]
    cards: list[Any]


def _model(folder: Path) -> list[str]:
    return ["--model", "hf", "--model_args", f"pretrained={folder},dtype=float32", "--device", "cpu"]


def make_world(folder: Path) -> World:
    plain_model(folder / "without")
    card = write_card(plain_model(folder / "with_card"), some_triples())
    (folder / "away").mkdir()
    (folder / "plain").mkdir()
    with (folder / "away" / "facts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["subject", "relation_id", "object"])
        rows.writerows([triple.subject, triple.relation_id, triple.object] for triple in some_triples())
    question = {"question": "Who is it?", "options": ["Anna", "Bert"], "answer": 1}
    rows_file = folder / "plain" / "rows.jsonl"
    rows_file.write_text(json.dumps(question) + "\n", encoding="utf-8")
    (folder / "plain" / "plain.yaml").write_text(PLAIN_TASK.format(rows=rows_file), encoding="utf-8")
    return World(folder, card)


def ask(environment: Environment, world: World, tasks: str) -> tuple[dict[str, Answer], float]:
    """The answers by question, and the seconds of the whole command for the first."""
    answers, seconds = {}, []
    for name, arguments in world.questions(environment.release).items():
        out = world.folder / f"{environment.release}-{name}"
        options = ["--tasks", tasks, "--batch_size", "8", "--output_path", str(out), "--log_samples"]
        seconds.append(environment.lm_eval([*arguments, *options], world.folder / "away"))
        answers[name] = read_answer(out)
    return answers, seconds[0]


def read_answer(out: Path) -> Answer:
    written = sorted(out.rglob("results_*.json"))
    if len(written) != 1:
        raise ReleaseError(f"{out}: {len(written)} results files instead of one")
    results = json.loads(written[0].read_text(encoding="utf-8"))
    metrics = {
        (task, name): value
        for task in results["configs"]  # not the group, of which 0.4.4 makes averages
        for name, value in results["results"][task].items()
        if isinstance(value, float) and "_stderr" not in name
    }
    items = {}
    for task in results["configs"]:
        (file,) = written[0].parent.glob(f"samples_{task}_20*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            items[task, row["doc_id"]] = row["doc"]
    cards = [config.get("metadata", {}).get("kisl") for config in results["configs"].values()]
    return Answer(metrics, items, cards)


def nats_apart(ours: Answer, reference: Answer) -> float:
    """The largest difference of two perplexities, in nats per token.

    Raises:
        ReleaseError: other items, choices or metrics.
    """
    if ours.items.keys() != reference.items.keys() or ours.metrics.keys() != reference.metrics.keys():
        names = sorted(ours.metrics.keys() ^ reference.metrics.keys())
        raise ReleaseError(f"differs: {len(ours.items)} items instead of {len(reference.items)}, metrics: {names}")
    for key, value in reference.metrics.items():
        if not math.isclose(ours.metrics[key], value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise ReleaseError(f"differs: {key} is {ours.metrics[key]} instead of {value}")
    return max(_item_apart(key, ours.items[key], item) for key, item in reference.items.items())


def _item_apart(key: tuple[str, int], ours: dict[str, Any], reference: dict[str, Any]) -> float:
    inexact = {"perplexities"}
    if any(ours[name] != value for name, value in reference.items() if name not in inexact):
        raise ReleaseError(f"differs: item {key} is {ours} instead of {reference}")
    pairs = zip(ours.get("perplexities", ()), reference.get("perplexities", ()), strict=True)
    return max((abs(math.log(one) - math.log(other)) for one, other in pairs), default=0.0)


def verdict(answers: dict[str, Answer], references: dict[str, Answer], card: dict[str, Any]) -> tuple[float, str]:
    """The largest difference to the newest release over all questions, and what it means.

    The models with and without a card have the same weights, so a card named in --metadata changes nothing.
    """
    apart = 0.0
    for name, answer in answers.items():
        if answer.items.keys() != references["card"].items.keys():
            raise ReleaseError(f"differs: {len(answer.items)} items asked by {name}")
        apart = max(apart, nats_apart(answer, references[SAME_AS.get(name, name)]))
        if name != "triples" and any(found != card for found in answer.cards):
            raise ReleaseError(f"differs: the run card in the results, asked by {name}")
    if apart > TOLERANCE:
        raise ReleaseError(f"differs: by {apart:.1e} nats per token")
    return apart, "same, asked by " + ", ".join(answers)


def load_plain_task(environment: Environment, world: World) -> None:
    """Ask a task that this project has no part in, from a folder, without our hook."""
    arguments = [*_model(world.folder / "without"), "--tasks", "plain_choice", "--include_path"]
    environment.lm_eval([*arguments, str(world.folder / "plain")], world.folder / "away", KISL_NO_LM_EVAL_HOOK="1")


def how_it_fails(environment: Environment, world: World) -> str:
    """What an excluded release says to the plain task.

    Raises:
        ReleaseError: nothing, so that there is no reason to exclude it.
    """
    try:
        load_plain_task(environment, world)
    except ReleaseError as failure:
        return str(failure)
    raise ReleaseError("loads an external task: there is no reason to exclude it")


@contextmanager
def environment_of(release: str, keep: Path | None, wheel: Path, torch: str) -> Iterator[Environment]:
    if keep is not None:
        yield make_environment(release, keep.resolve() / release, wheel, torch)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield make_environment(release, Path(folder) / release, wheel, torch)


def show(environment: Environment, items: object, apart: object, seconds: object, says: str) -> None:
    transformers = environment.version_of("transformers")
    print(ROW.format(environment.release, transformers, items, apart, seconds, says), flush=True)


def compare(environment: Environment, world: World, tasks: str, references: dict[str, Answer]) -> None:
    """Print the release's row; the newest comes first and fills `references`."""
    if environment.release in EXCLUDED:
        says = f"excluded: {EXCLUDED[environment.release]}: {how_it_fails(environment, world)}"
        return show(environment, "-", "-", "-", says)
    if not references:
        load_plain_task(environment, world)  # so that where this fails it is the release's fault
    answers, seconds = ask(environment, world, tasks)
    for name, answer in answers.items():
        references.setdefault(name, answer)
    apart, says = verdict(answers, references, world.card)
    return show(environment, len(answers["card"].items), f"{apart:.1e}", f"{seconds:.0f}", says)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("releases", nargs="*", metavar="VERSION", help=f"of lm_eval; left out: {' '.join(RELEASES)}")
    parser.add_argument("--tasks", default="kisl", help="tasks or groups of this project (default: kisl)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where environments are kept and found again")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip is asked for (default: torch==2.13.0)")
    given = parser.parse_args()
    if unknown := set(given.releases) - set(RELEASES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; expected some of {' '.join(RELEASES)}")
    return given


def in_order(given: Sequence[str]) -> list[str]:
    """The newest first, with which the others are compared."""
    return [NEWEST, *(release for release in RELEASES if release in (given or RELEASES) and release != NEWEST)]


def main() -> None:
    given = arguments()
    references: dict[str, Answer] = {}
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        wheel, world = build_wheel(Path(folder)), make_world(Path(folder))
        print(ROW.format("lm_eval", "transformers", "items", "nats per token", "seconds", "compared with " + NEWEST))
        for release in in_order(given.releases):
            try:
                with environment_of(release, given.keep, wheel, given.torch) as environment:
                    compare(environment, world, given.tasks, references)
            except ReleaseError as failure:
                bad.append(release)
                print(f"{release:<9}FAILED  {failure}", flush=True)
            if not references:
                break  # without the newest there is nothing to compare with
    sys.exit(f"not the same: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
