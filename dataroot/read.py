"""The tables of a dataset, checked: the one way to open them."""

from collections.abc import Mapping
from pathlib import Path

from common.errors import UserError
from dataroot.cameras import camera_names, check_camera_names
from dataroot.categories import check_categories
from dataroot.checks import check_left_out, check_tables
from dataroot.faults import Faults
from dataroot.links import Links, resolve
from dataroot.scenes import choose_scenes
from dataroot.selection import Choice, Selection, select
from dataroot.tables import Table, read_tables

NO_CLASSES: Mapping[str, str] = {}
WHOLE = Choice()


def checked_tables(
    dataroot: Path,
    version: str,
    faults: Faults,
    choice: Choice = WHOLE,
    classes: Mapping[str, str] = NO_CLASSES,
) -> tuple[dict[str, Table], Links, Selection]:
    """The tables, where their tokens lead and what is chosen of them; what is wrong with them goes into `faults`.

    classes: category -> class, where the dataset has names of its own. Raises UserError where there is no such folder.
    """
    if not (dataroot / version).is_dir():
        raise UserError(f"{dataroot}: holds no folder of tables {version}; check --dataroot and --version")
    tables = read_tables(dataroot, version, faults)
    links = resolve(tables)
    check_camera_names(tables["sensor"], choice.cameras, faults)
    selection = select(tables, links, choice, camera_names(tables["sensor"], choice.cameras))
    selection = choose_scenes(dataroot, tables, links, selection, choice.scenes, faults)
    check_tables(tables, links, selection, faults)
    check_categories(tables, links, classes, faults)
    check_left_out(tables, selection, tuple(choice.leave_out), faults)
    return tables, links, selection
