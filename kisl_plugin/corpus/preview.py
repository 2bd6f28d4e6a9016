"""What a build would remove, tokens and hours, estimated on a sample; nothing is written."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from kisl_plugin.corpus.build import Build
from kisl_plugin.corpus.filter import batches
from kisl_plugin.corpus.readers import Piece, TextDocument, cut_into_pieces, find_files, read_piece, total_size
from kisl_plugin.corpus.shards import NO_TRIPLES, Removed
from kisl_plugin.errors import InputError
from kisl_plugin.hookspecs import Match, Matcher
from kisl_plugin.huggingface import read_tokenizer
from kisl_plugin.matching import matcher_of, unsearchable
from kisl_plugin.progress import Progress
from kisl_plugin.triples import Triple, read_triples

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_PIECES = 200
BATCH = 200


@dataclass
class Preview:
    """What a sample told: `documents` that hold text, from the beginnings of `pieces` of `all_pieces`.

    `text` bytes of UTF-8 were read; those that stay, `kept` bytes, make `tokens`. `seconds` is what reading, matching
    and tokenising took in one process. All pieces have `whole` bytes, those looked into `begun`; if they go on as they
    begin, they hold `begun_text` bytes of text, which make `begun_tokens`. `labels` counts, by document, the words that
    were taken for a subject or an object.
    """

    all_pieces: int
    whole: int
    triples: Sequence[Triple]
    unsearchable: int
    pieces: int = 0
    documents: int = 0
    empty: int = 0
    begun: int = 0
    begun_text: float = 0.0
    begun_tokens: float = 0.0
    rows: int = 0
    text: int = 0
    kept: int = 0
    tokens: int = 0
    seconds: float = 0.0
    removed: Removed = field(default_factory=Removed)
    labels: Counter[str] = field(default_factory=Counter)

    def share(self) -> tuple[float, float, float]:
        """The share of documents that would be removed, with its 95% Wilson interval, as if they were independent."""
        from scipy.stats import binomtest

        interval = binomtest(self.removed.documents, self.documents).proportion_ci(0.95, method="wilson")
        return self.removed.documents / self.documents, float(interval.low), float(interval.high)

    @property
    def all_tokens(self) -> float:
        """Tokens of the corpus that the build would make."""
        return self.begun_tokens / self.begun * self.whole

    @property
    def all_text(self) -> float:
        """Bytes of text in all inputs."""
        return self.begun_text / self.begun * self.whole

    @property
    def bytes_a_second(self) -> float:
        """Text that one process gets through."""
        return self.text / self.seconds

    def hours(self, workers: int) -> float:
        """Hours for all inputs with so many workers, but no more than pieces, if all run as fast as this process."""
        workers = min(workers, self.all_pieces)
        return self.all_text / self.bytes_a_second / workers / 3600


def preview(build: Build, documents: int) -> Preview:
    """Read about `documents` documents, the same in every call, spread over all pieces (200 of them at most).

    Raises:
        InputError: an input is bad, or holds no documents.
    """
    encoder, _ = read_tokenizer(build.tokenizer)
    triples = [] if build.triples == NO_TRIPLES else read_triples(build.triples)
    matcher = matcher_of(triples, build.rules)
    pieces = cut_into_pieces(find_files(build.inputs))
    seen = Preview(len(pieces), total_size(pieces), triples, len(unsearchable(triples, build.rules)))
    progress = Progress("looking at a sample, documents", documents)
    began = time.perf_counter()
    try:
        for piece, most in _shares(pieces, documents):
            rows, text, tokens = seen.rows, seen.text, seen.tokens
            for batch in batches(_beginning(piece, most), BATCH):
                _look(seen, batch, matcher, encoder)
                progress.update(min(seen.documents + seen.empty, documents - 1))
            # What stands beside the text in a row differs from file to file.
            parts = piece.size / max(1, seen.rows - rows)
            seen.pieces, seen.begun = seen.pieces + 1, seen.begun + piece.size
            seen.begun_text += parts * (seen.text - text)
            seen.begun_tokens += parts * (seen.tokens - tokens)
        progress.total = seen.documents + seen.empty  # of inputs that hold no more than that
        progress.update(progress.total)
    finally:
        progress.close()
    seen.seconds = time.perf_counter() - began
    if not seen.documents:
        raise InputError(f"{build.inputs[0]}: no document in the sample holds any text")
    return seen


def _shares(pieces: Sequence[Piece], documents: int) -> Iterator[tuple[Piece, int]]:
    """Some pieces, evenly taken, each with the number of documents that its size asks for."""
    count = min(len(pieces), MOST_PIECES, documents)
    chosen = [pieces[i * len(pieces) // count] for i in range(count)]
    total, size, taken = total_size(chosen), 0, 0
    for piece in chosen:
        size += piece.size
        most = max(1, round(documents * size / total) - taken)
        taken += most
        yield piece, most


def _beginning(piece: Piece, most: int) -> Iterator[TextDocument]:
    """The first documents of a piece; of a Parquet file no more row groups are fetched than hold them."""
    if piece.start is None or piece.stop is None:
        parts = [piece]
    else:
        size = piece.size // max(1, piece.stop - piece.start)
        parts = [replace(piece, start=at, stop=at + 1, size=size) for at in range(piece.start, piece.stop)]
    return islice((document for part in parts for document in read_piece(part)), most)


def _look(seen: Preview, batch: Sequence[TextDocument], matcher: Matcher, encoder: "Tokenizer") -> None:
    filled = [document for document in batch if document.text and not document.text.isspace()]
    seen.empty += len(batch) - len(filled)
    seen.documents += len(filled)
    seen.rows += sum(document.row for document in batch)
    seen.text += sum(document.size for document in filled)
    kept = []
    for document, matches in zip(filled, matcher([document.text for document in filled]), strict=True):
        if matches:
            stated = [match.triple for match in matches]
            seen.removed.count(stated, (seen.triples[triple].relation_id for triple in stated))
            seen.labels.update(_labels(document.text, matches))
        else:
            kept.append(document)
    seen.kept += sum(document.size for document in kept)
    encodings = encoder.encode_batch_fast([document.text for document in kept], add_special_tokens=False)
    seen.tokens += sum(map(len, encodings)) + len(kept)


def _labels(text: str, matches: Sequence[Match]) -> set[str]:
    spans = (span for match in matches for span in (match.subject, match.object) if span)
    return {" ".join(text[start:end].split()).casefold() for start, end in spans}
