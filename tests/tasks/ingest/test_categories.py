"""Datasets with categories of their own: said, mapped, and never trained on unseen."""

import pytest
import yaml
from pydantic import ValidationError

from common.errors import DataError
from models.names import CATEGORY_TO_CLASS, CLASSES, OTHER_CATEGORIES
from tasks.ingest.config import IngestConfig
from tasks.ingest.report import counts_of
from tasks.ingest.run import ingest


def rename(world, names: dict[str, str]) -> None:
    world.edit("category", lambda rows: [row.update(name=names.get(row["name"], row["name"])) for row in rows])


def test_known_categories_are_nuscenes_own():
    from nuscenes.eval.detection.utils import category_to_detection_name
    from nuscenes.utils.color_map import get_colormap

    assert {*CATEGORY_TO_CLASS, *OTHER_CATEGORIES} == set(get_colormap())
    for name in get_colormap():
        assert CATEGORY_TO_CLASS.get(name) == category_to_detection_name(name)


def test_a_dataset_with_nuscenes_names_warns_of_nothing(world):
    arrays, _, facts = ingest(world.root, world.version, IngestConfig())
    assert "unknown_categories" not in facts["warnings"]
    counts = counts_of(arrays)
    assert counts["boxes"] == 12
    assert counts["classes"] == {name: {"car": 6, "pedestrian": 4}.get(name, 0) for name in CLASSES}
    assert counts["of_no_class"] == {"animal": 2}
    assert (counts["sweeps"], counts["frames"]) == (8, 0)  # of ten clouds the last of each scene comes before none


def test_unknown_categories_are_said_with_their_boxes_and_what_to_set(world):
    rename(world, {"vehicle.car": "Car", "human.pedestrian.adult": "VRU/Pedestrian"})
    arrays, _, facts = ingest(world.root, world.version, IngestConfig())
    warning = facts["warnings"]["unknown_categories"]
    assert "Car (6 boxes), VRU/Pedestrian (4 boxes)" in warning
    assert "ingest.classes={Car: car, VRU/Pedestrian: pedestrian}" in warning
    assert (arrays["box_label"] == -1).all()
    assert counts_of(arrays)["of_no_class"] == {"Car": 6, "VRU/Pedestrian": 4, "animal": 2}


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("Car", "car"),
        ("BARRIER", "barrier"),
        ("TRAFFICCONE", "traffic_cone"),
        ("Adult", "pedestrian"),
        ("bus.double-decker", "bus"),
        ("Heavy Truck", "truck"),
        ("zork", "?"),
    ],
)
def test_a_class_is_proposed_by_name_or_left_to_the_user(world, name, guess):
    rename(world, {"animal": name})
    warning = ingest(world.root, world.version, IngestConfig())[2]["warnings"]["unknown_categories"]
    assert f"ingest.classes={{{name}: {guess}}}" in warning


def test_a_suggestion_can_be_pasted(world):
    rename(world, {"vehicle.car": "VRU/Car, big", "human.pedestrian.adult": "person: pedestrian"})
    warning = ingest(world.root, world.version, IngestConfig())[2]["warnings"]["unknown_categories"]
    suggested = yaml.safe_load(warning.partition("ingest.classes=")[2])
    assert suggested == {"VRU/Car, big": "car", "person: pedestrian": "pedestrian"}


def test_mapped_categories_are_the_same_boxes(world):
    plain, _, _ = ingest(world.root, world.version, IngestConfig())
    rename(world, {"vehicle.car": "Car", "human.pedestrian.adult": "PEDESTRIAN", "animal": "Dog"})
    classes = {"PEDESTRIAN": "pedestrian", "Car": "car", "Dog": "ignore"}
    config = IngestConfig(classes=classes)
    arrays, attributes, facts = ingest(world.root, world.version, config)
    assert arrays["box_label"].tolist() == plain["box_label"].tolist()
    assert attributes.own_classes == classes
    assert "unknown_categories" not in facts["warnings"]
    assert config.key_fields() == IngestConfig(classes=dict(reversed(classes.items()))).key_fields()
    assert config.key_fields() != IngestConfig().key_fields()


def test_nuscenes_own_names_can_be_mapped_too(world):
    arrays, _, _ = ingest(
        world.root, world.version, IngestConfig(classes={"animal": "bicycle", "vehicle.car": "ignore"})
    )
    labels = dict(zip(arrays["box_category"], arrays["box_label"]))
    assert labels == {"vehicle.car": -1, "human.pedestrian.adult": 8, "animal": 7}


def test_a_name_that_no_category_has_is_a_fault(world):
    with pytest.raises(
        DataError, match=r"category.json +name +no category is 'vehicle.cart'.*did you mean vehicle.car\?"
    ):
        ingest(world.root, world.version, IngestConfig(classes={"vehicle.cart": "car"}))


@pytest.mark.parametrize(("name", "words"), [("cars", "did you mean car?"), ("xyz", "there are car, truck")])
def test_a_class_that_there_is_not_is_refused(name, words):
    with pytest.raises(ValidationError, match=f"there is no class '{name}'.*") as raised:
        IngestConfig(classes={"Car": name})
    assert words in str(raised.value)
