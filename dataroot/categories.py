"""Which detection class each category of a dataset is: nuScenes' own names, and those that `ingest.classes` maps."""

import difflib
import json
import re
from collections.abc import Mapping

import numpy as np

from dataroot.faults import Faults
from dataroot.links import Links, follow
from dataroot.tables import Table
from models.names import CATEGORY_TO_CLASS, CLASSES, OTHER_CATEGORIES

MAX_EXAMPLES = 8  # unknown categories named in a warning


def labels_of(names: np.ndarray, classes: Mapping[str, str]) -> np.ndarray:
    """(categories,) int64, the position of each one's class in names.CLASSES, -1 for none.

    classes: category -> class or "ignore", before what nuScenes' own names say.
    """
    class_of = CATEGORY_TO_CLASS | dict(classes)
    number = {name: label for label, name in enumerate(CLASSES)}
    return np.array([number.get(class_of.get(name, ""), -1) for name in names], np.int64)


def check_categories(tables: dict[str, Table], links: Links, classes: Mapping[str, str], faults: Faults) -> None:
    """A mapped name that no category has is a fault; a category that nobody knows, and that has boxes, is odd."""
    names = tables["category"].text("name").tolist()
    for name in classes:
        if name not in names and tables["category"].readable:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f": {', '.join(names[:MAX_EXAMPLES])}"
            remedy = f"name one of category.json's in ingest.classes{hint}"
            faults.add(tables["category"].file, "name", f"no category is {name!r}, which ingest.classes maps", remedy)
    expected = {*CATEGORY_TO_CLASS, *OTHER_CATEGORIES, *classes}
    unknown = {name: count for name, count in box_counts(tables, links).items() if name not in expected}
    if unknown:
        listed = ", ".join(f"{name} ({count:,} boxes)" for name, count in list(unknown.items())[:MAX_EXAMPLES])
        more = f" and {len(unknown) - MAX_EXAMPLES} more" if len(unknown) > MAX_EXAMPLES else ""
        example = ", ".join(f"{quoted(name)}: {guess_class(name)}" for name in list(unknown)[:MAX_EXAMPLES])
        faults.warn(
            "unknown_categories",
            f"categories that nuScenes does not have are of no class, so nothing is learnt of them: {listed}{more}; "
            f"map them, for example ingest.classes={{{example}}}",
        )


def box_counts(tables: dict[str, Table], links: Links) -> dict[str, int]:
    """Category -> annotations of it, most first; categories without any are left out."""
    names = tables["category"].text("name")
    category = follow(links["sample_annotation", "instance_token"], links["instance", "category_token"], -1)
    counts = np.bincount(category[category >= 0], minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return {str(names[row]): int(counts[row]) for row in order if counts[row]}


def quoted(name: str) -> str:
    """As a key in YAML's {key: value}."""
    return name if re.fullmatch(r"[A-Za-z]([\w ./-]*\w)?", name) else json.dumps(name, ensure_ascii=False)


def guess_class(category: str) -> str:
    """The class that a category's name is most like, "?" where none is."""
    class_of = {name.rsplit(".", 1)[-1]: label for name, label in CATEGORY_TO_CLASS.items()}  # adult: pedestrian
    class_of |= {name: name for name in CLASSES}
    words = category.lower().replace("-", "_").replace(" ", "_")
    for text in (words, words.rsplit(".", 1)[-1], words.rsplit(".", 1)[0]):
        if near := difflib.get_close_matches(text, class_of, n=1, cutoff=0.75):
            return class_of[near[0]]
    return next((label for name, label in class_of.items() if name in words), "?")
