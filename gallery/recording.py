"""A scene for the Rerun viewer (https://rerun.io): its samples in one `.rrd` file, to fly through and play.

    world                        the global frame, moved to the scene's first ego pose: the viewer has float32
    world/truth/*                annotated boxes: by class; where there are predictions, found and missed ones
    world/predictions/*          predicted boxes, right and false ones
    world/ego                    the car at the key sweep's time
    world/ego/LIDAR_TOP          the key sweep
    world/ego/LIDAR_TOP/map      the teacher's map, lying on the road
    world/ego/CAM_FRONT ...      the cameras, each where it was at its own image's time, with that image

What is there and in which colours, is what `Gallery` draws. Whatever comes and goes is written for each sample, if
need be as nothing: the viewer goes on showing the last that it was given.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_file
from common.progress import progress
from dataroot.points import load_points
from gallery.look import Gallery, Look
from models.boxes import Boxes
from models.geometry import inverse
from models.names import CLASSES
from pictures.cameras import rows_of
from pictures.palette import DARK, NO_CLASS
from pictures.strokes import Stroke
from storage.atomic import atomic_file
from storage.index import Index

# The last rerun-sdk for NumPy 1, and what it needs for that: pyproject.toml's extra `rerun` is the same. Not asked for
# as `geomim[rerun]`: pip would then fetch all that the lock leaves out, a second OpenCV with it.
PACKAGES = ("rerun-sdk==0.23.1", "pyarrow<26")
LIDAR = "world/ego/LIDAR_TOP"
LINES = {"truth": 1.5, "predictions": 0.7}  # points: there is no dashing here, and colour alone says nothing
FRUSTUM = 1.5  # m from a camera to where its image hangs
SHOWN_SCENES = 10  # in a sentence
Told = tuple[str, Boxes, Stroke]  # as of `Gallery.layers`


def rerun_package() -> Any:
    """The Rerun SDK. Raises UserError where it is not installed."""
    try:
        import rerun
    except ImportError as error:
        install = "pip install " + " ".join(f"'{package}'" for package in PACKAGES)
        raise UserError(f"--rerun: needs the Rerun SDK, which does not import here ({error}): {install}") from None
    return rerun


def with_scene(galleries: Iterable[Gallery], scene: str) -> Gallery:
    """That which shows most of a scene: predictions and the teacher's map, else one of them; of equals the first.

    Raises UserError with the scenes that there are, where none has this one.
    """
    best, most, scenes = None, -1, dict[str, None]()
    for gallery in galleries:
        opened = gallery.opened
        shows = (opened.bev is not None) + (opened.results is not None)
        if shows > most:
            there = opened.index.scene_name[np.unique(opened.index.scene[opened.samples])]
            scenes |= dict.fromkeys(map(str, there))
            if scene in there:
                best, most = gallery, shows
        if most == 2:
            break
    if best is None:
        more = f" and {len(scenes) - SHOWN_SCENES} more" if len(scenes) > SHOWN_SCENES else ""
        raise UserError(f"--rerun {scene}: is no scene here; there are {', '.join([*scenes][:SHOWN_SCENES])}{more}")
    return best


def write_recording(out: Path, gallery: Gallery, scene: str, score: float = Look.score) -> int:
    """Write a scene's samples, those that the artifact has, and return how many.

    score: of a predicted box, at least. Raises UserError and DataError as `Gallery` does; then `out` is left as it was.
    """
    rr, index, opened = rerun_package(), gallery.opened.index, gallery.opened
    rows = np.flatnonzero(index.scene_name[index.scene] == scene)
    samples = rows[np.isin(rows, opened.samples)].tolist()
    look = Look(depth=False, score=score)
    layers = {sample: gallery.layers(sample, look) for sample in samples}
    nothing = {name: (name, Boxes.empty(), stroke) for told in layers.values() for name, _, stroke in told}
    origin = index.lidar_ego_to_global[rows[0], :3, 3]
    made = f"{scene} {opened.stage} {opened.path.name}"
    recording = rr.RecordingStream("geomim", recording_id=made)
    with atomic_file(out) as file:
        recording.save(file.name, default_blueprint=_blueprint(rr, index, samples[0]))
        recording.send_recording_name(made)
        world = rr.ViewCoordinates.RIGHT_HAND_Z_UP, rr.AnyValues(global_origin=origin)
        recording.log("world", *world, static=True)
        for sample in progress(samples, f"{scene}", len(samples), "samples"):
            recording.set_time("time", timestamp=np.datetime64(int(index.timestamp[sample]), "us"))
            recording.set_time("sample", sequence=sample)  # as `geomim inspect --sample` counts them
            for path, logged in _sensors(rr, index, opened.dataroot, sample, origin):
                recording.log(path, *logged)
            for told in (nothing | {layer[0]: layer for layer in layers[sample]}).values():
                recording.log(_place(told), _boxes(rr, index, sample, told, origin))
            if (ground := gallery.map(sample, look)) is not None:
                height = -float(index.lidar_to_ego[sample, 2, 3])  # of the road
                recording.log(f"{LIDAR}/map", _ground(rr, *ground, height))
        recording.disconnect()  # all is written, and the file closed
    return len(samples)


def _sensors(
    rr: Any, index: Index, dataroot: Path, sample: int, origin: np.ndarray
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The car, its LiDAR and its cameras: entity, what is logged of it. A transform is that to the entity above."""
    ego_to_world = index.lidar_ego_to_global[sample].copy()
    ego_to_world[:3, 3] -= origin
    yield "world/ego", (_transform(rr, ego_to_world),)
    points = load_points(index, dataroot, sample, 0)[:, :3] if index.has_lidar else np.zeros((0, 3))
    yield LIDAR, (_transform(rr, index.lidar_to_ego[sample]), rr.Points3D(points, colors=[DARK.point]))
    # The car goes on between the sweep and an image: the way leads through the ego poses of both.
    camera_to_ego = inverse(index.lidar_ego_to_global[sample]) @ index.camera_to_global(sample)
    for number, name in enumerate(index.cameras):
        image = read_file(dataroot / str(index.camera_path[sample, number]))
        lens = rr.Pinhole(
            image_from_camera=index.intrinsics[sample, number],
            resolution=index.image_size[sample, number],
            image_plane_distance=FRUSTUM,
        )
        encoded = rr.EncodedImage(contents=image, media_type="image/jpeg")
        yield f"world/ego/{name}", (_transform(rr, camera_to_ego[number]), lens, encoded)


