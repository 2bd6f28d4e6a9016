"""Documents → GPT-NeoX's .bin/.idx, without those that state a fact under test."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.corpus.readers import cut_into_pieces, find_files, refuse_url
from kisl_plugin.corpus.shards import (
    MOST_PATHS,
    NO_TRIPLES,
    BuildProgress,
    Plan,
    Work,
    claimed,
    difference,
    discard,
    empty,
    holds_nothing,
    merge_note_of,
    not_written,
    note_of,
    read_plan,
    read_stamp,
    remove,
    versions,
    write_plan,
    write_sources,
)
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.files import sha256
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.triples import read_triples, triples_to_jsonl

# What a call is to work by: the plan that an earlier call began, if it is the same, else a new one.

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


# Documents → GPT-NeoX's .bin/.idx, without those that state a fact under test.

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner, Stage
    from kisl_plugin.corpus.shards import Corpus
    from kisl_plugin.corpus.slurm import StageStatus

ATTEMPTS = 3


class InterruptedBuildError(KislError):
    """Ctrl-C; nothing that is finished is lost."""

    exit_status = 130


@dataclass(frozen=True)
class Pending:
    """A build that a cluster works at: how its stages stand, and whether this call submitted them."""

    lines: list[str]
    submitted: bool


@dataclass(frozen=True)
class Done:
    """A build that is done; this call read `size` bytes of text in `seconds`."""

    corpus: "Corpus"
    size: int
    seconds: float


def build_corpus(
    inputs: Sequence[str | Path],
    triples: str,
    tokenizer: Path,
    output: Path,
    *,
    rules: MatchRules | None = None,
    tasks: int | None = None,
    workers: int = 1,
    weighted: bool = False,
    force: bool = False,
) -> "Corpus":
    """Build on this machine, `workers` tasks at a time; see `run_build`.

    With several workers a script needs `if __name__ == "__main__":`, as with Python's own multiprocessing.
    """
    _check_installed()
    from kisl_plugin.corpus.executors import LocalRunner

    build = Build(
        inputs, triples, tokenizer, output, rules or MatchRules(), tasks, workers, weighted=weighted, force=force
    )
    found = run_build(build, LocalRunner(workers))
    if isinstance(found, Pending):
        raise KislError(f"{output}: {'; '.join(found.lines)}; wait for these jobs of an earlier call")
    return found.corpus


def run_build(build: Build, runner: "Runner") -> Done | Pending:
    """Write OUTPUT.bin and .idx (`weighted`: shards and a .yml), the removed documents, a table, and OUTPUT.json last.

    The same inputs, triples, rules and tokenizer give the same bytes, whatever the tasks and workers. A build that was
    killed goes on when it is called again: only shards that are not finished are made. There is no .idx before its
    documents. `triples` is a source of `read_triples`, or "none" to keep every document.

    Raises:
        InputError: an input is bad, no document is left, `output` is there already, or what was begun there is another
            build; without `force`.
        KislError: another build is at work there, a task failed, or something cannot be written.
    """
    _check_installed()
    work = build.work
    refuse_existing(build)
    with claimed(work):
        try:
            return _build(build, work, runner)
        except OSError as error:
            raise not_written(str(build.output), error) from error
        except KeyboardInterrupt:
            raise InterruptedBuildError(
                f"{build.output}: interrupted{_done(work)}; the same command without --force goes on from here"
            ) from None


def stages_of(work: Work, plan: Plan, threads: int = 1, weighted: bool = False) -> "list[Stage]":
    """The stage that makes shards, and the one that makes the result of them."""
    from kisl_plugin.corpus.executors import Stage
    from kisl_plugin.corpus.filter import Exclusions, FactFilter, MergeShards, ReadPieces, TokenizeShard

    facts = [FactFilter(work.triples, plan.rules, Exclusions(work.excluded), work.shards)] if plan.filters else []
    pipeline = [ReadPieces(work), *facts, TokenizeShard(work, threads)]
    return [
        Stage("shards", pipeline, plan.tasks, work.folder / "stage_shards"),
        Stage("merge", [MergeShards(work, weighted)], 1, work.folder / "stage_merge"),
    ]


def _check_installed() -> None:
    try:
        import datatrove  # noqa: F401
    except ImportError:
        raise InputError("building a corpus needs datatrove; pip install 'kisl-plugin[corpus]'") from None


def _build(build: Build, work: Work, runner: "Runner") -> Done | Pending:
    from kisl_plugin.corpus.shards import Corpus

    began = time.monotonic()
    old = begun(build)
    jobs = _jobs(stages_of(work, old)) if old else []
    active = any(stage.jobs for stage in jobs)
    if active and build.force:
        raise InputError(f"{build.output}: {'; '.join(_lines(jobs))}; cancel these jobs before --force")
    plan = planned(build, old)
    if active:
        return Pending([*_lines(jobs), BuildProgress(work, plan).line()], submitted=False)
    size = 0 if work.manifest.exists() else _run(work, plan, build, runner)
    if size is None:
        failed = [f"before: {line}" for stage in jobs if stage.failed for line in stage.lines()]
        return Pending([*failed, *_lines(_jobs(stages_of(work, plan)))], submitted=True)
    corpus = Corpus.read(work.manifest)
    remove(work)
    return Done(corpus, size, time.monotonic() - began)


def _run(work: Work, plan: Plan, build: Build, runner: "Runner") -> int | None:
    """Run what is not done; the bytes of text that were read, or None where a cluster goes on.

    Shards that the merge finds damaged are made again.
    """
    stages = stages_of(work, plan, build.threads(plan.tasks), build.weighted)
    read = 0
    for attempt in range(1, ATTEMPTS + 1):
        _forget_unfinished(work, plan, stages)
        progress = BuildProgress(work, plan)
        try:
            done = runner.run(stages, progress)
            if not done:
                return None
            progress.finish()
            return read + progress.fresh()
        except KislError:
            if attempt == ATTEMPTS or not work.damaged.exists():
                raise
            read += progress.fresh()
        finally:
            progress.close()
    raise AssertionError("the last attempt returns or raises")


def _forget_unfinished(work: Work, plan: Plan, stages: "Sequence[Stage]") -> None:
    from kisl_plugin.corpus.executors import forget

    shards, merge = stages
    for rank in range(plan.tasks):
        if read_stamp(work, plan, rank) is None:
            discard(work, rank)
            note_of(work, rank).unlink(missing_ok=True)
            forget(shards.folder, rank)
    forget(merge.folder, 0)
    for path in (work.damaged, merge_note_of(work)):
        path.unlink(missing_ok=True)


def _jobs(stages: "Sequence[Stage]") -> "list[StageStatus]":
    """How stages stand that were submitted to Slurm; empty if none was."""
    if not any((stage.folder / "jobs.json").exists() for stage in stages):
        return []
    from kisl_plugin.corpus.slurm import status

    return status(stages)


def _lines(jobs: "Sequence[StageStatus]") -> list[str]:
    return [line for stage in jobs for line in stage.lines()]


def _done(work: Work) -> str:
    plan = read_plan(work)
    if plan is None:
        return ""
    done = sum(read_stamp(work, plan, rank) is not None for rank in range(plan.tasks))
    return f" with {done} of {plan.tasks} tasks done"
