"""nuScenes' detection metrics: the devkit's code and ours on one results file, each in a process of its own.

    python bench/detection_metrics.py                               # 6,000 samples x 200 boxes; minutes, and 3 GB
    python bench/detection_metrics.py --samples 300 --rounds 3      # a look

A sample has 40 true boxes; its predictions are those with noise, and random boxes up to --boxes. Set-up is reading the
file and dropping what is out of range; what the devkit needs of a database besides (the whole of NuScenes(), bicycle
racks) is left out, for both. Both give seconds by the clock and of CPU (a busy machine slows the clock), and the most
memory the process held. Ours does the bands of distance too. Ends with an error where a number differs by over 1e-6.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from models.names import CLASSES, EVALUATION_RANGE, MOTION_ATTRIBUTES  # noqa: E402

TRUTHS = 40  # a sample
TOLERANCE = 1e-6


def write_world(folder: Path, samples: int, boxes: int) -> None:
    """`truth.json` and `found.json`, both in the format of results, and `ego.json`: the ego's place in each sample."""
    random = np.random.default_rng(0)
    ego = random.uniform(300, 1500, (samples, 2))
    (folder / "ego.json").write_text(json.dumps(ego.tolist()))
    with (folder / "truth.json").open("w") as truth, (folder / "found.json").open("w") as found:
        for number in range(samples):
            true = made_boxes(random, TRUTHS, ego[number])
            noisy = {name: value.copy() for name, value in true.items()}
            noisy["center"][:, :2] += random.normal(0, 0.7, (TRUTHS, 2))
            noisy["size"] *= random.uniform(0.8, 1.2, (TRUTHS, 3))
            noisy["yaw"] += random.normal(0, 0.3, TRUTHS)
            other = made_boxes(random, boxes - TRUTHS, ego[number])
            both = {name: np.concatenate([noisy[name], other[name]]) for name in true}
            for file, these in ((truth, true), (found, both)):
                file.write('{"meta": {}, "results": {' if number == 0 else ", ")
                file.write(f'"sample-{number}": {json.dumps(records(random, number, these))}')
        truth.write("}}")
        found.write("}}")


def made_boxes(random: np.random.Generator, n: int, ego: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "label": random.integers(0, len(CLASSES), n),
        "center": np.column_stack([random.uniform(-50, 50, (n, 2)) + ego, random.uniform(-2, 2, n)]),
        "size": random.uniform(0.5, 6, (n, 3)),
        "yaw": random.uniform(-np.pi, np.pi, n),
        "velocity": random.normal(0, 3, (n, 2)),
    }


def records(random: np.random.Generator, sample: int, boxes: dict[str, np.ndarray]) -> list[dict]:
    half = boxes["yaw"] / 2
    rotation = np.column_stack([np.cos(half), 0 * half, 0 * half, np.sin(half)])
    return [
        {
            "sample_token": f"sample-{sample}",
            "translation": center,
            "size": size,
            "rotation": turn,
            "velocity": velocity,
            "detection_name": CLASSES[label],
            "detection_score": float(random.random()),
            "attribute_name": MOTION_ATTRIBUTES[CLASSES[label]][int(random.random() < 0.5)],
        }
        for label, center, size, turn, velocity in zip(
            boxes["label"],
            boxes["center"].tolist(),
            boxes["size"].tolist(),
            rotation.tolist(),
            boxes["velocity"].tolist(),
        )
    ]


