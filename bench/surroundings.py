"""What surrounds the work: seconds of whole commands, and of `geomim run` those that are not its stage's.

    python bench/surroundings.py [--config configs/demo.yaml] [--dataroot DIR] [--rounds 5]

The runs are of `ingest`, in a new root, where Prefect's database has to be made, and in one that is empty but for that
database: the seconds from call to end, less the stage's own by its manifest, which leave out the start of its process.
The dataroot has to be there. bench/commands.py has the commands that one types while thinking.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GEOMIM = str(Path(sys.executable).with_name("geomim"))


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def around(command: list[str], root: Path) -> float:
    """Seconds of a run in an empty root that are none of its stages'."""
    took = seconds([*command, "--root", str(root)])
    return took - sum(json.loads(path.read_text())["seconds"] for path in root.glob("*/*/manifest.json"))


def empty(root: Path) -> None:
    """Remove all but what Prefect remembers."""
    for folder in root.iterdir():
        if folder.is_dir() and not folder.name.startswith(".prefect"):
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--dataroot", help="instead of the config's")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    world = ["--config", args.config, *(["--dataroot", args.dataroot] if args.dataroot else [])]
    run = [GEOMIM, "run", *world, "--to", "ingest"]
    times: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            took = {
                "python -c pass": seconds([sys.executable, "-c", "pass"]),
                "geomim --help": seconds([GEOMIM, "--help"]),
                "around a run in a new root": around(run, root),
                "geomim status": seconds([GEOMIM, "status", *world, "--root", folder]),
                "geomim run, all cached": seconds([*run, "--root", folder]),
            }
            empty(root)
            took["around a run where the database is"] = around(run, root)
        for name, value in took.items():
            times.setdefault(name, []).append(value)
    print(f"{'s':<36} {'fastest':>8} {'median':>8}")
    for name, values in times.items():
        print(f"{name:<36} {min(values):8.2f} {statistics.median(values):8.2f}")


if __name__ == "__main__":
    main()
