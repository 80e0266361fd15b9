"""`geomim evaluate`: the scores of a results file that is there already."""

from pathlib import Path
from typing import Any

from evaluation import table
from evaluation.dataroot import check_dataset, has_annotations, read_truth, split_samples
from evaluation.results import Results, check_meta, read_results, split_of
from flows.show import print_json


def evaluate_file(file: Path, dataroot: Path, version: str, quick: bool, as_json: bool) -> None:
    """Check the file against the dataset, score it and print the tables, or JSON.

    Without annotations nothing is scored; for a test split it is checked that the file can be uploaded.
    """
    splits = split_samples(dataroot, version)
    results = read_results(file)
    split = split_of(file, results, splits, version)
    facts = {"split": split, "samples": len(results.tokens), "predictions": len(results.boxes)}
    if not has_annotations(dataroot, version, results.tokens):
        if split == "test":
            check_meta(file, results.meta)
        line = (
            f"{version} has no annotations of {split}, so nothing is scored: {file} holds all {facts['samples']} of "
            f"its samples, with {facts['predictions']} boxes"
        )
        print_json(facts) if as_json else print(line + (", and can be uploaded as it is" if split == "test" else ""))
        return
    metrics = _quick(results, dataroot, version, facts) if quick else _official(file, results, dataroot, version, split)
    print_json(metrics) if as_json else print(table.text(metrics), end="")


def _quick(results: Results, dataroot: Path, version: str, facts: dict[str, Any]) -> dict[str, Any]:
    from evaluation.flat import counted
    from evaluation.metrics import evaluate

    truth = read_truth(dataroot, version, results.tokens)
    predicted = results.boxes[counted(results.boxes, truth.ego, truth.racks)]
    return evaluate(truth.boxes, predicted, truth.ego) | facts


def _official(file: Path, results: Results, dataroot: Path, version: str, split: str) -> dict[str, Any]:
    check_dataset(dataroot, version)
    from evaluation.devkit import score  # takes seconds to import

    return score(file, dataroot, version, results.tokens, split)