def devkit(folder: Path) -> dict:
    """The devkit's own reading, box type and `DetectionEval.evaluate`."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox
    from nuscenes.eval.detection.evaluate import DetectionEval

    from evaluation.devkit import scores_of

    config = config_factory("detection_cvpr_2019")

    def read(name: str):
        boxes, _ = load_prediction(str(folder / name), config.max_boxes_per_sample, DetectionBox)
        for token, (x, y) in zip(boxes.sample_tokens, ego):
            for box in boxes[token]:
                box.ego_translation = (box.translation[0] - x, box.translation[1] - y, box.translation[2])
            near = [box for box in boxes[token] if box.ego_dist < EVALUATION_RANGE[box.detection_name]]
            boxes.boxes[token] = near
        return boxes

    watch = Watch()
    ego = json.loads((folder / "ego.json").read_text())
    run = SimpleNamespace(gt_boxes=read("truth.json"), pred_boxes=read("found.json"), cfg=config, verbose=False)
    watch.lap("set-up")
    metrics, _ = DetectionEval.evaluate(run)
    watch.lap("evaluate")
    return watch.result() | {"scores": scores_of(metrics, run.gt_boxes)}


def ours(folder: Path) -> dict:
    from evaluation.flat import counted
    from evaluation.metrics import evaluate
    from evaluation.results import read_results

    watch = Watch()
    ego = np.array(json.loads((folder / "ego.json").read_text()))
    truth, found = (read_results(folder / name).boxes for name in ("truth.json", "found.json"))
    truth, found = (boxes[counted(boxes, ego, {})] for boxes in (truth, found))
    watch.lap("set-up")
    scores = evaluate(truth, found, ego)
    watch.lap("evaluate")
    return watch.result() | {"scores": scores}


class Watch:
    def __init__(self):
        self.started_with = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        self.laps: dict[str, tuple[float, float]] = {}
        self.last = (time.perf_counter(), time.process_time())

    def lap(self, name: str) -> None:
        now = (time.perf_counter(), time.process_time())
        self.laps[name] = tuple(b - a for a, b in zip(self.last, now))
        self.last = now

    def result(self) -> dict:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        return {"laps": self.laps, "megabytes": most, "started_with": self.started_with}


def differences(ours: dict, theirs: dict, where: str = "") -> list[str]:
    out = []
    for name, value in theirs.items():
        if isinstance(value, dict):
            out += differences(ours[name], value, f"{where}{name} ")
        elif ours[name] != value and not abs(ours[name] - value) <= TOLERANCE:
            out.append(f"{where}{name}: {ours[name]} and {value}")
    return out


def in_a_process(code: str, folder: Path) -> dict:
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--run", code, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | one_thread, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--boxes", type=int, default=200, help=f"predictions a sample, {TRUTHS} of them near truth")
    parser.add_argument("--rounds", type=int, default=1, help="of both in turn; the best of each counts")
    parser.add_argument("--run", choices=("devkit", "ours"), help=argparse.SUPPRESS)  # in the child
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps({"devkit": devkit, "ours": ours}[args.run](args.folder)))
        return
    runs: dict[str, list[dict]] = {"devkit": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder), args.samples, args.boxes)
        megabytes = (Path(folder) / "found.json").stat().st_size / 1e6
        for _ in range(args.rounds):
            for code, results in runs.items():
                results.append(in_a_process(code, Path(folder)))
    print(f"{args.samples} samples x {args.boxes} boxes, a file of {megabytes:.0f} MB\n")
    print("| | devkit s (CPU s) | ours s (CPU s) | ratio (of CPU) |\n|---|---:|---:|---:|")
    for lap in ("set-up", "evaluate"):
        cells, best = [], {}
        for code, results in runs.items():
            best[code] = [min(r["laps"][lap][i] for r in results) for i in range(2)]
            cells.append("{:.2f} ({:.2f})".format(*best[code]))
        ratios = [a / b for a, b in zip(best["devkit"], best["ours"])]
        print(f"| {lap} | {' | '.join(cells)} | {ratios[0]:.1f} ({ratios[1]:.1f}) |")
    most = {code: min(r["megabytes"] for r in results) for code, results in runs.items()}
    own = {code: min(r["megabytes"] - r["started_with"] for r in results) for code, results in runs.items()}
    cells = [f"{most[code]:.0f} ({own[code]:.0f})" for code in runs]
    print(f"| memory, MB (without imports) | {' | '.join(cells)} | {most['devkit'] / most['ours']:.1f} |")
    if different := differences(runs["ours"][0]["scores"], runs["devkit"][0]["scores"]):
        sys.exit("different numbers: " + "; ".join(different))
    scores = runs["ours"][0]["scores"]
    print(f"\nmAP {scores['mAP']:.6f}, NDS {scores['NDS']:.6f}: all numbers agree to {TOLERANCE:g}")


if __name__ == "__main__":
    main()
