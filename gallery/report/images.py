"""The pictures of a run, as data URIs: one fixed sample of val in every stage's eyes, and the worst samples."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from evaluation.misses import misses
from gallery.look import Gallery, Look
from gallery.opened import Opened
from gallery.report.run import Arm, Run

WIDTH, QUALITY = 1600, 72  # px, and of WebP
WORST = 4  # samples
LISTINGS = ("detections.json", "segmentations.json", "occupancies.json")


@dataclass(frozen=True)
class Picture:
    title: str
    told: str  # what it shows, for those who do not see it too
    uri: str


def sample_of(run: Run) -> int | None:
    """The sample that is shown of every run on this data: that in the middle of val, or of train without a val."""
    if run.index is None:
        return None
    for split in ("val", "train", "test"):
        if len(samples := run.index.samples(split)):
            return int(samples[len(samples) // 2])
    return None


def sample_pictures(run: Run) -> list[Picture]:
    """Of the fixed sample: what is predicted, by every arm; the teacher's map; LiDAR depth."""
    out: list[Picture] = []
    with run.notes.unless("the fixed sample of val"):
        sample = sample_of(run)
        if sample is None:
            return out
        if run.dataroot is not None:
            out += _predicted(run, sample)
        out += _map(run, sample)
        if run.dataroot is not None and (depth := run.opened("depth")) is not None:
            with run.notes.unless("the picture of LiDAR depth"):
                look = Look(truth=False, predictions=False, map="none")
                picture = Gallery(depth).sheet(sample, look, WIDTH)
                out.append(
                    _picture(
                        "What stage depth keeps: LiDAR points in the images, yellow near and violet far", "", picture
                    )
                )
    return out


def pretraining_picture(run: Run) -> Picture | None:
    """What pretraining hides and rebuilds, as it drew it itself."""
    for name in ("pretrain.png", "rendered.png"):
        with run.notes.unless(f"the picture {name} of pretraining"):
            if (path := run.checked("pretrain", name)) is not None:
                told = "Held-out samples: the images, what is shown of them, and what the network makes of that"
                return _picture("What pretraining hides and rebuilds", told, Image.open(path), 1400)
    return None


def worst_pictures(run: Run) -> list[Picture]:
    """Those that the evaluation drew, or else drawn now; none where there is nothing to draw from."""
    out: list[Picture] = []
    with run.notes.unless("the worst samples"):
        out = _listed(run)
        if not out and run.dataroot is not None and run.arms and run.arms[0].opened is not None:
            out = list(_worst(run.arms[0], run.arms[0].opened))
    return out


def _predicted(run: Run, sample: int) -> Iterator[Picture]:
    of = [arm for arm in run.arms if arm.opened is not None and arm.opened.results is not None]
    for arm in of:
        with run.notes.unless(f"the picture of what {arm.name} predicts"):
            assert arm.opened is not None
            gallery = Gallery(arm.opened)
            look = Look(depth=False, map="none", score=_score(gallery, sample))
            title = f"Found and missed, {arm.name}: boxes that score {look.score:.2f} or more"
            yield _picture(title, _facts(gallery, sample, look.score), gallery.sheet(sample, look, WIDTH))
    ingested = run.opened("ingest") if not of else None
    if ingested is not None:
        look = Look(depth=False, map="none")
        yield _picture("The true boxes", "", Gallery(ingested).sheet(sample, look, WIDTH))


def _score(gallery: Gallery, sample: int) -> float:
    """0.2, or less where a detector is unsure: its ten best boxes are shown in any case."""
    results = gallery.opened.results
    if results is None:
        return Look.score
    scores = np.sort(results.boxes(gallery.opened.index, sample).required_scores)[::-1]
    return min(Look.score, float(scores[min(len(scores), 10) - 1])) if len(scores) else Look.score


def _map(run: Run, sample: int) -> list[Picture]:
    """The teacher's features with the true boxes, side by side: three directions in colours, and their length."""
    with run.notes.unless("the picture of the teacher's features"):
        opened = run.opened("teacher")
        if opened is None or opened.bev is None:
            return []
        gallery = Gallery(opened)
        look, side = Look(depth=False, points=False, predictions=False), 460
        tiles = [gallery.above(sample, replace(look, map=name), side) for name in ("pca", "activity")]
        both = Image.new("RGB", (2 * side + 8, side), (255, 255, 255))
        for place, tile in enumerate(tiles):
            both.paste(tile, (place * (side + 8), 0))
        channels, x, y = opened.bev.shape
        told = (
            f"{channels} channels on {x} x {y} cells. Left: the three directions in which they differ most, as red, "
            "green and blue; right: how strong they are. Outlines: true boxes by kind"
        )
        return [_picture("What pretraining has to rebuild: the teacher's features from above", told, both)]
    return []


def _listed(run: Run) -> list[Picture]:
    out: list[Picture] = []
    for listing in LISTINGS:
        path = run.checked("evaluate", listing)
        for entry in json.loads(path.read_text())[:WORST] if path else ():
            with run.notes.unless(f"the picture {entry['picture']}"):
                if (picture := run.checked("evaluate", entry["picture"])) is not None:
                    facts = _entry_facts(entry)
                    out.append(_picture(f"{entry['scene']}, {entry['sample'][:8]}", facts, Image.open(picture)))
    return out


def _entry_facts(entry: dict) -> str:
    if "missed" not in entry:
        return ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if isinstance(value, float))
    kinds = ((kind, entry[kind]) for kind in ("missed", "false"))
    return "; ".join(f"{kind}: {_counts(counts)}" for kind, counts in kinds)


def _worst(arm: Arm, opened: Opened) -> Iterator[Picture]:
    if opened.results is None:
        return
    gallery, index = Gallery(opened), opened.index
    told = {int(s): misses(index, int(s), opened.results.boxes(index, int(s))) for s in opened.samples}
    for sample in sorted(told, key=lambda s: (-told[s].count, s))[:WORST]:
        look = Look(depth=False, map="none", score=_score(gallery, sample))
        title = f"{index.scene_name[index.scene[sample]]}, {str(index.token[sample])[:8]}"
        yield _picture(title, _facts(gallery, sample, look.score), gallery.sheet(sample, look, 1280))


def _facts(gallery: Gallery, sample: int, score: float) -> str:
    facts = gallery.facts(sample, score)
    return f"{facts['right']} found; missed: {_counts(facts['missed'])}; false: {_counts(facts['false'])}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "none"


def _picture(title: str, told: str, image: Image.Image, width: int = WIDTH) -> Picture:
    image = image.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=4)
    return Picture(title, told, f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}")
