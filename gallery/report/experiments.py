"""What experiments of the same root say of a run that is among theirs: the answer that one seed cannot give."""

import json
from dataclasses import dataclass
from pathlib import Path

from gallery.report.run import Run
from storage.artifact import Artifact
from tasks.engine.integrity import check_file

FOLDER, RESULT = "experiment", "result.json"


@dataclass(frozen=True)
class Experiment:
    folder: Path
    runs: int  # of all its arms and seeds
    verdict: list[str]


def experiments(run: Run) -> list[Experiment]:
    """Of those that this run's detectors are in, the largest first."""
    keys = {planned.step.artifact.key for planned in run.plan if planned.step and planned.stage.name == "evaluate"}
    found = []
    for step in [planned.step for planned in run.plan[:1] if planned.step]:
        folder = step.artifact.root / FOLDER
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            manifest = Artifact(step.artifact.root, FOLDER, path.name).manifest()
            if manifest is None or not keys & set(manifest.recipe.inputs.values()):
                continue
            with run.notes.unless(f"experiment {path.name}"):
                check_file(path / RESULT, f"the report shows {RESULT}")
                verdict = json.loads((path / RESULT).read_text())["verdict"]
                found.append(Experiment(path, len(manifest.recipe.inputs), verdict))
    return sorted(found, key=lambda experiment: -experiment.runs)
