"""What the store and the runs make of kills, flipped bits, lost files, crowds and bad disks: a table of counts.

    python bench/faults.py [--kills 500] [--flips 1000] [--losses 200] [--runs 8] [--only kills,flips,...] [--seed 0]

All on the tiny world of the tests, through the real command line, in a folder of its own that is removed at the end.
`kills` ends a stage's process or its command at a random instant, again and again, until it is through, and compares
the result with that of an undisturbed run; half an hour or more for 500. A line whose last column is not 0 is a fault
of geomim's: the exit code is then 1.
"""

import argparse
import contextlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kills import kills
from tiny_world import COMMANDS, OFTEN, STAGES, Cli, Line, World, environment, same

from storage import manifest
from storage.artifact import Artifact
from storage.bev import BevReader
from storage.damage import Damaged
from storage.depth import DepthReader
from storage.index import SCHEMA, Index
from storage.store import check, stored_artifacts
from tasks.engine.execute import check_input


def read_all(artifact: Artifact) -> dict[str, np.ndarray]:
    """What the readers of an artifact's stores make of it. Raises Damaged, or a ValueError with a sentence."""
    out: dict[str, np.ndarray] = {}
    if (path := artifact.path / "index.zarr").exists():
        index = Index.open(path)
        out |= {name: getattr(index, name) for name in SCHEMA}
    if (path := artifact.path / "bev.zarr").exists():
        reader = BevReader(path)
        out |= {f"bev {s}": np.asarray(reader[s]) for s in range(len(reader))}
    if (path := artifact.path / "depth.zarr").exists():
        depth = DepthReader(path)
        for s in range(len(depth)):
            points = depth.read(s)
            out |= {f"depth {s} {name}": getattr(points, name) for name in ("u", "v", "depth", "sweep", "offsets")}
    return out


def damage(world: World, count: int, chance: random.Random, what: str, spoil: Callable[[Path], bool]) -> Line:
    """Spoil one file of a finished root, see what `verify` and whoever reads it say, and put it back."""
    line = Line(what)
    # As if all stores were big: before a stage uses them only their metadata are read, and the readers see to the rest.
    manifest.SMALL_STORE = 0
    with world.copy() as cli:
        artifacts = {
            entry.path: Artifact(cli.root, entry.stage, entry.manifest.key) for entry in stored_artifacts(cli.root)
        }
        wanted = {path: read_all(artifact) for path, artifact in artifacts.items()}
        files = sorted(p for path in artifacts for p in path.rglob("*") if p.is_file())
        sizes = [file.stat().st_size for file in files]
        while line.done < count:
            # Half of the time by number of files, half by bytes: small ones decide as much as big ones.
            (file,) = chance.choices(files, weights=sizes if chance.random() < 0.5 else None)
            path = next(path for path in artifacts if path in file.parents)
            before = file.read_bytes()
            if not spoil(file):
                continue
            line.done += 1
            name = str(file.relative_to(cli.root))
            found = [d.name for d in check(path)]
            line.count("found by verify") if found else line.wrong.append(f"{name}: verify says nothing")
            with contextlib.suppress(Damaged, ValueError, OSError, KeyError):
                got = read_all(artifacts[path])
                equal = got.keys() == wanted[path].keys() and all(same(got[n], wanted[path][n]) for n in got)
                if not equal and _used(artifacts[path]):
                    line.wrong.append(f"{name}: read as data")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(before)
    return line


def _used(artifact: Artifact) -> bool:
    """Whether a stage would take it for its input."""
    try:
        check_input(_Reader, artifact)
    except Exception:
        return False
    return True


class _Reader:
    class stage:
        name = "bench"


def flip(chance: random.Random) -> Callable[[Path], bool]:
    def spoil(file: Path) -> bool:
        data = bytearray(file.read_bytes())
        if not data:
            return False
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        return True

    return spoil


def lose(chance: random.Random) -> Callable[[Path], bool]:
    def spoil(file: Path) -> bool:
        data = file.read_bytes()
        if chance.random() < 0.5:
            if file.name == "manifest.json":
                return False  # without it the artifact is unfinished, and is taken up
            file.unlink()
            return True
        if len(data) < 2:
            return False
        file.write_bytes(data[: chance.randrange(len(data))])
        return True

    return spoil


def exchange(world: World) -> Line:
    """Every pair of neighbouring parts of every store, exchanged: finished, and while it is unfinished."""
    line = Line("two parts of a store exchanged")
    with world.copy() as cli:
        for entry in stored_artifacts(cli.root):
            for store in entry.path.glob("*.zarr"):
                if not (store / "check").exists():
                    continue
                for array in (p.parent for p in store.glob("*/c") if p.parent.name not in ("done", "token", "count")):
                    first, second = array / "c" / "0", array / "c" / "1"
                    if not second.exists():
                        continue
                    _swap(first, second)
                    line.done += 1
                    wanted = read_all(Artifact(world.whole.root, entry.stage, entry.manifest.key))
                    if not check(entry.path):
                        line.wrong.append(f"{array}: verify says nothing")
                    try:
                        got = read_all(Artifact(cli.root, entry.stage, entry.manifest.key))
                        if not all(same(got[name], wanted[name]) for name in wanted):
                            line.wrong.append(f"{array}: read as data")
                    except Damaged:
                        line.count("refused by the reader")
                    _swap(first, second)
    return line


