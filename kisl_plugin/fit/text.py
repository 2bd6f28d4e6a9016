"""How numbers and results are put into words: the terminal table, and every sentence about a curve or a law.

The terminal and the page print the same sentences. Nothing heavy is imported here, since `kisl-fit --help` needs the
statuses.
"""

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from kisl_plugin.progress import percent, text_table

if TYPE_CHECKING:
    from kisl_plugin.fit.hold_out import HeldOut
    from kisl_plugin.fit.joint import JointLaw
    from kisl_plugin.fit.law import InfusionLaw
    from kisl_plugin.fit.predict import Prediction
    from kisl_plugin.fit.report import CurveReport, FitReport, LawReport

__all__ = ["NOT_UNIMODAL", "NO_COLLAPSE", "OK", "OK_IF_RUNS_VARY", "STATUS_HELP", "count", "finding", "render_report"]

# The statuses of a collapse curve, each with one sentence of help

OK = "ok"
OK_IF_RUNS_VARY = "ok if runs vary"
NO_COLLAPSE = "no collapse up to F="  # the largest frequency follows
RUNS_DISAGREE = "runs disagree"
NOT_UNIMODAL = "not unimodal"
FORM_REJECTED = "form rejected"
NOT_IDENTIFIED = "not identified"
TOO_FEW_POINTS = "too few points"
STATUS_HELP = {
    OK: "a fall is shown, the form fits, and the interval of F* lies inside the frequencies",
    OK_IF_RUNS_VARY: "the same, if runs that differ in their seeds alone vary as much as the message says",
    NO_COLLAPSE: "no fall is shown up to the largest frequency; the message gives the largest fall the data allow",
    RUNS_DISAGREE: "runs of one frequency contradict each other more than seeds do: are they of one experiment?",
    NOT_UNIMODAL: "the counts do not rise once and then fall, beyond chance",
    FORM_REJECTED: "the counts scatter more about the curve than chance allows",
    NOT_IDENTIFIED: "very different collapse points fit the counts, or the guessing floor is 1",
    TOO_FEW_POINTS: "fewer than four distinct frequencies, for three parameters",
}

# Numbers

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_BEYOND_UNITS = 1e15
_LONG = 1e6  # frequencies from here on are written with a unit
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*([KMBT]?)", re.IGNORECASE)
_Ends = tuple[float | None, float | None]


def read_number(text: str) -> tuple[Decimal, int] | None:
    """A number as people write it (3000000000, 1.05e9, 3B): its digits and the size of its unit; None of other text."""
    written = _NUMBER.fullmatch(text.strip())
    sizes = {unit: int(size) for size, unit in UNITS}
    return (Decimal(written[1]), sizes.get(written[2].upper(), 1)) if written else None


def count(value: float) -> str:
    """A count to three digits, in at most six characters: 137M, 1.05B, 620K, 5e15."""
    rounded = float(f"{value:.3g}")
    if rounded >= _BEYOND_UNITS:
        return f"{value:.0e}".replace("e+", "e")
    for size, unit in UNITS:
        if rounded >= size:
            return f"{rounded / size:.3g}{unit}"
    return f"{rounded:g}"


def frequency(value: float) -> str:
    """A frequency of a grid, in full; from a million on to three digits."""
    return f"{value:.10g}" if value < _LONG else count(value)


def estimate(value: float) -> str:
    """An estimated frequency to three digits: 61.8, 45.0, 1230."""
    rounded = float(f"{value:.3g}")
    if rounded >= _LONG:
        return count(value)
    if rounded >= 100:
        return f"{rounded:.0f}"
    return f"{rounded:#.3g}" if rounded >= 0.01 or rounded == 0 else f"{rounded:.2g}"


parameter = "{:.3g}".format  # of a law


def probability(p: float) -> str:
    """A p-value: `p = 0.03`, `p ≤ 0.001` (the least that a thousand draws show)."""
    return "p ≤ 0.001" if p <= 0.001 else f"p = {p:.2g}"


def whole_percent(share: float) -> str:
    """A share in whole percent: `40 %`, `< 1 %`."""
    return "< 1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")


