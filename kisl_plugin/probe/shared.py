"""The question that four options share, computed once: one row per question, the options side by side after it.

An option's tokens see the question and their own option, not the other options, and stand at the places at which they
would stand alone. So the numbers are those of four rows, for the price of little more than one.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kisl_plugin.options import DISTRACTORS
from kisl_plugin.progress import Progress

if TYPE_CHECKING:
    import torch

    from kisl_plugin.probe.scoring import Pair

Score = tuple[float, bool]
TOLERANCE = 1e-5  # nats per token
SIDE_BY_SIDE = DISTRACTORS + 1
CHECKED = 8  # questions that lm_eval scores too, in its own way, before the shared way is trusted

log = logging.getLogger("lm_eval")


@dataclass(frozen=True)
class Row:
    """A question and the options that follow it, as token ids; `first` is the first option's place among all pairs."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    first: int

    def __len__(self) -> int:
        """Tokens that are fed: an option's last token is only predicted."""
        return len(self.context) + sum(len(option) - 1 for option in self.options)


def shared_scores(
    lm: Any, pairs: Sequence["Pair"], in_full: Callable[[Any, Sequence["Pair"]], list[Score]]
) -> list[Score] | None:
    """(summed log-likelihood, is_greedy) of each pair, or None where this model of lm_eval's `hf` does not allow it.

    The way is used only in float32 and finer, and where some questions give the same numbers as `in_full`, to 1e-5 nats
    per token: a model may have its own idea of masks and positions.
    """
    if not _may_share(lm):
        return None
    rows = sorted(_rows(pairs), key=len, reverse=True)
    few = _few(rows)
    checked = [pairs[row.first + k] for row in few for k in range(len(row.options))]
    try:
        batch_size = _batch_size(lm, rows[0])
        difference = _difference(_score(lm, few, batch_size), in_full(lm, checked), checked)
    except Exception as error:  # a model's own code may refuse the mask in any way it likes
        log.info("kisl: the shared question is not for this model (%s: %s)", type(error).__name__, error)
        return None
    if difference > TOLERANCE:
        log.info("kisl: the shared question is not for this model (numbers differ by %.1e nats)", difference)
        return None
    log.info("kisl: the shared question is computed once; %d checked, they agree to %.1e nats", len(few), difference)
    progress = Progress("questions", len(rows)) if lm.rank == 0 else None
    scored = _score(lm, rows, batch_size, progress)
    if progress is not None:
        progress.close()
    order = [row.first + k for row in rows for k in range(len(row.options))]
    return [score for _, score in sorted(zip(order, scored, strict=True), key=lambda placed: placed[0])]


def _may_share(lm: Any) -> bool:
    """Whether a text's numbers depend on the text alone: not on a coarse type, nor on the longest text of a batch."""
    mixed = getattr(lm, "mixed_precision_dtype", None) is not None
    exact = str(lm.model.dtype) in ("torch.float32", "torch.float64") and not mixed
    if not exact:
        log.warning("kisl: scored in a type in which near options may change places; dtype=float32 is recommended")
    return getattr(lm, "backend", None) == "causal" and exact and not minds_its_batch(lm)


def minds_its_batch(lm: Any) -> bool:
    """Whether the positions of an `hf` model depend on the longest text of a batch (rope dynamic and longrope)."""
    config = getattr(getattr(lm, "model", None), "config", None)
    positions = f"{getattr(config, 'rope_scaling', None)} {getattr(config, 'rope_parameters', None)}"
    return any(kind in positions for kind in ("dynamic", "longrope"))


def _rows(pairs: Sequence["Pair"]) -> list[Row]:
    rows, first = [], 0
    for context, group in groupby(pairs, key=lambda pair: pair.context):
        options = [pair.option for pair in group]
        # All items may have one context: BOS, where statements begin with their objects.
        for start in range(0, len(options), SIDE_BY_SIDE):
            side_by_side = tuple(options[start : start + SIDE_BY_SIDE])
            rows.append(Row(context, side_by_side, first))
            first += len(side_by_side)
    return rows


