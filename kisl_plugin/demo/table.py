"""What the demo measured, in a table and in words."""

from kisl_plugin.demo.run import QUESTION, STATEMENT, TASKS, DemoReport, DemoRun

HEADINGS = ("F", "injected", "question", "control", "statement", "held-out loss")


def rows(report: DemoReport) -> list[tuple[str, ...]]:
    """One row a run: F, share of tokens injected, the two accuracies, control, loss (nats per token)."""
    return [_row(run) for run in report.runs]


def _row(run: DemoRun) -> tuple[str, ...]:
    question, statement = run.scores[QUESTION], run.scores[STATEMENT]
    return (
        str(run.frequency),
        f"{run.card.injected_fraction or 0:.0%}",
        f"{question['acc'][0]:.3f}",
        f"{question['acc_control'][0]:.3f}",
        f"{statement['acc'][0]:.3f}",
        f"{run.held_out_loss:.2f}",
    )


def text_table(report: DemoReport) -> str:
    """The rows, aligned, within 80 columns."""
    lines = [HEADINGS, *rows(report)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def verdicts(report: DemoReport) -> list[str]:
    """What the curves say, one sentence a task: nothing is claimed that the fit does not show."""
    names = {QUESTION: "asked as questions", STATEMENT: "asked as the statement itself"}
    found = []
    for task in TASKS:
        for reported in report.fits[task].curves:
            curve = reported.curve
            if curve.status == "ok":
                low, high = curve.f_star_interval
                said = f"memory peaks at F* = {curve.f_star:.0f} (95 % interval {low:.0f} … {high:.0f}) and then falls"
            else:
                said = f"{curve.status}: {curve.message}" if curve.message else curve.status
            found.append(f"{names[task]}: {said}")
    return found
