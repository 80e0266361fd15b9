"""The files beside the tables that decide a stage's result."""

import pytest

from common.errors import UserError
from storage.digests import Digests
from tasks.engine.config import PipelineConfig
from tasks.engine.dag import build_dag
from tasks.engine.external import external_digests


@pytest.fixture
def data(tmp_path):
    data = tmp_path / "data"
    for name in ("maps/mask.png", "maps/expansion/singapore.json", "gts/scene-0001/0/labels.npz"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(name.encode())
    (data / "v1.0-mini").mkdir()
    (data / "v1.0-mini" / "map.json").write_text('[{"filename": "maps/mask.png"}]')
    return data


def digests_of(data, values) -> dict[str, dict[str, str]]:
    config = PipelineConfig.model_validate({"dataroot": data, "version": "v1.0-mini"} | values)
    memory = Digests(data.parent / "no-memory")
    return {node.name: external_digests(node, config, config.dataroot, memory) for node in build_dag(config)}


def moved(before, after) -> set[tuple[str, str]]:
    return {(node, name) for node in after for name in after[node] if before[node].get(name) != after[node][name]}


def segmentation() -> dict:
    return {"finetune": {"task": "segmentation", "baseline": False}}


def test_maps_are_truth_to_segmentation(data):
    before = digests_of(data, segmentation())
    assert before["evaluate"].keys() == {"maps/mask.png", "maps/expansion/singapore.json"}
    (data / "maps" / "mask.png").write_bytes(b"mended")
    (data / "maps" / "notes.txt").write_bytes(b"of no consequence")
    (data / "maps" / "expansion" / "boston.json").write_bytes(b"added")
    after = digests_of(data, segmentation())
    names = ("maps/mask.png", "maps/expansion/boston.json")
    assert moved(before, after) == {(node, name) for node in ("finetune", "evaluate") for name in names}


def test_occupancy_labels_are_truth_to_occupancy(data):
    sizes = {"bev_range": 40, "bev_cell": 0.4, "bev_rotation": 0, "bev_scale": 0}
    values = {"finetune": {"task": "occupancy", "baseline": False, **sizes}}
    before = digests_of(data, values)
    labels = data / "gts" / "scene-0001" / "0" / "labels.npz"
    (data / "gts" / "notes.txt").symlink_to(data / "nothing")
    assert not moved(before, digests_of(data, values))
    labels.write_bytes(bytes(labels.stat().st_size))  # others of the same size, as uncompressed ones have
    assert moved(before, digests_of(data, values)) == {("finetune", "gts"), ("evaluate", "gts")}


def test_detection_reads_the_tables_alone(data):
    found = digests_of(data, {})
    assert not found["finetune"]
    assert not found["evaluate"]
    assert "v1.0-mini/map.json" in found["ingest"]


def test_an_mmdet3d_config_counts_with_all_that_it_inherits_from(data, tmp_path):
    (tmp_path / "base.py").write_text("a = 1\n")
    (tmp_path / "middle.py").write_text("_base_ = ['base.py']\n")
    (tmp_path / "config.py").write_text("_base_ = 'middle.py'\n")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    values = {"teacher": {"weights": str(tmp_path / "weights.pth"), "mmdet3d": str(tmp_path / "config.py")}}
    before = digests_of(data, values)
    assert before["teacher"].keys() == {"weights", "mmdet3d", "mmdet3d, base 1", "mmdet3d, base 2"}
    (tmp_path / "base.py").write_text("a = 2\n")
    assert moved(before, digests_of(data, values)) == {("teacher", "mmdet3d, base 2")}


def test_a_file_that_is_not_there_is_named(data, tmp_path):
    with pytest.raises(UserError, match=r"teacher\.weights: there is no file .*missing\.pth"):
        digests_of(data, {"teacher": {"weights": str(tmp_path / "missing.pth")}})
