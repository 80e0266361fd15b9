"""A few key frames as a person would look at them: do the points fall into the images, and lie in the boxes?

That holds only where calibrations, poses, times and units of tables and files fit together.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dataroot.faults import Faults
from dataroot.points import read_cloud, without_car
from models.boxes import Boxes
from models.geometry import apply, inverse
from tasks.depth.project import Rig, project_cloud
from tasks.ingest.config import IngestConfig

Arrays = Mapping[str, np.ndarray]

LOOKED_AT = 6  # key frames, spread over the dataset
FEWEST_POINTS = 1000  # to say anything
IN_IMAGES = 0.1  # of the points; of nuScenes' it is two thirds
FEWEST_BOXES, IN_BOXES = 20, 0.5  # boxes to say anything; share of them in which there are points


def check_sight(dataroot: Path, version: str, arrays: Arrays, config: IngestConfig, faults: Faults) -> None:
    """Look at datasets whose tables and files have no faults of their own."""
    samples = np.unique(np.linspace(0, len(arrays["token"]) - 1, LOOKED_AT).astype(int)).tolist()
    clouds = {s: read_cloud(dataroot / arrays["lidar_path"][s], config.lidar_columns) for s in samples}
    total = sum(map(len, clouds.values()))
    if total < FEWEST_POINTS:
        return
    away = {s: without_car(points) for s, points in clouds.items()}
    share = sum(_seen(arrays, s, points) for s, points in away.items()) / max(1, sum(map(len, away.values())))
    told = f"{share:.0%} of the points of {len(samples)} key frames fall into an image"
    if share == 0:
        remedy = "mend rotation, translation or camera_intrinsic, or ego_pose.json"
        faults.add(f"{version}/calibrated_sensor.json", "", told, remedy)
    elif share < IN_IMAGES:
        faults.warn("points_in_images", f"only {told}")
    _check_boxes(arrays, clouds, faults)
    brightest = max(float(points[:, 3].max()) for points in clouds.values())
    if 0 < brightest <= 1:
        told = f"intensities reach {brightest:.3g}; published LiDAR weights expect 0 to 255"
        faults.warn("lidar_intensity", told)


def _seen(arrays: Arrays, sample: int, points: np.ndarray) -> int:
    """How many points fall into at least one image."""
    global_to_camera = inverse(arrays["camera_ego_to_global"][sample] @ arrays["camera_to_ego"][sample])
    lidar_to_global = arrays["lidar_ego_to_global"][sample] @ arrays["lidar_to_ego"][sample]
    rig = Rig(arrays["intrinsics"][sample], arrays["image_size"][sample])
    found = project_cloud(points, global_to_camera @ lidar_to_global, rig, min_depth=1.0, margin=0.0)
    return len(np.unique(np.concatenate([which for which, _, _ in found])))


def _check_boxes(arrays: Arrays, clouds: Mapping[int, np.ndarray], faults: Faults) -> None:
    """Boxes that are said to hold points do."""
    holds = []
    for sample, cloud in clouds.items():
        lidar_to_global = arrays["lidar_ego_to_global"][sample] @ arrays["lidar_to_ego"][sample]
        points = apply(lidar_to_global, cloud[:, :3].astype(np.float64))
        rows = np.arange(*arrays["box_offsets"][sample : sample + 2])
        rows = rows[arrays["box_lidar_points"][rows] >= 5]
        boxes = Boxes(
            arrays["box_center"][rows],
            arrays["box_size"][rows],
            arrays["box_yaw"][rows],
            arrays["box_velocity"][rows],
            arrays["box_label"][rows],
        ).levelled(lidar_to_global)
        reach = np.linalg.norm(boxes.sizes, axis=1) / 2
        for i in range(len(boxes)):
            near = (np.abs(points[:, :2] - boxes.centers[i, :2]) <= reach[i]).all(1)
            holds.append(boxes[[i]].contains(points[near]).any())
    if len(holds) >= FEWEST_BOXES and np.mean(holds) < IN_BOXES:
        told = f"points lie in only {np.mean(holds):.0%} of {len(holds)} boxes that are said to hold five or more"
        faults.warn("points_in_boxes", f"{told}: boxes, poses and clouds do not fit together")
