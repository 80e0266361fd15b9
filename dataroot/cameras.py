"""Which cameras a dataset has, and in which order: every sensor of modality `camera`, under whatever name."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from models.names import CAMERAS

if TYPE_CHECKING:  # a key is asked for without NumPy
    from dataroot.faults import Faults
    from dataroot.tables import Table

CAMERA = "camera"  # a sensor's modality
SHOWN = 12  # cameras named


def cameras_among(sensors: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The cameras of sensors (channel, modality), each once: those of nuScenes in its order, then others by name.

    nuScenes' own names are cameras whatever their modality says. Names, not mountings, make the order: it is then the
    same for all cars of a dataset, and moves with no calibration.
    """
    there = {name for name, modality in sensors if name and (modality == CAMERA or name in CAMERAS)}
    return (*(name for name in CAMERAS if name in there), *sorted(there - set(CAMERAS)))


def cameras_there(sensor: "Table") -> tuple[str, ...]:
    """Every camera of sensor.json."""
    return cameras_among(zip(sensor.text("channel").tolist(), sensor.text("modality").tolist()))


def camera_names(sensor: "Table", wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The cameras of the index: those wanted, in their order, as far as they are there; by default all of them."""
    there = cameras_there(sensor)
    return tuple(name for name in wanted if name in there) if wanted else there


def check_camera_names(sensor: "Table", wanted: Sequence[str], faults: "Faults") -> None:
    """There are cameras, and those wanted are among them."""
    if not sensor.readable or sensor.rows == 0:
        return  # which has its own fault
    there = cameras_there(sensor)
    if not there:
        channels = ", ".join(sensor.text("channel").tolist()[:SHOWN])
        remedy = f"write modality {CAMERA} for the sensors that are cameras"
        faults.add(sensor.file, "modality", f"no sensor is a {CAMERA} (there are {channels})", remedy)
        return
    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(there[:SHOWN])}"
            remedy = f"name cameras of sensor.json in ingest.cameras: {hint}"
            faults.add(sensor.file, "channel", f"no camera is {name!r}, which ingest.cameras names", remedy)
