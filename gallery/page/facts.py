"""What the page says in words and figures: of an opened artifact, and of one sample of it."""

from typing import Any

import numpy as np

from common.amounts import duration, size
from common.errors import UserError
from common.flat import flat
from evaluation.picture import LEGEND
from gallery.health import ODD, health
from gallery.look import Gallery, Look, usual
from gallery.page.samples import sample_table
from gallery.page.shelf import settings
from pictures.cameras import DEPTHS, depth_colours, rows_of
from pictures.strokes import Stroke
from storage.manifest import Manifest, damages_in
from storage.sentences import in_sentences

SHOWN_DAMAGES = 5
DEPTH_STOPS = 12  # of the scale of the colours of depth


def of_artifact(gallery: Gallery) -> dict[str, Any]:
    """What it is, what can be drawn of it, what is wrong with it, and its samples."""
    opened = gallery.opened
    problems = [*_damages(gallery)]
    if not opened.dataroot.is_dir():
        problems.append(
            f"The dataroot {opened.dataroot} is not there; `geomim view --dataroot DIR` says where its files are now."
        )
    has: dict[str, Any] = {"predictions": opened.results is not None, "depth": False, "channels": 0}
    for name in ("depth", "bev"):
        try:
            with in_sentences():
                if (store := getattr(opened, name)) is not None:
                    has |= {"depth": True} if name == "depth" else {"channels": store.shape[0]}
        except UserError as error:
            problems.append(str(error))
    look = usual(opened)
    return {
        "stage": opened.stage,
        "name": opened.path.name,
        "path": str(opened.path),
        "problems": list(dict.fromkeys(problems)),
        "has": has,
        "usual": {"truth": look.truth, "depth": look.depth, "map": look.map if has["channels"] else "none"},
        "sections": _sections(opened.manifest) if opened.manifest else [],
        "pictures": stored_pictures(opened.manifest),
        "samples": sample_table(opened),
    }


def of_sample(gallery: Gallery, sample: int, look: Look) -> dict[str, Any]:
    """Its cameras in rows as one sees them from the car, how its boxes are drawn, and its figures."""
    index, sample = gallery.opened.index, gallery.opened.row(str(sample))
    legend = gallery.legend(sample, look)
    told: dict[str, Any] = {
        "rows": [[index.cameras[camera] for camera in row] for row in rows_of(index, sample)],
        "sizes": dict(zip(index.cameras, index.image_size[sample].tolist())),
        "legend": [[words, css(stroke), stroke.dashed] for words, stroke in legend],
    }
    try:
        with in_sentences():
            told["facts"] = gallery.facts(sample, look.score)
    except UserError as error:
        told["problem"] = str(error)
    return told


def of_health(gallery: Gallery) -> list[tuple[str, str | None, list[tuple[str, str]]]]:
    """Of each store and file whether its numbers look sound: its name, what is odd or None, and what was seen."""
    if gallery.opened.manifest is None:
        return []
    seen = health(gallery.opened.path)
    return [
        (name, store.get(ODD), [(fact, _words(value)) for fact, value in flat(store) if fact != ODD])
        for name, store in seen.items()
    ]


def depth_scale() -> dict[str, Any]:
    """The colours of depth from the nearest to the farthest, evenly spaced on a logarithmic scale."""
    colours = depth_colours(np.geomspace(*DEPTHS, DEPTH_STOPS))
    return {"from": DEPTHS[0], "to": DEPTHS[1], "colours": [f"rgb({r},{g},{b})" for r, g, b in colours.tolist()]}


def box_colours() -> dict[str, str]:
    """Of the boxes by what became of them: the names are those of `Misses`."""
    return {name: css(stroke) for name, (_, stroke) in LEGEND.items()}


def stored_pictures(manifest: Manifest | None) -> list[str]:
    """The names of pictures that the stage itself left."""
    return sorted(name for name in manifest.files if name.endswith(".png") and "/" not in name) if manifest else []


def css(stroke: Stroke) -> str:
    return "rgb({},{},{})".format(*stroke.colour)


def _damages(gallery: Gallery) -> list[str]:
    """Files that are gone or have another size: what is cheap to see."""
    path = gallery.opened.path
    found = [str(damage) for damage in damages_in(path)] if gallery.opened.manifest else []
    more = f" and {len(found) - SHOWN_DAMAGES} more" if len(found) > SHOWN_DAMAGES else ""
    mends = f"`geomim repair {path}` mends it"
    return [f"Damaged: {', '.join(found[:SHOWN_DAMAGES])}{more}; {mends}."] if found else []


def _sections(manifest: Manifest) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles with names and values."""
    made = {name: value for name, value in manifest.made.items() if name not in ("step", "inputs", "packages")}
    about = {
        "finished": manifest.created,
        "took": duration(manifest.seconds),
        "size": size(manifest.bytes),
        "key": manifest.key,
    }
    inputs = {name: f"{stage}/{key[:16]}" for name, (stage, key) in manifest.inputs().items()}
    sections = {
        "Artifact": about,
        "Result": manifest.summary,
        "Made from": inputs,
        "Made by": made,
        "Config": settings(manifest),
    }
    return [(title, [(n, _words(v)) for n, v in flat(values)]) for title, values in sections.items() if values]


def _words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
