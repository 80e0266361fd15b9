"""The report of a run as one HTML file that holds all it shows: its pictures, its charts and its style."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader

from common.amounts import duration
from gallery.report import data, images, settings
from gallery.report.curves import trainings
from gallery.report.detections import detections
from gallery.report.experiments import experiments
from gallery.report.graph import graph, rows
from gallery.report.run import Run
from gallery.report.scores import band_tables, class_table, gain_chart, gain_table, headline, verdict
from pictures import palette

COLOURS = ("orange", "sky", "green", "blue", "vermillion", "purple", "grey")
HERE = Path(__file__).parent
Part = TypeVar("Part")


def render(run: Run, options: Sequence[str], name: str, command: str) -> str:
    """The page. options: those that gave the config. name: of the run. command: what was typed."""
    scored = [arm for arm in run.arms if arm.metrics]

    def part(what: str, make: Callable[[], Part]) -> Part | None:
        with run.notes.unless(what):
            return make()
        return None

    of_data = data.data(run)
    sample = part("the fixed sample", lambda: images.sample_of(run))
    manifests = [run.manifest(planned.name) for planned in run.plan]
    parts: dict[str, Any] = {
        "name": name,
        "command": command,
        "made_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "dataroot": run.config.dataroot,
        "version": run.config.version,
        "figures": part("the headline", lambda: headline(run)) or [],
        "stages": rows(run),
        "graph": graph(run),
        "seconds": duration(sum(m.seconds for m in manifests if m)) if any(manifests) else "",
        "finished": sum(planned.state == "cached" for planned in run.plan),
        "sample": f"sample {run.index.token[sample]}" if run.index is not None and sample is not None else "",
        "pictures": images.sample_pictures(run),
        "pretraining": images.pretraining_picture(run),
        "worst": images.worst_pictures(run),
        "trainings": part("the curves", lambda: trainings(run)) or [],
        "class_tables": part("the scores by class", lambda: [class_table(arm) for arm in scored]) or [],
        "band_tables": part("the scores by distance", lambda: band_tables(scored[0]) if scored else []) or [],
        "gain": part("the gain by class", lambda: gain_table(*scored) if len(scored) == 2 else None),
        "gain_chart": part("the gain by class", lambda: gain_chart(*scored) if len(scored) == 2 else ""),
        "detections": part("the detections", lambda: detections(run)),
        "experiments": part("experiments", lambda: experiments(run)) or [],
        "arms": [arm.name for arm in run.arms],
        "data": of_data,
        "boxes_chart": data.boxes_chart(of_data) if of_data.boxes else "",
        "settings": part("the settings", lambda: settings.settings(run.config)),
        "preset": run.config.preset,
        "made": settings.made(run),
        "commands": settings.commands(options, run),
        "verdict": part("the verdict", lambda: verdict(run)) or "",
    }
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    style = (HERE / "page.css").read_text()
    parts |= {"palette": _palette(), "style": style, "notes": run.notes.sentences}
    return environment.get_template("page.html.jinja").render(parts)


def _palette() -> str:
    """The colours of pictures as variables of the page."""
    colours = {name: getattr(palette, name.upper()) for name in COLOURS}
    return f":root {{ {' '.join(f'--{name}: rgb{colour};' for name, colour in colours.items())} }}"