def interval(low: float | None, high: float | None, number: Callable[[float], str] = estimate) -> str:
    """The ends of an interval; an open one (None, NaN) is left out: 350–440, ≥ 350, ≤ 440, or `no interval`."""
    ends = [None if end is None or math.isnan(end) else number(end) for end in (low, high)]
    if None not in ends:
        return "–".join(dict.fromkeys(filter(None, ends)))
    if ends[0] is not None:
        return f"≥ {ends[0]}"
    return f"≤ {ends[1]}" if ends[1] is not None else "no interval"


def estimated(value: float, ends: _Ends, number: Callable[[float], str] = estimate) -> str:
    """An estimate with its 95 % interval, if it has one: `410 (350–440)`."""
    return number(value) if ends == (None, None) else f"{number(value)} ({interval(*ends, number)})"


def f_star_in_words(value: float, ends: _Ends) -> str:
    """A collapse point in a sentence: `F* = 410 (95 % interval 350–440)`."""
    return f"F* = {estimate(value)}" + ("" if ends == (None, None) else f" (95 % interval {interval(*ends)})")


def share_of_budget(fraction: float) -> str:
    """A share of D: `0.15% of D`, `8.3 times D`."""
    return f"{percent(fraction)} of D" if fraction <= 1 else f"{fraction:.2g} times D"


