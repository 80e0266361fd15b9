"""Labels of py123d's datasets as nuScenes' categories."""

import pytest

from dataroot.imported.labels import category_of
from models.names import CATEGORY_TO_CLASS, OTHER_CATEGORIES


def test_nuscenes_own_come_back_as_they_were():
    for category in (*CATEGORY_TO_CLASS, *OTHER_CATEGORIES):
        assert category_of(category.replace(".", "_").upper()) == category


def test_what_nuscenes_has_not_keeps_its_name():
    assert category_of("MOTORCYCLIST") == "motorcyclist"  # without the motorcycle, which nuScenes' boxes hold
    assert category_of("TYPE_SIGN") == "type_sign"


def test_every_label_that_is_mapped_is_one_of_py123ds():
    """And the classes that a dataset has are found: none is lost to a slip in a name."""
    known = pytest.importorskip("py123d.parser.registry", reason="py123d is not installed").__dict__
    labels = {c: {label.name for label in known[c]} for c in known if c.endswith("BoxDetectionLabel")}
    from dataroot.imported.labels import _CATEGORIES, _NUSCENES

    there = set().union(*(names for name, names in labels.items() if "NuScenes" not in name))
    assert set(_CATEGORIES) - set(_NUSCENES) <= there
    classes = {
        "AV2SensorBoxDetectionLabel": 8,  # it has neither barriers nor construction vehicles
        "WODPerceptionBoxDetectionLabel": 3,
        "PandasetBoxDetectionLabel": 10,
        "NuScenesBoxDetectionLabel": 10,
    }
    for name, count in classes.items():
        found = {CATEGORY_TO_CLASS.get(category_of(label)) for label in labels[name]} - {None}
        assert len(found) == count, (name, sorted(found))
