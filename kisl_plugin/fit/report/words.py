"""What was found, in sentences: the terminal and the page say the same."""

import math
from collections.abc import Sequence

from kisl_plugin.fit import human
from kisl_plugin.fit.curves.curve import CollapseCurve
from kisl_plugin.fit.curves.status import NO_COLLAPSE
from kisl_plugin.fit.laws.law import InfusionLaw
from kisl_plugin.fit.report.gathered import CurveReport, FitReport, LawReport

LOSSES = {
    "binomial": "binomial maximum likelihood",
    "huber-log": "Huber loss of log P (the paper's practice)",
    "least-squares": "least squares of P",
}


def many(number: int, noun: str) -> str:
    """`1 curve`, `2 curves`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def finding(report: FitReport) -> str:
    """The report in one sentence: nothing is claimed that the fit does not show."""
    if not report.curves:
        return "No collapse curve: no run with injected facts could be used."
    found = sorted((one for one in report.curves if one.curve.ok), key=lambda one: one.compute)
    if not found:
        return _no_collapse(report.curves)
    if len(found) == 1:
        return f"{found[0].name}: memory peaks at {f_star(found[0].curve)} and then falls{_law_in_short(report)}."
    ends = [f"F* = {human.estimate(one.curve.f_star)} ({human.interval(*one.curve.f_star_interval)})" for one in found]
    names = [human.count(one.params) if len(report.budgets) == 1 else one.name for one in found]
    return (
        f"{len(found)} of {many(len(report.curves), 'model')} show a collapse point, from {ends[0]} for {names[0]} "
        f"to {ends[-1]} for {names[-1]}{_law_in_short(report)}."
    )


def _no_collapse(curves: Sequence[CurveReport]) -> str:
    if len(curves) == 1:
        return f"No collapse point is shown for {curves[0].name}: {curves[0].curve.status}{_excluded(curves[0].curve)}."
    statuses = sorted({reported.curve.status for reported in curves})
    return f"No collapse point is shown for any of {many(len(curves), 'model')}: {', '.join(statuses)}."


def _excluded(curve: CollapseCurve) -> str:
    if not curve.status.startswith(NO_COLLAPSE) or not math.isfinite(curve.largest_fall):
        return ""
    return f" (a fall of more than {curve.largest_fall:.2f} is excluded)"


def _law_in_short(report: FitReport) -> str:
    law = report.headline and report.headline.law
    if not law:
        return "; there are too few for an infusion law"
    return f"; the infusion law through {law.models} of them has alpha = {law.alpha:.2g}"


def f_star(curve: CollapseCurve) -> str:
    """F* with its interval, where there is one."""
    return f"F* = {human.estimate(curve.f_star)} (95 % interval {human.interval(*curve.f_star_interval)})"


def noise(curve: CollapseCurve) -> str:
    """The run-to-run noise and where its size is from; empty for a curve that was not fitted."""
    if math.isnan(curve.f_star):
        return ""
    if not math.isfinite(curve.df):
        return f"run-to-run noise: {curve.tau_source}"
    return f"run-to-run noise tau = {curve.tau:.2f} (SD of the logit, from {curve.tau_source}, {curve.df:.3g} df)"


def tests(curve: CollapseCurve) -> str:
    """The p-values that a status rests on, of the tests that were made."""
    made = (("fall", curve.fall_p), ("unimodal", curve.unimodal_p), ("form", curve.form_p))
    return ", ".join(f"{name} {human.probability(p)}" for name, p in made if not math.isnan(p))


def remarks(found: CurveReport) -> list[str]:
    """What else is to be known of one curve: its status if it is not ok, noise, pairing, floor, notes."""
    curve = found.curve
    status = "" if curve.ok else f"{curve.status}: {curve.message}"
    if not math.isnan(curve.largest_fall) and not curve.ok:
        status += f"; the largest fall that the data allow is {curve.largest_fall:.3f}"
    floor = f"floor {found.floor.value:.3f}: {found.floor.source}"
    return [part for part in (status, tests(curve), noise(curve), found.pairing, floor, *found.notes) if part]


def law_sentence(found: LawReport) -> str:
    """The law of one token budget with its intervals and caveats."""
    law = found.law
    if law is None:
        return ""
    alpha = f"alpha = {law.alpha:.3g} (95 % interval {human.interval(*law.alpha_interval, parameter)})"
    E = f"E = {law.E:.3g} ({human.interval(*law.E_interval, parameter)})"
    sizes = ", ".join(human.count(params) for params in found.params)
    caveats = "".join(f"; {caveat}" for caveat in law.caveats)
    return (
        f"Infusion law F*(C) = A/C^alpha + E at D = {human.count(found.tokens)} ({sizes}): {alpha}, {E}, "
        f"A = {law.A:.4g}{fit_quality(law)}{caveats}."
    )


def fit_quality(law: InfusionLaw) -> str:
    """R², only beside what it is worth."""
    return "" if math.isnan(law.r2) else f", R² = {law.r2:.4f}"


def parameter(value: float) -> str:
    """A law's parameter to three digits."""
    return f"{value:.3g}"
