"""Background text → GPT-NeoX's .bin/.idx, without the documents that state a fact under test.

A build is planned once; the same call after a kill goes on with that plan, and one that would give other bytes is
refused. Datatrove is loaded when a build runs.
"""

import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin import __version__
from kisl_plugin.corpus.inputs import MEGABYTE, URL, Piece, cut_into_pieces, find_files
from kisl_plugin.corpus.shards import (
    LARGEST_BLEND,
    NO_TRIPLES,
    BuildPaths,
    Corpus,
    Plan,
    Stamp,
    claim,
    merge_shards,
    read_plan,
    write_plan,
)
from kisl_plugin.corpus.tokenizer import check_keeps_text
from kisl_plugin.errors import InputError, KislError, needs_extra
from kisl_plugin.files import sha256
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.indexed import file_of
from kisl_plugin.matching import MatchRules, matcher_of
from kisl_plugin.progress import Progress
from kisl_plugin.triples import read_triples, triples_to_jsonl

if TYPE_CHECKING:
    from kisl_plugin.corpus.executors import Runner, Stage

__all__ = ["BuildOptions", "build_corpus"]

_MOST_TASKS = 1000
_WATCH = "watch with squeue --me; the same command shows the progress, and resubmits what failed"


@dataclass(frozen=True)
class BuildOptions:
    """What a build reads and writes, and how it is divided.

    `triples` is a source of `read_triples`, or "none" to keep every document. `tasks` None: one for each piece, at most
    1,000. `workers` tasks share `cores`; the tokenizer uses the cores that they leave. `weighted`: the shards are not
    merged but listed in a YAML. `force`: an earlier result, or a build that was begun, is replaced. `skip_bad_rows`: of
    the triples, as read_triples does it. `skip_bad_documents`: those that cannot be read are counted, and listed in
    OUTPUT.bad.txt. `text_column`: the key or column of the texts.
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
    skip_bad_rows: bool = False
    skip_bad_documents: bool = False
    text_column: str = "text"

    def tasks_for(self, pieces: int) -> int:
        """The number of tasks that so many pieces are divided into."""
        most = LARGEST_BLEND + 1 if self.weighted else _MOST_TASKS  # of a weighted corpus one shard is held out
        return min(self.tasks or most, most, pieces)


def build_corpus(options: BuildOptions, runner: "Runner | None" = None) -> Corpus | list[str]:
    """Write OUTPUT.bin and .idx (weighted: shards and a .yml), the removed documents, a table, and OUTPUT.json last.

    The same inputs, triples, rules and tokenizer give the same bytes, whatever the tasks and workers. The same call
    after a kill makes only the shards that are not finished. There is no .idx before its documents.

    `runner` None runs the tasks on this machine: with several workers a script needs `if __name__ == "__main__":`, as
    with Python's own multiprocessing. Where a cluster goes on with the build, its status is returned, in lines.

    Raises:
        InputError: an input is bad, no document is left, `output` exists already, or what was begun there is another
            build; without `force`. Or datatrove is not installed.
        KislError: another build is running there, a task failed, or something cannot be written.
    """
    with needs_extra("corpus", "building a corpus"):
        from kisl_plugin.corpus.executors import LocalRunner, read_slurm_status
        from kisl_plugin.corpus.filter import encoder_of
    output = options.output
    again = "the same command without --force goes on from here"
    try:
        paths = _checked_paths(options)
        with claim(paths):
            old = read_plan(paths, ignore_damage=options.force)
            jobs, lines = read_slurm_status(_stages(options, paths, old) if old else [])
            if jobs and options.force:
                raise InputError(f"{output}: {'; '.join(lines)}; cancel these jobs before --force")
            plan = _plan(options, paths, old)
            if jobs:
                return [*lines, f"still running; {_WATCH}"]
            if not paths.manifest.exists():
                shards, merge = stages = _stages(options, paths, plan)
                merge.forget(0)
                # Tasks whose shard is not finished, or is damaged, run again.
                for rank in range(plan.tasks):
                    if Stamp.read(paths, plan, rank) is None:
                        file_of(paths.shard(rank), ".json").unlink(missing_ok=True)
                        paths.read_bytes(rank).unlink(missing_ok=True)
                        shards.forget(rank)
                if reason := encoder_of(paths.tokenizer, plan.id).reason:
                    print(f"{options.tokenizer}: encoded by the tokenizers library, slowly: {reason}", file=sys.stderr)
                if not _run_with_progress(runner or LocalRunner(options.workers), stages, paths, plan):
                    failed = (f"before: {line}" for line in lines if " failed: " in line)
                    return [*failed, *read_slurm_status(stages)[1], f"submitted; {_WATCH}"]
            corpus = Corpus.read(paths.manifest)
            paths.plan.unlink()  # without a plan the folder is removed
            return corpus
    except OSError as error:
        raise KislError(f"{output}: cannot be written ({error.strerror or error}); {again}") from error
    except KeyboardInterrupt:
        raise KislError(f"{output}: interrupted; {again}") from None


def _run_with_progress(runner: "Runner", stages: "list[Stage]", paths: BuildPaths, plan: Plan) -> bool:
    """Run the stages while the bytes that tasks have noted as read are shown; False if a cluster goes on with them."""
    megabytes = sum(piece.size for share in plan.shares for piece in share) // MEGABYTE
    # Made here: during a run sys.stderr leads nowhere.
    with closing(Progress("building the corpus, MB", max(1, megabytes))) as progress:

        def show() -> None:
            """The last line, which is always written, comes when all is done."""
            if not paths.manifest.exists():  # the merge has removed the stamps
                done = len(list(paths.shards.glob("*[0-9].json")))
                notes = [note.read_text(encoding="utf-8") for note in paths.read_bytes(0).parent.iterdir()]
                read = min(sum(int(note or 0) for note in notes) // MEGABYTE, progress.total - 1)
                progress.update(read, f"{done:,} of {plan.tasks:,} tasks done")

        complete = runner.run(stages, show)
        if complete:
            progress.update(progress.total, f"{plan.tasks:,} of {plan.tasks:,} tasks done")
        return complete


def _checked_paths(options: BuildOptions) -> BuildPaths:
    """Refuse an output that names no local file, or whose files exist without a build that was begun."""
    output = options.output
    if URL.match(str(output)):
        raise InputError(f"{output}: is a URL; results are written to this machine: give a path, then copy them")
    if output.name in ("", ".."):
        raise InputError(f"--output {output}: is a folder; expected the beginning of file names: {output}/corpus")
    if output.suffix in (".bin", ".idx"):
        raise InputError(f"--output {output}: {output.suffix} is appended; expected {output.with_suffix('')}")
    paths = BuildPaths(output.absolute())
    existing = _results(paths)
    if existing and not options.force and not paths.plan.exists():
        if paths.folder.exists():  # of a build that was killed when it had only its folder left to remove
            with claim(paths):
                pass
        raise InputError(f"{existing[0]}: already exists; choose another --output, or --force to replace it")
    return paths


def _results(paths: BuildPaths) -> list[Path]:
    """The files there that a build writes, and that a new one replaces; the manifest first."""
    ending = r"(_\d{5})?\.(json|idx|bin|yml|triples\.csv|bad\.txt)"
    folder, name = paths.output.parent, re.compile(re.escape(paths.output.name) + ending)
    files = [path for path in folder.iterdir() if name.fullmatch(path.name)] if folder.is_dir() else []
    return [*sorted(files, key=lambda path: path.suffix != ".json"), *paths.excluded.glob("[0-9]*[0-9].jsonl")]


def _plan(options: BuildOptions, paths: BuildPaths, old: Plan | None) -> Plan:
    """The plan to work by: `old`, if it gives the same bytes, else a new one in its place.

    Raises:
        InputError: an input is bad; or another build was begun, and finished shards would be lost.
    """
    tokenizer, _ = read_tokenizer(options.tokenizer)
    check_keeps_text(tokenizer, options.tokenizer)
    triples = [] if options.triples == NO_TRIPLES else read_triples(options.triples, options.skip_bad_rows)
    matcher_of([], options.rules)  # an unknown matcher is refused before any work
    tokenizer_json, triples_jsonl = tokenizer.to_str(), triples_to_jsonl(triples)
    files = find_files(options.inputs, options.text_column)

    def plan_of(shares: Sequence[Sequence[Piece]]) -> Plan:
        return Plan(
            triples=options.triples,
            triples_sha256=sha256(triples_jsonl),
            rules=options.rules,
            tokenizer=str(options.tokenizer),
            tokenizer_sha256=sha256(tokenizer_json),
            vocab_size=max(tokenizer.get_vocab().values()) + 1,
            # The releases that decide which documents are removed, and which tokens the others become.
            versions={
                "kisl-plugin": __version__,
                "tokenizers": version("tokenizers"),
                "Unicode": unicodedata.unidata_version,
            },
            shares=shares,
        )

    if old and not options.force:
        changed = _difference(old, plan_of([files]))
        pieces = sum(map(len, old.shares))
        if changed is None and options.tasks and options.tasks_for(pieces) != old.tasks:
            changed = ("--tasks", old.tasks, options.tasks)
        if changed is None:
            return old
        stamps = (Stamp.read(paths, old, rank) for rank in range(old.tasks))
        if paths.manifest.exists() or any(stamp.documents for stamp in stamps if stamp):
            what, before, now = changed
            raise InputError(
                f"{file_of(options.output, '.work')}: a build was begun there with {what} {before}, now it is {now}; "
                "go on with the old value, or add --force to start again"
            )
    pieces_now = cut_into_pieces(files)
    for path in [*_results(paths), *(path for path in paths.folder.iterdir() if path.name != "lock")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shares = share_out(pieces_now, options.tasks_for(len(pieces_now)))
    return write_plan(paths, plan_of(shares), triples_jsonl, tokenizer_json)


def share_out(pieces: Sequence[Piece], tasks: int) -> list[list[Piece]]:
    """Consecutive runs of pieces of about the same size, one a task, none empty."""
    shares, start, left = list[list[Piece]](), 0, sum(piece.size for piece in pieces)
    for remaining in range(tasks, 1, -1):
        stop, size = start + 1, pieces[start].size
        # Take the next piece if that brings the share nearer to an equal part of what is left.
        while len(pieces) - stop >= remaining and size + pieces[stop].size / 2 <= left / remaining:
            size += pieces[stop].size
            stop += 1
        shares.append(list(pieces[start:stop]))
        start, left = stop, left - size
    return [*shares, list(pieces[start:])]


def _difference(old: Plan, new: Plan) -> tuple[str, object, object] | None:
    """What decides the bytes and is not the same, with both values; None if nothing is."""
    pairs: list[tuple[str, object, object]] = [
        (f"{name} version", old.versions.get(name), new.versions.get(name)) for name in new.versions
    ]
    pairs.append(("--text-column", old.shares[0][0].text, new.shares[0][0].text))
    for (before, old_version), (now, new_version) in zip(old.files.items(), new.files.items(), strict=False):
        pairs += [("--input", before, now), (f"the version of {before}", old_version, new_version)]
    pairs += [
        ("--input", f"{len(old.files)} files", f"{len(new.files)} files"),
        ("--triples", f"{old.triples} ({old.triples_sha256[:12]})", f"{new.triples} ({new.triples_sha256[:12]})"),
        ("--tokenizer", old.tokenizer_sha256[:12], new.tokenizer_sha256[:12]),
        *((f"--{key.replace('_', '-')}", value, asdict(new.rules)[key]) for key, value in asdict(old.rules).items()),
    ]
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _stages(options: BuildOptions, paths: BuildPaths, plan: Plan) -> "list[Stage]":
    """The stage that makes shards, and the one that makes the result of them."""
    from kisl_plugin.corpus.executors import Stage
    from kisl_plugin.corpus.filter import make_shard

    threads = max(1, options.cores // min(options.workers, plan.tasks))
    task = partial(make_shard, paths, threads, options.skip_bad_documents, Path.cwd())
    return [
        Stage("shards", [task], plan.tasks, paths.folder / "stage_shards"),
        Stage("merge", [partial(merge_shards, paths, options.weighted)], 1, paths.folder / "stage_merge"),
    ]
