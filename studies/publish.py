"""Copy what a sweep measured into the repository: lm_eval's results without samples and paths of this machine.

    python studies/publish.py WORKING_DIRECTORY results/miniature

What `kisl sweep run … --out results/miniature` wrote in WORKING_DIRECTORY goes to
results/miniature here. `pretty_env_info` (4 KB about the machine) is left out.
"""

import argparse
import json
import shutil
from pathlib import Path

from kisl_plugin.files import write_atomically


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="WORKING_DIRECTORY")
    parser.add_argument("folders", type=Path, nargs="+", help="the --out of `kisl sweep`, relative to both")
    arguments = parser.parse_args()
    root = arguments.source.resolve()
    sanitised = str(root).replace("/", "__") + "__"  # as lm_eval writes it
    for folder in arguments.folders:
        for path in sorted((root / folder / "results").glob("*/*/**/results_*.json")):
            run, tasks = path.relative_to(root / folder / "results").parts[:2]
            target = folder / "results" / run / tasks / "hf" / path.name
            if target.is_file():
                continue
            text = path.read_text(encoding="utf-8").replace(f"{root}/", "").replace(sanitised, "")
            results = {key: value for key, value in json.loads(text).items() if key != "pretty_env_info"}
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, json.dumps(results, indent=2))
        measures = root / folder / "measures.csv"
        if measures.is_file():
            shutil.copy(measures, folder / measures.name)


if __name__ == "__main__":
    main()
