"""Seconds of the commands that one types while thinking, beside an interpreter that does nothing.

    python bench/commands.py [--config configs/demo.yaml] [--root artifacts] [--rounds 7]

The commands take turns, round by round; the fastest and the median of the rounds. `inspect` looks at the largest
artifact in the root.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def commands(config: str, root: Path) -> dict[str, list[str]]:
    """What is typed, and its words."""
    geomim, plan = str(BIN / "geomim"), ["--config", config, "--root", str(root)]
    out = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "geomim --help": [geomim, "--help"],
        "geomim status": [geomim, "status", *plan],
        "geomim status --why": [geomim, "status", *plan, "--why"],
        "geomim run --dry-run": [geomim, "run", *plan, "--dry-run"],
    }
    artifacts = [manifest.parent for manifest in root.glob("*/*/manifest.json")]
    if artifacts:
        largest = max(artifacts, key=lambda path: sum(file.stat().st_size for file in path.rglob("*")))
        out["geomim inspect"] = [geomim, "inspect", str(largest)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    todo = commands(args.config, args.root)
    times: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(args.rounds):
        for name, command in todo.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    print(f"{'s':<24} {'fastest':>8} {'median':>8}")
    for name, seconds in times.items():
        print(f"{name:<24} {min(seconds):8.2f} {statistics.median(seconds):8.2f}")


if __name__ == "__main__":
    main()
