"""What a table does to the place it is written to, and to the spreadsheet that opens it."""

import csv
import os
from pathlib import Path

import pytest
from fit_files import results, run_card

from kisl_plugin.errors import InputError
from kisl_plugin.fit.results import observations_of
from kisl_plugin.fit.tables import read_table, write_table


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "there.csv"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link, tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            write_table([], path)
    assert pipe.is_fifo()
    assert link.is_symlink()
    link.unlink()
    link.symlink_to(file)
    write_table([], link)
    assert link.is_symlink()
    assert file.is_file()


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-rf", "@x", "\tx", "'=x", "'"])
def test_no_cell_is_a_formula_and_names_come_back(tmp_path: Path, name: str) -> None:
    data = results(run_card(form=name, engine=name), model_name=name)
    seen = observations_of(data, name=name)
    write_table(seen, tmp_path / "o.csv")
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]
    assert read_table(tmp_path / "o.csv") == list(seen)
