"""Tables that a spreadsheet opens: names come from files of others, and a cell that begins like a formula is run."""

NO_FORMULA = "'"


def no_formula(cell: str) -> str:
    """The cell, with an apostrophe before what a spreadsheet would run, and before an apostrophe."""
    return f"{NO_FORMULA}{cell}" if cell.startswith((*"=+-@\t\r", NO_FORMULA)) else cell
