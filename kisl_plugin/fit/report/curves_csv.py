"""curves.csv: one row per curve, for a spreadsheet."""

import csv
import io

from kisl_plugin.fit.report.as_json import curve_entry, finite
from kisl_plugin.fit.report.gathered import FitReport

COLUMNS = (
    "params",
    "tokens",
    "status",
    "f_star",
    "f_star_low",
    "f_star_high",
    "peak",
    "peak_low",
    "peak_high",
    "a",
    "b",
    "c",
    "floor",
    "tau",
    "tau_source",
    "df",
    "fall_p",
    "unimodal_p",
    "form_p",
    "largest_fall",
    "paired",
    "loss",
    "runs",
)


def curves_csv(report: FitReport) -> str:
    """The table; a value that is not identified is an empty cell."""
    stream = io.StringIO(newline="")
    rows = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    for found in report.curves:
        entry = finite(curve_entry(found))
        for name in ("f_star", "peak"):
            entry[f"{name}_low"], entry[f"{name}_high"] = entry[f"{name}_interval"] or (None, None)
        rows.writerow({**entry, "runs": len(found.runs)})
    return stream.getvalue()
