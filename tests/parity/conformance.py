"""Checks this project's code against stored outputs of the original code ("oracles").

    python bench/parity.py DIR [FILE-GLOB or KIND ...] [--autocast bf16] [--json]

Every .npz in DIR is told by its contents and checked. A line per output: largest absolute error; largest relative error
(of each value where the tolerance is relative, else of the largest wanted value); tolerance; OK, FAIL or NOT COVERED.
Exit code 1 if anything failed, 2 if there was nothing to check, else 0.

With --autocast bf16 the same runs under torch's autocast, as in training with `precision: bf16`. What is data (cells,
points, rays, grids, matrices, masks, targets, augmentation) is held to the same tolerances: no precision may change it.
What networks make of it is held to a norm of its error (`Tolerance.bf16`), a small multiple of what was measured:
camera matrices in bfloat16 break both.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path

import numpy as np
import torch

from oracles import (
    augmentation,
    bevdet,
    bevdet4d,
    bevdet_aug,
    bevstereo,
    center_head,
    depth,
    depth_net,
    geomim,
    mim4d_render,
    mim4d_temporal,
    teacher,
    view_transform,
)
from oracles.base import Kind, Oracle, Output, as_array

KINDS = (
    *teacher.KINDS,
    *geomim.KINDS,
    *view_transform.KINDS,
    *augmentation.KINDS,
    *depth.KINDS,
    *bevdet.KINDS,
    *bevdet4d.KINDS,
    *bevstereo.KINDS,
    *depth_net.KINDS,
    *center_head.KINDS,
    *bevdet_aug.KINDS,
    *mim4d_render.KINDS,
    *mim4d_temporal.KINDS,
)


@dataclass(frozen=True)
class Result:
    """One line of the report. Errors are None where nothing was compared or something is not finite."""

    file: str
    kind: str
    output: str
    status: str  # OK, FAIL, NOT COVERED, NOT REACHED
    absolute_error: float | None = None
    relative_error: float | None = None
    tolerance: str = ""
    detail: str = ""

    def line(self, width: int) -> str:
        """width: of the column of outputs."""
        errors = [f"{e:7.1e}" if e is not None else " " * 7 for e in (self.absolute_error, self.relative_error)]
        columns = [f"{self.file}  {self.output:<{width}}", *errors, f"{self.tolerance:<26}", self.status, self.detail]
        return "  ".join(columns).rstrip()


def kind_of(oracle: Oracle) -> Kind:
    return next((kind for kind in KINDS if all(mark in oracle for mark in kind.marks)), Kind("unknown", ()))


def check_file(path: Path, bf16: bool = False) -> list[Result]:
    """Every output of one file. What a check or the file's reading raises is a FAIL.

    bf16: the checks run under autocast, data as well as networks: it must not matter to data.
    """
    try:
        oracle = Oracle(path)
    except Exception as error:
        return [Result(path.name, "", "(reading the file)", "FAIL", detail=_one_line(error))]
    kind = kind_of(oracle)
    if not kind.checks:
        name = f"everything ({len(oracle.keys)} arrays)"
        return [Result(path.name, kind.name, name, "NOT COVERED", detail=kind.name)]
    results, covered, raised = [], [], False
    for check in kind.checks:
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                for output in check(oracle):
                    key = output.name.partition(" ")[0]
                    if output.wanted is None and key not in oracle:
                        continue
                    covered.append(key)
                    results.append(_compare(path.name, kind.name, output, oracle, bf16))
        except Exception as error:
            raised = True
            name = f"({check.__name__})"
            results.append(Result(path.name, kind.name, name, "FAIL", detail=_one_line(error)))
    done = ("cfg", *kind.inputs, *covered)
    rest = [key for key in oracle.keys if not any(fnmatchcase(key, pattern) for pattern in done)]
    status = "NOT REACHED" if raised else "NOT COVERED"
    return results + [Result(path.name, kind.name, name, status) for name in _grouped(rest, covered)]


def _compare(file: str, kind: str, output: Output, oracle: Oracle, bf16: bool = False) -> Result:
    name, got, tolerance, wanted = output
    got = as_array(got)
    wanted = as_array(oracle.array(name.partition(" ")[0]) if wanted is None else wanted)
    by_norm = tolerance.bf16 if bf16 else None
    told = str(tolerance) if by_norm is None else f"norm {by_norm:.2g} relative"
    if got.shape != wanted.shape:
        return Result(file, kind, name, "FAIL", tolerance=told, detail=f"shape {got.shape}, wanted {wanted.shape}")
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    if got.size == 0:
        return Result(file, kind, name, "OK", 0.0, 0.0, told, "empty")
    error, size = np.abs(got - wanted), np.abs(wanted)
    right = error <= tolerance.limits(size)  # False where anything is not a number
    scale = size if tolerance.relative else size.max()
    relative = np.divide(error, scale, out=np.zeros_like(error), where=scale > 0)
    details = []
    if by_norm is not None:
        norm = float(np.linalg.norm(error) / max(np.linalg.norm(wanted), np.finfo(float).tiny))
        details.append(f"norm {norm:.2g}")
        good = norm <= by_norm
    else:
        good = right.mean() >= tolerance.share
        if tolerance.share < 1:
            details.append(f"{100 * right.mean():.4g}% within")
    status = "OK" if good else "FAIL"
    if status == "FAIL":
        place = np.unravel_index(np.where(right, -1, np.nan_to_num(error, nan=np.inf)).argmax(), error.shape)
        details.append(f"at {tuple(map(int, place))}: {got[place]:.9g}, wanted {wanted[place]:.9g}")
    worst, worst_relative = (float(e.max()) if np.isfinite(e).all() else None for e in (error, relative))
    return Result(file, kind, name, status, worst, worst_relative, told, "; ".join(details))


def _grouped(keys: list[str], covered: list[str]) -> Iterator[str]:
    """The keys; those of a group that nothing of is covered in one."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.rpartition("/")[0], []).append(key)
    for group, members in groups.items():
        if len(members) > 1 and group and not any(name.startswith(f"{group}/") for name in covered):
            yield f"{group}/* ({len(members)} arrays)"
        else:
            yield from members


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of .npz files")
    parser.add_argument("only", nargs="*", metavar="FILE-GLOB or KIND", help="only these files (default: all)")
    parser.add_argument("--autocast", choices=["bf16"], help="run everything under autocast")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of lines")
    args = parser.parse_args(arguments)
    paths = sorted(args.folder.glob("*.npz"))
    if not paths:
        print(f"{args.folder}: {'no .npz file in it' if args.folder.is_dir() else 'no such folder'}", file=sys.stderr)
        return 2

    results = []
    for path in paths:
        if args.only and not any(fnmatch(name, word) for name in _names(path) for word in args.only):
            continue
        found = check_file(path, args.autocast == "bf16")
        results += found
        if not args.json:
            width = max(len(result.output) for result in found)
            print(*(result.line(width) for result in found), sep="\n", flush=True)
    if not results:
        print(f"{args.folder}: no file or kind of file is called {' or '.join(args.only)}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        counts = Counter(result.status for result in results)
        print(f"{len({r.file for r in results})} files: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    return int(any(result.status == "FAIL" for result in results))


def _names(path: Path) -> list[str]:
    """What a file may be asked for by."""
    names = [path.name, path.stem]
    with suppress(Exception):  # check_file says why it can't be read
        names.append(kind_of(Oracle(path)).name)
    return names


if __name__ == "__main__":
    sys.exit(main())
