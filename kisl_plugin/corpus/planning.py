"""What a call is to work by: the plan that an earlier call began, if it is the same, else a new one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kisl_plugin.corpus.files import find_files
from kisl_plugin.corpus.outputs import refuse_url
from kisl_plugin.corpus.pieces import cut_into_pieces
from kisl_plugin.corpus.shards import holds_nothing
from kisl_plugin.corpus.work import (
    MOST_PATHS,
    NO_TRIPLES,
    Plan,
    Work,
    claimed,
    difference,
    empty,
    read_plan,
    versions,
    write_plan,
    write_sources,
)
from kisl_plugin.errors import InputError
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.runcard import sha256
from kisl_plugin.tokenizer import read_tokenizer
from kisl_plugin.triples import read_triples, triples_to_jsonl

MOST_TASKS = 1000
MOST_WEIGHTED = MOST_PATHS + 1  # one is held out
RESULTS = (".json", ".idx", ".bin", ".yml", ".triples.csv", ".bin.part", ".idx.part")


@dataclass(frozen=True)
class Build:
    """What is asked of a build. `tasks` None: as many as there are pieces, at most 1,000.

    `workers` tasks share `cores`; what tasks leave of them the tokenizer uses.
    """

    inputs: Sequence[str | Path]
    triples: str
    tokenizer: Path
    output: Path
    rules: MatchRules = field(default_factory=MatchRules)
    tasks: int | None = None
    workers: int = 1
    cores: int = 1
    weighted: bool = False
    force: bool = False

    def threads(self, tasks: int) -> int:
        """How many threads each of so many tasks tokenises with."""
        return max(1, self.cores // min(self.workers, tasks))

    @property
    def work(self) -> Work:
        """Where its parts lie."""
        return Work(self.output.absolute())


def refuse_existing(build: Build) -> None:
    """Nothing is replaced that was not asked to be.

    Raises:
        InputError: a result is there, and neither `force` is given nor a build begun; or `output` names no local file.
    """
    refuse_url(build.output)
    if build.output.name in ("", ".."):
        raise InputError(
            f"--output {build.output}: is a folder; expected the beginning of files: {build.output}/corpus"
        )
    if build.output.suffix in (".bin", ".idx"):
        raise InputError(
            f"--output {build.output}: {build.output.suffix} is appended; give the beginning of the files alone: "
            f"{build.output.with_suffix('')}"
        )
    there = next(_results(build.work), None)
    if there and not build.force and not build.work.plan.exists():
        if build.work.folder.exists():  # of a build that was killed when it had only its folder left to take away
            with claimed(build.work):
                pass
        raise InputError(f"{there}: is there already; choose another --output, or --force to replace")


def begun(build: Build) -> Plan | None:
    """The plan of an earlier call, which may have ended since; None without one, or where `force` may break it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return read_plan(build.work)
    except InputError:
        if not build.force:
            raise
        return None


def planned(build: Build, old: Plan | None) -> Plan:
    """The plan to work by: `old`, if the same is asked, else a new one in its place.

    Raises:
        InputError: an input is bad; or another build was begun and would be lost.
    """
    encoder, _ = read_tokenizer(build.tokenizer)
    facts = [] if build.triples == NO_TRIPLES else read_triples(build.triples)
    matcher_of([], build.rules)  # an unknown one is told before any work
    tokenizer_json, triples_jsonl = encoder.to_str(), triples_to_jsonl(facts)
    asked = Plan(
        files=tuple(find_files(build.inputs)),
        pieces=(),
        tasks=0,
        triples=build.triples,
        triples_sha256=sha256(triples_jsonl),
        rules=build.rules,
        tokenizer=str(build.tokenizer),
        tokenizer_sha256=sha256(tokenizer_json),
        vocab_size=max(encoder.get_vocab().values()) + 1,
        versions=versions(),
    )
    if old and not build.force and not _is_another(build, old, asked):
        write_sources(build.work, triples_jsonl, tokenizer_json)
        return old
    pieces = tuple(cut_into_pieces(asked.files))
    plan = replace(asked, pieces=pieces, tasks=_tasks(build, len(pieces)))
    _clear(build.work)
    write_plan(build.work, plan, triples_jsonl, tokenizer_json)
    return plan


def _tasks(build: Build, pieces: int) -> int:
    if build.weighted:
        return min(build.tasks or MOST_WEIGHTED, MOST_WEIGHTED, pieces)
    return min(build.tasks or MOST_TASKS, pieces)


def _is_another(build: Build, old: Plan, asked: Plan) -> bool:
    """Whether what was begun is another build, and nothing is lost without it."""
    work = build.work
    changed = difference(old, asked)
    if changed is None and build.tasks and _tasks(build, len(old.pieces)) != old.tasks:
        changed = ("--tasks", old.tasks, build.tasks)
    if changed is None:
        return False
    if work.manifest.exists() or not holds_nothing(work, old):
        what, was, is_now = changed
        raise InputError(
            f"{file_of(build.output, '.work')}: a build was begun there with {what} {was}, now it is {is_now}; go on "
            "with the old value, or add --force to start anew"
        )
    return True


def _clear(work: Work) -> None:
    """Take away what an earlier build left."""
    for path in list(_results(work)):
        path.unlink()
    empty(work)


def _results(work: Work) -> Iterator[Path]:
    """The files there that a build writes, and that a new one replaces."""
    yield from (path for ending in RESULTS if (path := file_of(work.output, ending)).exists())
    shard = re.compile(re.escape(work.output.name) + r"_\d{5}\.(bin|idx)")
    if work.output.parent.is_dir():
        yield from sorted(path for path in work.output.parent.iterdir() if shard.fullmatch(path.name))
    yield from sorted(work.excluded.glob("[0-9]*[0-9].jsonl"))
