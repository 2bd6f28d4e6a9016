"""What was found, in sentences: the terminal and the page say the same."""

import math
from collections.abc import Sequence

from kisl_plugin.fit import human
from kisl_plugin.fit.curves.curve import CollapseCurve
from kisl_plugin.fit.curves.noise import SEEDS
from kisl_plugin.fit.curves.status import NO_COLLAPSE
from kisl_plugin.fit.laws.data_law import DataLaw
from kisl_plugin.fit.laws.hold_out import HeldOut
from kisl_plugin.fit.laws.joint import JointLaw
from kisl_plugin.fit.laws.law import InfusionLaw
from kisl_plugin.fit.laws.points import OPEN, Interval
from kisl_plugin.fit.laws.verdicts import Verdict
from kisl_plugin.fit.report.gathered import Bootstrap, CurveReport, DrawnLaw, FitReport, LawReport

NO_NOISE = {
    "seeds": "no run-to-run noise is seen between seeds",
    "lack of fit": "no run-to-run noise is seen about the curve, whose form this assumes",
    "none": "run-to-run noise cannot be told: no seeds, and too few frequencies",
}
BINOMIAL = "binomial"
LOSSES = {
    BINOMIAL: "binomial maximum likelihood",
    "huber-log": "Huber loss of log P (the paper's practice)",
    "least-squares": "least squares of P",
}


TRIPLES_ALONE = (
    "drawing triples shows what their choice changes in a law; the intervals of the law itself hold the scatter of "
    "models about it too"
)


def other_loss(loss: str) -> list[str]:
    """What is to be known of curves that were fitted otherwise than their tests."""
    if loss == BINOMIAL:
        return []
    return [
        f"curves minimise {LOSSES.get(loss, loss)}, for comparison: F* and peak have no interval then; status, "
        f"p-values and tau are those of {LOSSES[BINOMIAL]}"
    ]


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
    found = [one for one in report.curves if one.curve.ok]
    if not found:
        return _no_collapse(report.curves)
    if len(found) == 1:
        return f"{found[0].name}: memory peaks at {f_star(found[0].curve)} and then falls."
    return f"{len(found)} of {many(len(report.curves), 'model')} show a collapse point; {_across(report, found)}."


def _across(report: FitReport, found: Sequence[CurveReport]) -> str:
    """How F* goes with N at the token budget with most sizes."""
    budget = report.laws[0]
    at = sorted((one for one in found if one.tokens == budget.tokens), key=lambda one: one.params)
    ends = [f"{human.estimate(one.curve.f_star)} ({human.interval(*one.curve.f_star_interval)})" for one in at]
    if len(at) < 2:
        return "no two of them were trained on the same number of tokens"
    goes = f"at D = {human.count(budget.tokens)} F* goes from {ends[0]} for {human.count(at[0].params)}"
    law = f"; the infusion law's alpha is {valued(budget.law.alpha, budget.law.alpha_interval)}" if budget.law else ""
    return f"{goes} to {ends[-1]} for {human.count(at[-1].params)}{law}"


def _no_collapse(curves: Sequence[CurveReport]) -> str:
    if len(curves) == 1:
        return f"No collapse point is shown for {curves[0].name}: {curves[0].curve.status}{_excluded(curves[0].curve)}."
    statuses = sorted({reported.curve.status for reported in curves})
    return f"No collapse point is shown for any of {many(len(curves), 'model')}: {', '.join(statuses)}."


def _excluded(curve: CollapseCurve) -> str:
    if not curve.status.startswith(NO_COLLAPSE) or not math.isfinite(curve.largest_fall):
        return ""
    aside = "" if curve.tau_source == SEEDS else ", noise between runs aside"
    return f" (a fall of more than {curve.largest_fall:.2f} is excluded{aside})"


def f_star(curve: CollapseCurve) -> str:
    """F* with its interval, where there is one."""
    ends = "" if curve.f_star_interval == OPEN else "95 % interval "
    return f"F* = {human.estimate(curve.f_star)} ({ends}{human.interval(*curve.f_star_interval)})"


def noise(curve: CollapseCurve) -> str:
    """The run-to-run noise and what its size is from; empty for a curve that was not fitted."""
    if math.isnan(curve.tau):
        return ""
    if math.isfinite(curve.df):
        return f"run-to-run noise tau = {curve.tau:.2f} (SD of log-odds, from {curve.tau_source}, {curve.df:.3g} df)"
    return NO_NOISE.get(curve.tau_source, "no run-to-run noise is seen")


def tests(curve: CollapseCurve) -> str:
    """The p-values that a status rests on, of the tests that were made."""
    made = (("fall", curve.fall_p), ("unimodal", curve.unimodal_p), ("form", curve.form_p))
    return ", ".join(f"{name} {human.probability(p)}" for name, p in made if not math.isnan(p))