def _transform(rr: Any, to_parent: np.ndarray) -> Any:
    return rr.Transform3D(translation=to_parent[:3, 3], mat3x3=to_parent[:3, :3])


def _side(told: Told) -> str:
    return "predictions" if told[2].dashed else "truth"


def _place(told: Told) -> str:
    """The entity of boxes that are one thing: "predicted, right" -> world/predictions/right."""
    return f"world/{_side(told)}/{told[0].rpartition(', ')[2].replace(' ', '_')}"


def _boxes(rr: Any, index: Index, sample: int, told: Told, origin: np.ndarray) -> Any:
    """In the world's frame, level as the annotations are, named by class, predicted ones with their scores."""
    boxes = told[1].levelled(index.lidar_to_global(sample))
    names = [CLASSES[label] if label >= 0 else NO_CLASS for label in boxes.labels]
    if _side(told) == "predictions" and boxes.scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, boxes.scores)]
    return rr.Boxes3D(
        centers=boxes.centers - origin,
        sizes=boxes.sizes,
        quaternions=boxes.quaternions()[:, [1, 2, 3, 0]],
        colors=[told[2].colour] * len(boxes),
        radii=rr.Radius.ui_points([LINES[_side(told)]] * len(boxes)),
        labels=names,
        show_labels=False,
    )


def _ground(rr: Any, colours: np.ndarray, covers: tuple[float, ...], height: float) -> Any:
    """A map's colours (X, Y, 3) on a rectangle at a height (m) of the LIDAR_TOP frame."""
    (left, back), (right, front) = covers[:2], covers[len(covers) // 2 :][:2]
    return rr.Mesh3D(
        vertex_positions=[(left, front, height), (right, front, height), (right, back, height), (left, back, height)],
        triangle_indices=[(0, 2, 1), (0, 3, 2)],
        vertex_texcoords=[(0, 0), (1, 0), (1, 1), (0, 1)],
        albedo_texture=np.ascontiguousarray(colours.swapaxes(0, 1)[::-1]),  # a picture's rows, the farthest first
    )


def _blueprint(rr: Any, index: Index, sample: int) -> Any:
    """The world, and below it the images as one sees them from the car, with the boxes on them."""
    shown = ["$origin/**", "/world/truth/**", "/world/predictions/**"]
    names = [[index.cameras[camera] for camera in row] for row in rows_of(index, sample)]
    rows = [
        rr.blueprint.Horizontal(
            *(rr.blueprint.Spatial2DView(origin=f"/world/ego/{name}", contents=shown, name=name) for name in row)
        )
        for row in names
    ]
    world = rr.blueprint.Spatial3DView(origin="/world", name="world")
    return rr.blueprint.Blueprint(
        rr.blueprint.Vertical(world, *rows, row_shares=[2] + [1] * len(rows)), collapse_panels=True
    )
