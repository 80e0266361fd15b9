"""The tables of a dataset, checked: the one way to open them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import UserError
from dataroot.categories import check_categories
from dataroot.checks import check_left_out, check_tables
from dataroot.faults import Faults
from dataroot.links import Links, resolve
from dataroot.selection import Selection, select
from dataroot.tables import Table, read_tables

NO_CLASSES: Mapping[str, str] = {}


def checked_tables(
    dataroot: Path,
    version: str,
    faults: Faults,
    sweeps: int = 0,
    frames: int = 0,
    leave_out: Sequence[str] = (),
    classes: Mapping[str, str] = NO_CLASSES,
) -> tuple[dict[str, Table], Links, Selection]:
    """The tables, where their tokens lead and what is chosen of them; what is wrong with them goes into `faults`.

    sweeps, frames, leave_out: see `select`; classes: category -> class, where the dataset has names of its own. Raises
    UserError where there is no such folder.
    """
    if not (dataroot / version).is_dir():
        raise UserError(f"{dataroot}: holds no folder of tables {version}; check --dataroot and --version")
    tables = read_tables(dataroot, version, faults)
    links = resolve(tables)
    selection = select(tables, links, sweeps, frames, leave_out)
    check_tables(tables, links, selection, faults)
    check_categories(tables, links, classes, faults)
    check_left_out(tables, selection, tuple(leave_out), faults)
    return tables, links, selection
