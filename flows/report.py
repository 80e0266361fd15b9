"""`geomim report`: one HTML file on a whole run, finished or not, and on no more than what the root holds."""

import shlex
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from common.amounts import duration, size
from common.errors import UserError
from common.progress import say
from gallery.report.found import find_run, tables_of
from gallery.report.page import render
from gallery.report.run import Run
from storage.atomic import write_bytes
from tasks.engine.config import PipelineConfig
from tasks.engine.mirrored import bring
from tasks.engine.plan import make_plan
from tasks.engine.roots import usable_root

TO_MAIL = 4_000_000  # bytes


def write_report(
    config: PipelineConfig, root: Path, out: Path, options: Sequence[str], name: str, show: bool = False
) -> None:
    """Write the page and print where it is. options: those that gave the config. show: in the browser too."""
    start, root = time.monotonic(), usable_root(root, to_write=False)
    if config.dataroot is None:
        raise UserError(
            "report: no dataroot is given, and a run is one of some data: add --config FILE or --dataroot DIR"
        )
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file such as {out / 'report.html'}")
    run = _run(config, root)
    page = render(run, options, name, shlex.join(["geomim", *sys.argv[1:]])).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, page)
    for sentence in run.notes.sentences:
        say(f"report: {sentence}")
    large = "" if len(page) < TO_MAIL else ", large for a mail"
    print(f"{out}  {size(len(page))}{large}  {duration(time.monotonic() - start)}")
    if show and not webbrowser.open(out.absolute().as_uri()):
        say(f"report: there is no browser to open here; open {out.absolute()}")


def _run(config: PipelineConfig, root: Path) -> Run:
    """The planned run; where the data is not what was ingested, one of these settings on what it was."""
    plan = make_plan(config, root)
    for planned in plan:
        if planned.state == "cached":
            bring(planned.ready().artifact)
    ingest = plan[0]
    if ingest.step is None:
        run = Run(config, find_run(config, root, ingest.why), None)
        run.notes.add(
            f"Pictures are left out, since {ingest.why}; the rest is of the newest artifacts of these settings"
        )
        return run
    if ingest.step.artifact.has_manifest():
        return Run(config, plan, config.dataroot)
    found = find_run(config, root, ingest.why, tables_of(ingest.step))
    if found[0].step is None:
        return Run(config, plan, config.dataroot)
    run = Run(config, found, config.dataroot)
    run.notes.add(
        f"The data is not what was ingested ({ingest.why}); this is the newest run with its tables and settings"
    )
    return run
