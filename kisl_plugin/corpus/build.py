"""Documents → GPT-NeoX's .bin/.idx, without those that state a fact under test."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.corpus.planning import Build, begun, planned, refuse_existing
from kisl_plugin.corpus.shards import discard, read_stamp
from kisl_plugin.corpus.standing import BuildProgress, merge_note_of, note_of
from kisl_plugin.corpus.work import Plan, Work, claimed, not_written, read_plan, remove
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.matching import MatchRules

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner, Stage
    from kisl_plugin.corpus.executors.slurm_jobs import StageStatus
    from kisl_plugin.corpus.merge import Corpus

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
    from kisl_plugin.corpus.executors.local import LocalRunner

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
    from kisl_plugin.corpus.blocks import Exclusions, FactFilter, ReadPieces, TokenizeShard
    from kisl_plugin.corpus.executors import Stage
    from kisl_plugin.corpus.merge import MergeShards

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
    from kisl_plugin.corpus.merge import Corpus

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
    from kisl_plugin.corpus.executors.slurm_jobs import status

    return status(stages)


def _lines(jobs: "Sequence[StageStatus]") -> list[str]:
    return [line for stage in jobs for line in stage.lines()]


def _done(work: Work) -> str:
    plan = read_plan(work)
    if plan is None:
        return ""
    done = sum(read_stamp(work, plan, rank) is not None for rank in range(plan.tasks))
    return f" with {done} of {plan.tasks} tasks done"