def remarks(found: CurveReport) -> list[str]:
    """What else is to be known of one curve: its status if it is not ok, noise, pairing, floor, notes."""
    curve = found.curve
    status = "" if curve.ok else f"{curve.status}: {curve.message}"
    floor = f"floor {found.floor.value:.3f}: {found.floor.source}"
    return [part for part in (status, tests(curve), noise(curve), found.pairing, floor, *found.notes) if part]


def law_sentence(found: LawReport) -> str:
    """The law of one token budget with its intervals and caveats."""
    law = found.law
    if law is None:
        return ""
    alpha = f"alpha = {valued(law.alpha, law.alpha_interval)}, E = {valued(law.E, law.E_interval)}"
    sizes = ", ".join(human.count(params) for params in found.params)
    caveats = "".join(f"; {caveat}" for caveat in law.caveats)
    return (
        f"Infusion law F*(C) = A/C^alpha + E at D = {human.count(found.tokens)} ({sizes}): {alpha}, "
        f"A = {law.A:.4g}{fit_quality(law)}{without_constant(law)}{caveats}."
    )


def without_constant(law: InfusionLaw) -> str:
    """What the law is with E = 0, where both were fitted."""
    bare = law.without_E
    return f"; with E = 0: alpha = {valued(bare.alpha, bare.alpha_interval)}" if bare else ""


def fit_quality(law: InfusionLaw) -> str:
    """R², only beside what it is worth."""
    return "" if math.isnan(law.r2) else f", R² = {law.r2:.4f}"


def valued(value: float, interval: Interval) -> str:
    """A law's parameter with its 95 % interval, where it has one."""
    ends = "" if interval == OPEN else f" ({human.interval(*interval, parameter)})"
    return f"{parameter(value)}{ends}"


def parameter(value: float) -> str:
    """A law's parameter to three digits."""
    return f"{value:.3g}"


def joint_sentences(law: JointLaw) -> list[str]:
    """The best form in N and D, how F* goes with D, and what the others are worth."""
    at = f"N = {human.count(law.gamma_at[0])}, D = {human.count(law.gamma_at[1])}"
    numbers = ", ".join(
        f"{name} = {valued(value, law.best.intervals.get(name, OPEN))}" for name, value in law.best.parameters.items()
    )
    others = "; ".join(f"{form.formula} {weight(form.weight)}" for form in law.forms[1:])
    said = [
        f"Joint law of {law.points} points: F* = {law.best.formula} with {numbers}, of Akaike weight "
        f"{weight(law.best.weight)}{f' ({others})' if others else ''}",
        f"F* goes with D as d log F* / d log D = {valued(law.gamma, law.gamma_interval)} at {at}",
    ]
    return [*said, *law.caveats]


def weight(share: float) -> str:
    """An Akaike weight."""
    return "< 1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")


def data_law_sentence(law: DataLaw) -> str:
    """How F* of one size goes with D."""
    reach = "–".join(human.count(tokens) for tokens in law.tokens_range)
    caveats = "".join(f"; {caveat}" for caveat in law.caveats)
    gamma = valued(law.gamma, law.gamma_interval)
    return f"F*(D) ∝ D^gamma at N = {human.count(law.params)} (D = {reach}): gamma = {gamma}{caveats}"


def held_out_sentence(held: HeldOut) -> str:
    """What the other sizes say of the one that was held out."""
    measured = f"{human.estimate(held.measured)} ({human.interval(*held.measured_interval)})"
    predicted = f"{human.estimate(held.predicted)} ({human.interval(*held.interval)})"
    model = f"N = {human.count(held.params)} at D = {human.count(held.tokens)}"
    return f"Held out {model}: measured F* = {measured}; {held.source} gives {predicted}: {held.words}"


def verdict_word(verdict: Verdict) -> str:
    """`passed`, `failed`, or `cannot tell`."""
    return "cannot tell" if verdict.passed is None else "passed" if verdict.passed else "failed"


def bootstrap_sentences(drawn: Bootstrap) -> list[str]:
    """What drawing the triples anew says of collapse points and laws."""
    what = (
        "the same triples for all models" if drawn.paired else "each count by itself, as not all results have samples"
    )
    points = ", ".join(
        f"{human.count(params)} on {human.count(tokens)} {human.interval(*ends)}"
        for params, tokens, ends in drawn.f_star
    )
    return [
        f"Bootstrap of {drawn.draws:,} draws, {what}: 95 % of F*: {points}",
        *map(_drawn_law, drawn.laws),
        *([TRIPLES_ALONE] if drawn.laws else []),
    ]


def _drawn_law(law: DrawnLaw) -> str:
    alpha, E = human.interval(*law.alpha, parameter), human.interval(*law.E, parameter)
    planned = "".join(f", F* of {human.count(params)} {human.interval(*ends)}" for params, ends in law.predictions)
    fell = f" (every curve fell in {law.fell:.1%} of the draws)" if law.fell < 1 else ""
    return f"the law at D = {human.count(law.tokens)}, drawn so: alpha {alpha}, E {E}{planned}{fell}"
