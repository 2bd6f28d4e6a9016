"""What `kisl corpus build --preview` says."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kisl_plugin.progress import duration

if TYPE_CHECKING:
    from kisl_plugin.corpus.preview import Preview

SHOWN = 10
MEGABYTE = 1e6


def preview_page(seen: "Preview", workers: int, output: Path) -> str:
    """The estimates, in lines."""
    share, low, high = seen.share()
    at_once = min(workers, seen.all_pieces)
    lines = [
        f"{seen.documents:,} documents ({seen.text / MEGABYTE:,.1f} MB of text) from the beginnings of "
        f"{seen.pieces:,} of {seen.all_pieces:,} pieces; {output} is not touched",
        f"removed   {share:.2%} of the documents, 95% interval {low:.2%} to {high:.2%} (Wilson), and "
        f"{1 - seen.kept / seen.text:.2%} of the text",
        "          documents of one file are alike, so the truth may lie further off than the interval says",
        *_top("relation", sorted(seen.removed.relations.items(), key=_most), seen),
        *_top("triple", ((_named(seen, index), count) for index, count in _sorted(seen.removed.triples)), seen),
        *_top("label", _sorted(seen.labels), seen),
        f"tokens    {seen.tokens / max(1, seen.kept):.3f} a byte of kept text; about {_rounded(seen.all_tokens)} left "
        f"of about {seen.all_text / MEGABYTE:,.0f} MB of text",
        f"time      {seen.bytes_a_second / MEGABYTE:,.1f} MB/s in one process; about "
        f"{duration(seen.hours(workers) * 3600)} with {at_once:,} worker{'s'[: at_once != 1]}",
    ]
    if seen.unsearchable:
        lines.append(f"triples   {seen.unsearchable:,} cannot be searched for, or not everywhere")
    return "\n".join(lines)


def _sorted(counts: "dict[str, int] | dict[int, int]") -> Iterator[tuple[str | int, int]]:
    yield from sorted(counts.items(), key=_most)


def _most(item: "tuple[str | int, int]") -> tuple[int, str]:
    return -item[1], str(item[0])


def _named(seen: "Preview", index: str | int) -> str:
    triple = seen.triples[int(index)]
    return f"{triple.subject} · {triple.relation_id} · {triple.object}"


def _top(what: str, counts: Iterable[tuple[str | int, int]], seen: "Preview") -> Iterator[str]:
    """The first ten, one a line; the documents that a triple removes are counted for each of its triples."""
    for number, (name, count) in enumerate(counts):
        if number == SHOWN:
            yield "            …"
            return
        title = f"by {what}" if number == 0 else ""
        yield f"{title:<12}{count:>6,}  {count / seen.documents:.2%}  {name}"


def _rounded(tokens: float) -> str:
    for size, word in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if tokens >= size:
            return f"{tokens / size:.3g}{word} tokens"
    return f"{tokens:,.0f} tokens"
