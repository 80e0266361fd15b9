"""What ingest says of a dataset that it took: counts, and what is odd about it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.names import CLASSES


def counts_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of the index's arrays: boxes are annotations of its samples, sweeps and frames are files, each counted once."""
    splits, labels = Counter(arrays["split"].tolist()), arrays["box_label"]
    classes = np.bincount(labels[labels >= 0], minlength=len(CLASSES))
    others = Counter(arrays["box_category"][labels < 0].tolist())
    return {
        "scenes": len(set(arrays["scene"].tolist())),
        "samples": len(arrays["token"]),
        "splits": {split or "none": splits[split] for split in sorted(splits)},
        "boxes": len(labels),
        "classes": {name: int(count) for name, count in zip(CLASSES, classes)},
        "of_no_class": dict(others.most_common()),
        "sweeps": len(set(arrays["sweep_path"].ravel().tolist()) - {""}),
        "frames": len(set(arrays["frame_path"].ravel().tolist()) - {""}),
    }


def report(summary: Mapping[str, Any]) -> str:
    """Markdown of the stage's summary."""
    splits = ", ".join(f"{count:,} of {name}" for name, count in summary["splits"].items())
    lines = [
        f"# {summary['version']}",
        "",
        f"{summary['scenes']:,} scenes, {summary['samples']:,} samples ({splits}), {summary['boxes']:,} boxes; "
        f"{summary['files']:,} files looked at, {summary['clouds_read']:,} point clouds of them by their values.",
        "",
        "| class | boxes |",
        "| --- | ---: |",
        *(f"| {name} | {count:,} |" for name, count in summary["classes"].items()),
        *(f"| of no class: {name} | {count:,} |" for name, count in summary["of_no_class"].items()),
        "",
    ]
    if summary["warnings"]:
        lines += ["## Odd", "", *(f"- {name}: {text}." for name, text in summary["warnings"].items()), ""]
    return "\n".join(lines)
