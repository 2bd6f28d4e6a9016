"""The folder that a run saves to: one run at a time, and no checkpoint over another run's."""

from pathlib import Path

import pytest
from test_runcard import TRIPLES, card

from kisl_plugin.checkpoints import (
    hold_save,
    hold_worker_lock,
    latest_checkpoint,
    refuse_other_run,
    restore_latest,
)
from kisl_plugin.errors import InputError, KislError
from kisl_plugin.runcard import write_run_card


def test_one_run_at_a_time_holds_a_save_folder(tmp_path: Path) -> None:
    with hold_save(tmp_path / "run", "a.yml"):
        with (
            pytest.raises(KislError, match=r"b.yml: another run saves to .*run \(process \d+") as caught,
            hold_save(tmp_path / "run", "b.yml"),
        ):
            pass
        assert caught.value.exit_status == 1
    with hold_save(tmp_path / "run", "b.yml"):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"a.yml: save \(.*file\) cannot be written"),
        hold_save(tmp_path / "file", "a.yml"),
    ):
        pass


def test_a_worker_that_outlives_its_launcher_still_keeps_other_runs_out(tmp_path: Path) -> None:
    with hold_save(tmp_path, "a.yml"), hold_worker_lock(tmp_path, "a.yml"):
        pass
    with (
        hold_worker_lock(tmp_path, "a.yml"),
        pytest.raises(KislError, match="another run saves to"),
        hold_save(tmp_path, "b.yml"),
    ):
        pass


def test_before_a_checkpoint_is_written_the_newest_ones_card_must_be_this_runs(tmp_path: Path) -> None:
    refuse_other_run(tmp_path, "mine")
    (tmp_path / "latest").write_text("global_step4")
    refuse_other_run(tmp_path, "mine")  # one of a run without a card
    for run_id in (None, "mine"):
        write_run_card(tmp_path / "global_step4", card(run_id=run_id), TRIPLES)
        refuse_other_run(tmp_path, "mine")
    write_run_card(tmp_path / "global_step4", card(run_id="theirs"), TRIPLES)
    with pytest.raises(KislError, match=r"global_step4: is a checkpoint of another run \(theirs\)"):
        refuse_other_run(tmp_path, "mine")


def test_a_lost_latest_is_written_anew_for_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    assert restore_latest(tmp_path) is None
    for step in (8, 16):
        (tmp_path / f"global_step{step}" / "configs").mkdir(parents=True)
    (tmp_path / "global_step24").mkdir()  # the run was killed while it wrote this one
    for lose in (lambda latest: latest.write_text(""), Path.unlink):
        lose(tmp_path / "latest")
        with pytest.raises(InputError, match=r"latest: is missing or empty"):
            latest_checkpoint(tmp_path)
        assert restore_latest(tmp_path) == latest_checkpoint(tmp_path) == tmp_path / "global_step16"
    (tmp_path / "latest").write_text("global_step8")  # chosen by hand
    assert restore_latest(tmp_path) is None
    assert latest_checkpoint(tmp_path) == tmp_path / "global_step8"