def _swap(first: Path, second: Path) -> None:
    away = first.with_name("away")
    first.rename(away)
    second.rename(first)
    away.rename(second)


def crowd(world: World, runs: int) -> Line:
    """So many `geomim run` at once on one empty root."""
    line = Line(f"{runs} runs at once on one empty root")
    root = world.folder / "crowd"
    cli = Cli(world.whole.dataroot, root)
    running = [cli.start("run") for _ in range(runs)]
    for process in running:
        output, _ = process.communicate(timeout=3600)
        line.done += 1
        if process.returncode or "Traceback" in output:
            line.wrong.append(output[-800:])
        else:
            line.count("ended well")
    for entry in stored_artifacts(root):
        if entry.state != "finished" or check(entry.path):
            line.wrong.append(f"{entry.path}: {entry.state}")
    if len(stored_artifacts(root)) != len(stored_artifacts(world.whole.root)):
        line.wrong.append(f"{len(stored_artifacts(root))} artifacts, not {len(stored_artifacts(world.whole.root))}")
    shutil.rmtree(root)
    return line


def full_disk(world: World) -> Line:
    """Each stage with a limit on the size of a file, so that its writing fails in the middle; then without."""
    line = Line("a full disk in each stage, then room again")
    for stage in STAGES:
        with world.copy() as cli:
            artifact, command = Artifact(cli.root, stage, cli.status()[stage]["key"]), COMMANDS.get(stage, stage)
            biggest = max(size for size, _ in artifact.manifest().files.values())
            artifact.remove()
            limit = max(1000, biggest // 2)
            failed = subprocess.run(
                cli.command(command, *OFTEN),
                env=environment(),
                capture_output=True,
                text=True,
                preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            )
            line.done += 1
            told = failed.stdout + failed.stderr
            if failed.returncode == 0 or "Traceback" in told or "File too large" not in told:
                line.wrong.append(f"{stage}: {told[-600:]}")
            again = subprocess.run(cli.command(command), env=environment(), capture_output=True, text=True)
            if again.returncode or list(artifact.damages("all")):
                line.wrong.append(f"{stage}, afterwards: {again.stderr[-600:]}")
            else:
                line.count("one sentence, and went on")
    return line


def read_only(world: World) -> Line:
    """Commands on a root that cannot be written, by a user who is not root where that can be arranged."""
    line = Line("a root that cannot be written")
    with world.copy() as cli:
        mounted = subprocess.run(["mount", "--bind", "-o", "ro", cli.root, cli.root], capture_output=True)
        mounted = mounted.returncode == 0 and (
            subprocess.run(["mount", "-o", "remount,ro,bind", cli.root], capture_output=True).returncode == 0
        )
        try:
            if not mounted:
                line.count("not tried: mounting is not allowed here")
                return line
            for words, code in ((("status",), 0), (("depth", "--force"), 2), (("run", "--force", "depth"), 2)):
                done = subprocess.run(cli.command(*words), env=environment(), capture_output=True, text=True)
                line.done += 1
                told = done.stdout + done.stderr
                if done.returncode != code or "Traceback" in told:
                    line.wrong.append(f"{words}: {done.returncode} {told[-600:]}")
                else:
                    line.count("one sentence" if code else "shown")
        finally:
            subprocess.run(["umount", cli.root], capture_output=True)
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("kills", 500), ("flips", 1000), ("losses", 200), ("runs", 8), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="flips,losses,exchange,runs,full,read-only,kills")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        todo: dict[str, Callable[[], Line]] = {
            "flips": lambda: damage(world, args.flips, chance, "one bit flipped, in any file", flip(chance)),
            "losses": lambda: damage(world, args.losses, chance, "a file cut short or deleted", lose(chance)),
            "exchange": lambda: exchange(world),
            "runs": lambda: crowd(world, args.runs),
            "full": lambda: full_disk(world),
            "read-only": lambda: read_only(world),
            "kills": lambda: kills(world, args.kills, chance),
        }
        print("| fault | times | what came of it | wrong |\n|---|---:|---|---:|")
        lines = []
        for name in args.only.split(","):
            lines.append(todo[name]())
            print(lines[-1], flush=True)
    for line in lines:
        for told in line.wrong:
            print(f"{line.fault}: {told}", file=sys.stderr)
    return int(any(line.wrong for line in lines))


if __name__ == "__main__":
    sys.exit(main())