def plural(number: int, noun: str) -> str:
    """`1 curve`, `2 curves`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


# Curves

_NO_NOISE = {
    "seeds": "no run-to-run noise between seeds",
    "lack of fit": "no run-to-run noise about the curve, assuming its form",
    "--noise": "no run-to-run noise, as given",
    "none": "run-to-run noise unknown: no seeds, and too few frequencies",
}


def finding(report: "FitReport") -> str:
    """The result of the whole report in one sentence."""
    peaked, models = [one for one in report.curves if one.curve.ok], plural(len(report.curves), "model")
    if not report.curves:
        return "No collapse curve: no run with injected facts could be used."
    if not peaked:
        statuses = ", ".join(sorted({one.curve.status for one in report.curves}))
        which = f" for any of {models}" if len(report.curves) > 1 else ""
        return f"No collapse point is shown{which}: {statuses}."
    if len(peaked) > 1:
        return f"{len(peaked)} of {models} show a collapse point."
    curve = peaked[0].curve
    return f"{peaked[0].name}: memory peaks at {f_star_in_words(curve.f_star, curve.f_star_interval)}, then falls."


def curve_remarks(report: "CurveReport") -> list[str]:
    """What to know of one curve beside its numbers: its status if it is not ok, tests, noise, pairing, floor, notes."""
    curve = report.curve
    status = "" if curve.status == OK else f"{curve.status}: {curve.message}"
    tests = (("fall", curve.fall_p), ("unimodal", curve.unimodal_p), ("form", curve.form_p))
    p_values = ", ".join(f"{name} {probability(p)}" for name, p in tests if not math.isnan(p))
    noise = "" if math.isnan(curve.tau) else _NO_NOISE.get(curve.tau_source, _NO_NOISE["none"])
    if curve.tau > 0:
        df = f", df = {curve.df:.3g}" if math.isfinite(curve.df) else ""
        noise = f"run-to-run noise tau = {curve.tau:.2f} (SD of log-odds, from {curve.tau_source}{df})"
    floor = f"floor {report.floor.value:.3f}: {report.floor.source}"
    tested = f"tests: {p_values}" if p_values else ""
    return list(filter(None, (report.floor_warning, status, tested, noise, report.pairing, floor, *report.notes)))


# Laws


def needs_sizes(fewest: int, sizes: Sequence[int], tokens: int) -> str:
    """What a law needs where only models of these N have collapse points, all at D = `tokens`."""
    needs = f"needs collapse points from {fewest} model sizes at one token budget"
    if not sizes:
        return f"{needs}; you have none"
    return f"{needs}; you have {len(sizes)} at D = {count(tokens)}: {', '.join(map(count, sizes))}"


def _fitted(name: str, value: float, ends: _Ends) -> str:
    """A coefficient to six digits, so that the printed law gives F* to 0.1 % far beyond the measured C."""
    return f"{name} = {value:.6g}" + ("" if ends == (None, None) else f" ({interval(*ends, parameter)})")


def law_sentence(report: "LawReport", law: "InfusionLaw") -> str:
    """The law of one token budget with its intervals and caveats."""
    sizes = ", ".join(count(params) for params in report.params)
    values = (("alpha", law.alpha, law.alpha_interval), ("E", law.E, law.E_interval), ("A", law.A, law.A_interval))
    parts = [", ".join(_fitted(*of_name) for of_name in values)]
    parts[0] += "" if math.isnan(law.r2) else f", R² = {law.r2:.4f}"
    if report.conditional:
        parts.append(f"{report.conditional} of its {law.models} collapse points are {OK_IF_RUNS_VARY}")
    if law.without_E:
        bare = law.without_E
        parts.append(f"with E = 0: alpha = {estimated(bare.alpha, bare.alpha_interval, parameter)}")
    name = f"Infusion law F*(C) = A/C^alpha + E {'along' if report.ratio else 'at'} {report.where} ({sizes})"
    return f"{name}: {'; '.join([*parts, *law.caveats])}."


def data_law_sentence(law: "JointLaw") -> str:
    """How F* of one size changes with D."""
    budgets = "–".join(count(tokens) for tokens in law.tokens_range)
    gamma = estimated(law.gamma, law.gamma_interval, parameter)
    name = f"F*(D) ∝ D^gamma at N = {count(law.params)} (D = {budgets})"
    return "; ".join([f"{name}: gamma = {gamma}", *law.caveats])


def joint_sentences(law: "JointLaw") -> list[str]:
    """The best form in N and D, how F* changes with D, and the weights of the other forms."""
    best = law.best
    intervals = {name: best.intervals.get(name, (None, None)) for name in best.parameters}
    numbers = ", ".join(_fitted(name, value, intervals[name]) for name, value in best.parameters.items())
    others = "; ".join(f"{form.formula} {whole_percent(form.weight)}" for form in law.forms[1:])
    at = f"N = {count(law.gamma_at[0])}, D = {count(law.gamma_at[1])}"
    weights = whole_percent(best.weight) + (f" ({others})" if others else "")
    return [
        f"joint law of {law.points} points: F* = {best.formula} with {numbers}, Akaike weight {weights}",
        f"the slope d log F* / d log D is {estimated(law.gamma, law.gamma_interval, parameter)} at {at}",
        *law.caveats,
    ]


def held_out_sentence(held: "HeldOut") -> str:
    """What the other sizes predict of the one that was held out."""
    measured, predicted = estimated(held.measured, held.measured_interval), estimated(held.predicted, held.interval)
    model = f"N = {count(held.params)} at D = {count(held.tokens)}"
    return f"held out {model}: measured F* = {measured}; {held.source} gives {predicted}: {held.words}"


VERDICT_WORDS = {True: "passed", False: "failed", None: "cannot tell"}


# What kisl-fit prints

_WIDTH = 80
_INDENT = 19
CURVE_HEADINGS = ("N", "D", "seeds", "F", "peak P", "F* (95 % interval)")
_LEGEND = (
    "N: parameters. D: training tokens. seeds: distinct seeds among the runs. F: range of frequencies. peak P: highest "
    "memorisation rate. F*: collapse point, the frequency at the peak. In brackets: 95 % intervals. *: ok if runs vary."
)


def render_report(report: "FitReport") -> str:
    """The table, its legend, the remarks on the curves, the laws and predictions, and every file that was set aside."""
    parts = []
    for task in report.tasks:
        observations, curves = plural(len(task.observations), "observation"), plural(len(task.curves), "curve")
        parts.append(f"Task {task.task}: {observations}, {curves}")
        if task.curves:
            remarks = (f"{one.name}: {'; '.join(curve_remarks(one))}." for one in task.curves)
            legend = textwrap.fill(_LEGEND, _WIDTH) if task is report else ""
            parts += [curve_table(task.curves), legend, _paragraphs(remarks)]
    laws = [sentence(report.missing_law)] if report.missing_law else []
    laws += [law_sentence(one, one.law) for one in report.laws if one.law]
    laws += [sentence(data_law_sentence(law)) for law in report.data_laws]
    laws += [sentence("; ".join(joint_sentences(report.joint)))] if report.joint else []
    laws += [sentence(held_out_sentence(one)) for one in report.held_out]
    parts += [_paragraphs(map(sentence, report.notes)), _paragraphs(laws)]
    if any(one.curve.ok for one in report.curves):
        checks = (f"  {VERDICT_WORDS[one.passed]}: {one.name}: {one.sentence}" for one in report.verdicts)
        lines = [textwrap.fill(check, _WIDTH, subsequent_indent="    ") for check in checks]
        parts.append("\n".join(["Checks of the law (the paper's three signs that it fails):", *lines]))
    parts += [render_prediction(prediction) for prediction in report.predictions]
    if report.set_aside:
        # A line break in the name of a file would look like the end of it
        names = [one.path.replace("\n", "\\n").replace("\r", "\\r") for one in report.set_aside]
        files = [f"  {name}\n    {one.reason}" for name, one in zip(names, report.set_aside, strict=True)]
        parts.append("\n".join([f"Set aside: {len(files)}", *files]))
    return "\n\n".join(part for part in parts if part)


def render_prediction(prediction: "Prediction") -> str:
    """Lines of at most 80 columns: the prediction, what it costs, how far it reaches, and its caveats."""
    model = f"N = {count(prediction.params)}, D = {count(prediction.tokens)}"
    lines = [f"Prediction for {model} (C = {prediction.compute:.3g})"]
    for name, text in prediction_rows(prediction):
        first = f"  {name}".ljust(_INDENT)
        lines.append(textwrap.fill(text, _WIDTH, initial_indent=first, subsequent_indent=" " * _INDENT))
    for caveat in prediction.caveats:
        lines.append(textwrap.fill(caveat, _WIDTH, initial_indent="  - ", subsequent_indent="    "))
    return "\n".join(lines)


def prediction_rows(prediction: "Prediction") -> list[tuple[str, str]]:
    """What is predicted, by name: the best F first, then what it costs, the law, and how far it reaches."""
    if prediction.f_star is None:
        return [("best F", f"not known: {prediction.words}")]
    rows = [("best F", prediction.in_words)]
    if prediction.exposures is not None:
        rows.append(("exposures", f"{count(prediction.exposures)}: F × {prediction.triples:,} triples"))
    if prediction.injected_tokens is not None and prediction.injected_fraction is not None:
        share = share_of_budget(prediction.injected_fraction)
        rows.append(("injected tokens", f"{count(prediction.injected_tokens)}, {share}"))
    return [*rows, ("by", prediction.source), ("reach", prediction.words)]


def curve_table(curves: "Sequence[CurveReport]") -> str:
    """One row per curve, at most 80 columns wide: numbers to the right, the last two cells to the left."""
    heading, *rows = text_table([CURVE_HEADINGS, *map(curve_cells, curves)], ">>>><<")
    return "\n".join([heading, "-" * max(map(len, [heading, *rows])), *rows])


def curve_cells(report: "CurveReport") -> tuple[str, ...]:
    """The cells under `CURVE_HEADINGS`; where there is no collapse point, the status stands in its place."""
    curve = report.curve
    peak, f_star = "–", curve.status
    if curve.ok:
        peak = estimated(curve.peak, curve.peak_interval, "{:.2f}".format)
        f_star = estimated(curve.f_star, curve.f_star_interval) + "*" * (curve.status == OK_IF_RUNS_VARY)
    return (
        f"{count(report.params)}{report.letter}",
        count(report.tokens),
        str(len(report.seeds)),
        interval(*curve.frequency_range, frequency),
        peak,
        f_star,
    )


def _paragraphs(sentences: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(text, _WIDTH, subsequent_indent="  ") for text in sentences)
