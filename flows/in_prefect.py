"""What Prefect's own page shows of a run: how far a stage is, and when it ends its figures, pictures and place.

The artifact store is the truth. Whatever the server makes of all this, a stage that is done is done.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.states import State

from common.amounts import duration, size
from common.flat import flat
from evaluation.table import main_scores
from flows.report_command import report_of
from storage.artifact import Artifact
from storage.manifest import Manifest
from tasks.engine.config import PipelineConfig
from tasks.engine.plan import Planned
from tasks.engine.stage import Step

LARGEST_PICTURE = 2_500_000  # bytes; it is stored inside the server's database, a third larger, and 4 MB is its limit
DONE = re.compile(r": (\d+)/(\d+) ")  # as common/progress.py says it


class Progress:
    """A stage's progress artifact, of the lines that its process prints."""

    def __init__(self, stage: str):
        self._stage, self._works = stage, True
        self._id: UUID | None = None

    def __call__(self, line: str) -> None:
        if (told := DONE.search(line)) is not None and int(told[2]):
            self._show(100 * int(told[1]) / int(told[2]), line)

    def end(self) -> None:
        if self._id is not None:
            self._show(100.0, f"{self._stage}: done")

    def _show(self, percent: float, words: str) -> None:
        if not self._works:
            return
        try:
            if self._id is None:
                self._id = cast(UUID, create_progress_artifact(percent, f"{self._stage}-progress", words))
            else:
                update_progress_artifact(self._id, percent, words)
        except Exception as error:  # of the server, of the connection to it
            self._works = False  # the log says how far the stage is, too
            get_run_logger().warning("%s goes on, but its progress cannot be shown: %s", self._stage, error)


def show(step: Step) -> None:
    """Leave a markdown summary, a table and the pictures of an artifact in Prefect."""
    name, artifact = step.stage.name, step.artifact
    try:
        manifest = artifact.manifest()
        if manifest is None:
            return
        report = artifact.path / "report.md"
        create_markdown_artifact(
            key=f"{name}-summary",
            description=f"{name} {artifact.key[:16]}",
            markdown=markdown(step, manifest) + (f"\n\n{report.read_text()}" if report.is_file() else ""),
        )
        rows = [{"field": field, "value": value} for field, value in flat(manifest.summary)]
        create_table_artifact(key=f"{name}-table", description=f"{name} {artifact.key[:16]}", table=rows)
        show_pictures(artifact)
    except Exception as error:
        get_run_logger().warning("%s is done, but cannot be shown in Prefect: %s", name, error)


def show_pictures(artifact: Artifact) -> None:
    """Leave the pictures of an artifact in Prefect."""
    name = artifact.stage
    for picture in sorted(artifact.path.glob("*.png")):
        if picture.stat().st_size <= LARGEST_PICTURE:
            data = base64.b64encode(picture.read_bytes()).decode()
            create_image_artifact(
                key=f"{name}-{picture.stem.replace('_', '-')}".lower(),
                image_url=f"data:image/png;base64,{data}",
                description=f"{name} {artifact.key[:16]}: {picture.name}",
            )


def show_run(config: PipelineConfig, root: Path, chosen: Sequence[Planned], states: Mapping[str, State]) -> None:
    """Leave a table of a run's nodes in Prefect: what each came to, cached ones marked as such, and where it is.

    Below it the command for the run's report, and no link: a browser follows none from Prefect's page to a file.
    """
    try:
        report = f"All of it on one page, in `{Path.cwd()}`:\n\n```\n{report_of(config, root)}\n```"
        markdown = f"{run_table(chosen, states)}\n\n{report}"
        create_markdown_artifact(key="run-summary", description="the run's stages", markdown=markdown)
    except Exception as error:
        get_run_logger().warning("the run's table cannot be shown in Prefect: %s", error)


def run_table(chosen: Sequence[Planned], states: Mapping[str, State]) -> str:
    """Markdown: a row a node."""
    lines = ["| stage | state | figures | size | seconds | folder |", "| --- | --- | --- | ---: | ---: | --- |"]
    for planned in chosen:
        artifact, state = planned.ready().artifact, states[planned.name]
        manifest = artifact.manifest()
        ended = "cached" if planned.state == "cached" else (state.name or state.type.value).lower()
        if manifest is None:
            lines.append(f"| {planned.name} | {ended} | | | | |")
            continue
        scores = [f"{name} {score:.4f}" for name, score in main_scores(manifest.summary).items()]
        cells = (", ".join(scores), size(manifest.bytes), f"{manifest.seconds:.1f}", f"`{artifact.path}`")
        lines.append(f"| {planned.name} | {ended} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(step: Step, manifest: Manifest) -> str:
    """The head of a stage's summary."""
    return (
        f"# {step.stage.name}: {step.stage.title}\n\n"
        f"- key `{step.artifact.key}`\n- folder `{step.artifact.path}`\n"
        f"- {size(manifest.bytes)} in {duration(manifest.seconds)}\n"
        f"- look inside: `geomim inspect {step.artifact.path} --sample 0 --png sample.png`"
    )
