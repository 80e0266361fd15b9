"""How fast annotated boxes move."""

import numpy as np

from dataroot.links import Links, follow
from dataroot.tables import Table

MAX_SECONDS = 1.5  # between two annotations of a velocity's one-sided difference; twice that for a centred one


def box_velocities(tables: dict[str, Table], links: Links) -> np.ndarray:
    """(rows of sample_annotation, 3) m/s in the global frame, NaN where unknown: the devkit's `box_velocity`.

    The difference between the annotation's neighbours in time, or between it and its one neighbour; unknown where it
    has none, or where more than 3 s (one-sided 1.5 s) lie between.
    """
    box = tables["sample_annotation"]
    previous, following = links["sample_annotation", "prev"], links["sample_annotation", "next"]
    here = np.arange(box.rows)
    first = np.where(previous >= 0, previous, here)
    last = np.where(following >= 0, following, here)
    # Seconds before the difference, in floats, as the devkit does it: an interval on the limit falls on the same side.
    seconds = 1e-6 * follow(links["sample_annotation", "sample_token"], tables["sample"]["timestamp"], 0)
    elapsed = seconds[last] - seconds[first]
    limit = np.where((previous >= 0) & (following >= 0), 2 * MAX_SECONDS, MAX_SECONDS)
    defined = (first != last) & (elapsed <= limit)
    moved = box["translation"][last] - box["translation"][first]
    return np.where(defined[:, None], moved / np.where(defined, elapsed, 1.0)[:, None], np.nan)