def _few(rows: Sequence[Row]) -> list[Row]:
    """Some of the rows, from the longest to the shortest, and the two at which a model would first go wrong.

    One has the longest text of question and option: a model may look back over so many tokens only. The other has most
    tokens of options beside another's: a model that does not heed the mask sees these.
    """

    def text(place: int) -> int:
        return len(rows[place].context) + max(map(len, rows[place].options))

    def beside(place: int) -> int:
        return sum(sorted(len(option) - 1 for option in rows[place].options)[:-1])

    places = range(len(rows))
    spread = {(len(rows) - 1) * k // (CHECKED - 1) for k in range(CHECKED)}
    return [rows[place] for place in sorted(spread | {max(places, key=text), max(places, key=beside)})]


def _difference(shared: Sequence[Score], full: Sequence[Score], pairs: Sequence["Pair"]) -> float:
    """The largest difference in nats per token; infinite where greedy decoding differs or a number is missing."""
    largest = 0.0
    for (a, a_greedy), (b, b_greedy), pair in zip(shared, full, pairs, strict=True):
        difference = abs(a - b) / len(pair.option)
        largest = max(largest, difference) if a_greedy == b_greedy and difference == difference else float("inf")
    return largest


def _batch_size(lm: Any, longest: Row) -> int:
    if str(lm.batch_size) != "auto":
        return int(lm.batch_size)
    return int(lm._detect_batch_size([("", [0] * len(longest), [0])]))


def _score(lm: Any, rows: Sequence[Row], batch_size: int, progress: Progress | None = None) -> list[Score]:
    scored: list[Score] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        scored += _score_batch(lm, batch)
        if progress is not None:
            progress.update(start + len(batch))
    return scored


def _score_batch(lm: Any, rows: Sequence[Row]) -> list[Score]:
    import torch

    ids, positions, options = _tensors(rows, lm.device)
    allowed = _mask(options, lm.model.dtype)
    with torch.no_grad():
        logits = lm.model(input_ids=ids, attention_mask=allowed, position_ids=positions).logits
    if logits.shape[:2] != ids.shape:
        raise ValueError(f"{logits.shape[1]} logits for {ids.shape[1]} tokens")
    where, targets, lengths = _targets(rows)
    predicted = logits[tuple(torch.tensor(where, device=lm.device).T)]  # [targets, vocabulary]
    wanted = torch.tensor(targets, device=lm.device)
    logs = torch.log_softmax(predicted, dim=-1, dtype=getattr(lm, "softmax_dtype", None))
    each = torch.split(logs.gather(1, wanted[:, None])[:, 0], lengths)
    greedy = torch.split(predicted.argmax(dim=-1) == wanted, lengths)
    return [(float(nats.sum()), bool(says.all())) for nats, says in zip(each, greedy, strict=True)]


def _tensors(rows: Sequence[Row], device: Any) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Ids, positions and option numbers (0 the question, -1 padding), each [rows, longest row]."""
    import torch

    width = max(map(len, rows))
    ids, positions, options = [], [], []
    for row in rows:
        length = len(row.context)
        own, place, number = list(row.context), list(range(length)), [0] * length
        for k, option in enumerate(row.options, start=1):
            own += option[:-1]
            place += range(length, length + len(option) - 1)
            number += [k] * (len(option) - 1)
        padding = width - len(own)
        ids.append(own + [0] * padding)
        positions.append(place + [0] * padding)
        options.append(number + [-1] * padding)
    tensor = [torch.tensor(value, device=device) for value in (ids, positions, options)]
    return tensor[0], tensor[1], tensor[2]


def _mask(options: "torch.Tensor", dtype: Any) -> "torch.Tensor":
    """What each token may see, [rows, 1, tokens, tokens]: 0, or the type's lowest value."""
    import torch

    asks, seen = options[:, :, None], options[:, None, :]
    earlier = torch.ones(options.shape[1], options.shape[1], dtype=torch.bool, device=options.device).tril()
    allowed = earlier & ((seen == 0) | (seen == asks))
    mask = torch.zeros(allowed.shape, dtype=dtype, device=options.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def _targets(rows: Sequence[Row]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Where each option's tokens are predicted (row, place), the tokens, and each option's number of tokens."""
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    lengths: list[int] = []
    for number, row in enumerate(rows):
        place = len(row.context)
        for option in row.options:
            where.append((number, len(row.context) - 1))
            where += [(number, place + k) for k in range(len(option) - 1)]
            place += len(option) - 1
            targets += option
            lengths.append(len(option))
    return where, targets, lengths
