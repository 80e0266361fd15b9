"""The checks that look at a dataset's files: point clouds and images."""

from pathlib import Path

import numpy as np

from common.files import patiently, read_regular
from dataroot.clouds import cloud_fault
from dataroot.faults import Faults, FileFault
from dataroot.files import check_maps, file_size, inside, look_at
from dataroot.jpeg import jpeg_fault
from dataroot.selection import Selection
from dataroot.tables import Table
from tasks.ingest.config import IngestConfig


def check_files(
    dataroot: Path, tables: dict[str, Table], selection: Selection, config: IngestConfig, faults: Faults
) -> dict[str, int]:
    """Look at every file that the index or the devkit will name. Returns counts: files, and clouds read through."""
    data = tables["sample_data"]
    clouds, images = (inside(data, rows) for rows in (selection.clouds(), selection.images()))
    # A row whose size is bad has its own fault already; its image is then only looked at as an image.
    sized = (data.good("width", "height") & (data["width"] > 0) & (data["height"] > 0))[images]
    sizes = np.where(sized[:, None], np.stack([data["width"][images], data["height"][images]], 1), 0)

    cloud_paths = [str(name) for name in data.text("filename", clouds)]
    image_paths = [str(name) for name in data.text("filename", images)]
    cloud_bytes, orientation = np.zeros(len(cloud_paths), np.int64), np.ones(len(image_paths), np.int64)

    def cloud(i: int) -> FileFault | None:
        found, cloud_bytes[i] = cloud_size(dataroot / cloud_paths[i], config.lidar_columns)
        return found

    def image(i: int) -> FileFault | None:
        found, orientation[i] = image_fault(dataroot / image_paths[i], *sizes[i].tolist())
        return found

    field = "sample_data.filename"
    look_at(field, cloud_paths, range(len(cloud_paths)), cloud, config.threads, faults, "ingest: look at files")
    look_at(field, image_paths, range(len(image_paths)), image, config.threads, faults, "ingest: look at files")
    _warn_of_turned([image_paths[i] for i in np.flatnonzero(orientation != 1)], faults)
    maps = check_maps(dataroot, tables, config.threads, faults)
    # Sizes first, contents of as many clouds as the budget holds afterwards; a cloud with a fault has size 0 here.
    budget = 0 if config.deep else config.read_gigabytes * 1e9  # `check_deep` reads all of them
    read = np.flatnonzero((cloud_bytes > 0) & (np.cumsum(cloud_bytes) <= budget)).tolist()

    def contents(i: int) -> FileFault | None:
        return contents_fault(dataroot / cloud_paths[i], config.lidar_columns)

    look_at(field, cloud_paths, read, contents, config.threads, faults, "ingest: look at files")
    return {"files": len(cloud_paths) + len(image_paths) + maps, "clouds_read": len(read)}


def cloud_size(path: Path, columns: int) -> tuple[FileFault | None, int]:
    """What is wrong with a point file by its size, and its bytes (0 where something is)."""
    found, size = file_size(path)
    if found is None and size % (4 * columns):
        return contents_fault(path, columns), 0
    return found, size


def contents_fault(path: Path, columns: int) -> FileFault | None:
    """What is wrong with a point file by its values."""
    try:
        return cloud_fault(read_regular(path), columns)
    except OSError as error:
        return FileFault("cannot be read", error.strerror or "")


def image_fault(path: Path, width: int, height: int) -> tuple[FileFault | None, int]:
    """What is wrong with an image of width x height (0 x 0: unknown), and its EXIF orientation."""
    found, _ = file_size(path)
    if found is not None:
        return found, 1
    try:
        return patiently(path, lambda: jpeg_fault(path, width, height))
    except OSError as error:
        return FileFault("cannot be read", error.strerror or ""), 1


def _warn_of_turned(paths: list[str], faults: Faults) -> None:
    if paths:
        faults.warn(
            "exif_orientation",
            f"images of which EXIF says to turn them before they are shown: {len(paths):,}, such as {paths[0]}; the "
            "network gets the pixels as they are stored, which the calibration must be of",
        )
