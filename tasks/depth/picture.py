"""A look at the result: the LiDAR's points over a sample's images, coloured by depth."""

import io
from pathlib import Path

from dataroot.points import load_points
from pictures.above import above, front_of, reach_of
from pictures.cameras import camera_tile
from pictures.palette import LIGHT
from pictures.sheet import sheet
from storage.atomic import write_bytes
from storage.depth import DepthReader
from storage.index import Index

WIDTH = 2400  # px


def save_picture(path: Path, dataroot: Path, index: Index, store: DepthReader, sample: int, sweeps: int = 0) -> None:
    """A PNG of the images of a sample with the points of its key sweep and up to `sweeps` before it."""
    points, cloud = store.read(sample), load_points(index, dataroot, sample, 0)
    reach = reach_of(index.box_center[index.box_rows(sample)])
    picture = sheet(
        index,
        sample,
        lambda camera, width: camera_tile(index, dataroot, sample, camera, width, points=points.camera(camera, sweeps)),
        lambda size: above(size, reach, points=cloud, front=front_of(index, sample)),
        f"{index.scene_name[index.scene[sample]]}   {index.token[sample]}",
        [],
        LIGHT,
        WIDTH,
        depth_bar=True,
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    write_bytes(path, file.getvalue())
