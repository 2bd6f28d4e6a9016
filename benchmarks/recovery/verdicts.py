"""Targets on what verdicts may get wrong, the same for every study of statuses."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from recovery.targets import SURE, Target, shares

MOST_WRONG, MOST_WRONG_ON_AVERAGE, MOST_NEVER_OK = 0.05, 0.02, 0.08


def wrong_verdicts(
    study: str, what: Sequence[str], wrong: Sequence[int], draws: Sequence[int]
) -> tuple[Target, Target]:
    """Verdicts against the truth: of each truth, and on average over the truths."""
    share = np.array(wrong) / np.array(draws)
    average = float(share.mean())
    error = float(np.sqrt((share * (1 - share) / np.array(draws)).sum())) / len(share)
    above = average - float(norm.ppf((1 + SURE) / 2)) * error > MOST_WRONG_ON_AVERAGE
    return (
        shares(f"{study}: verdicts against the truth, each truth", (0, MOST_WRONG), what, wrong, draws),
        Target(
            f"{study}: verdicts against the truth, average",
            f"≤ {MOST_WRONG_ON_AVERAGE}",
            f"{average:.4f}",
            (f"average: {average:.4f}",) if above else (),
        ),
    )


def never_ok(study: str, what: Sequence[str], ok: Sequence[int], draws: Sequence[int]) -> Target:
    """Curves that never fall and are called ok."""
    return shares(f"{study}: never falls, yet called ok", (0, MOST_NEVER_OK), what, ok, draws)
