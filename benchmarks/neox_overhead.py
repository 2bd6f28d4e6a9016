"""What injection costs GPT-NeoX: steps/s of one YAML with and without its `kisl` section, in alternating runs.

    kisl neox install && kisl demo --only-data
    python benchmarks/neox_overhead.py neox_configs/tiny_2m_f20.yml --repeats 3

Works on a GPU as well, with any YAML of the grid (--iters keeps it short). The first tenth of the steps is left out.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

STEP = re.compile(r"iteration +(\d+)/.*?elapsed time per iteration \(ms\): ([0-9.]+)")
INTERVAL = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=Path("neox_configs/tiny_2m_f20.yml"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iters", type=int, default=100)
    options = parser.parse_args()
    values = shortened(yaml.safe_load(options.config.read_text()), options.iters)
    speeds: dict[str, list[float]] = {"without": [], "with": []}
    for turn in range(options.repeats):
        order = ("without", "with") if turn % 2 == 0 else ("with", "without")
        for name in order:
            speeds[name].append(steps_per_second(values, name == "with"))
            print(f"run {turn + 1} {name:8} the section  {speeds[name][-1]:8.3f} steps/s", flush=True)
    medians = {name: statistics.median(runs) for name, runs in speeds.items()}
    rows = values["train_batch_size"]
    size = f"{options.iters} steps of {rows} rows of {values['seq_length']} tokens, medians of {options.repeats} runs"
    print(f"\n{options.config}: {size}")
    for name, speed in medians.items():
        print(f"  {name:8} the section  {speed:8.3f} steps/s  {speed * rows * values['seq_length']:12,.0f} tokens/s")
    print(f"  ratio with / without  {medians['with'] / medians['without']:.3f}")


def shortened(values: dict[str, Any], iterations: int) -> dict[str, Any]:
    """The run, without checkpoints and evaluation, its share of injected tokens kept."""
    share = iterations / values["train_iters"]
    section = dict(values["kisl"], frequency=max(1, round(values["kisl"]["frequency"] * share)))
    dropped = ("save", "load", "checkpoint_factor", "extra_save_iters", "keep_last_n_checkpoints")
    kept = {key: value for key, value in values.items() if key not in dropped}
    return {**kept, "train_iters": iterations, "log_interval": INTERVAL, "eval_iters": 0, "kisl": section}


def steps_per_second(values: dict[str, Any], injecting: bool) -> float:
    """Run GPT-NeoX once; the speed over the logged steps after the first tenth."""
    run = values if injecting else {key: value for key, value in values.items() if key != "kisl"}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "run.yml"
        config.write_text(yaml.safe_dump(run))
        command = [sys.executable, "-m", "kisl_plugin.neox.launcher", "train", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    logged = [(int(step), float(ms)) for step, ms in STEP.findall(done.stdout)]
    if done.returncode or not logged:
        sys.exit(f"the run failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    settled = [ms for step, ms in logged if step > max(INTERVAL, values["train_iters"] // 10)]
    return 1000 / statistics.mean(settled)


if __name__ == "__main__":
    main()
