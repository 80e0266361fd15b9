import json

from nuscenes.utils.splits import create_splits_scenes

from simulate.config import SimulateConfig
from simulate.scenes import MOST, scenes_of
from simulate.world import World
from simulate.write import simulate
from tasks.engine.config import load_config


def test_the_devkits_splits_hold_for_any_number_of_scenes():
    official = create_splits_scenes()
    for count in (10, 11, 100, MOST):
        scenes = scenes_of(count)
        assert len(set(scenes.names)) == count
        assert abs(len(scenes.val) - count / 5) < 1
        train, val = ("mini_train", "mini_val") if count == 10 else ("train", "val")
        assert set(scenes.train) <= set(official[train])
        assert set(scenes.val) <= set(official[val])
        assert scenes.version.endswith("mini" if count == 10 else "trainval")


def test_every_scene_is_another_and_the_same_in_a_larger_world():
    few, many = SimulateConfig(scenes=11), SimulateConfig(scenes=11, keyframes=20)
    paths = {name: World(few, name).town.road.heading[0] for name in scenes_of(11).names}
    assert len(set(paths.values())) == 11
    assert World(many, scenes_of(11).names[3]).town.road.heading[0] == paths[scenes_of(11).names[3]]


def test_more_scenes_make_a_trainval(tmp_path):
    config = SimulateConfig(scenes=11, keyframes=2, image_scale=0.05, lidar_rate=2, density=0.3, workers=1)
    scenes = scenes_of(11)
    summary = simulate(config, tmp_path / "world", (scenes.train[0], scenes.val[0]))
    assert summary["samples"] == 4
    assert sum(summary["boxes"]["val"].values()) > 0
    written = json.loads((tmp_path / "world" / "v1.0-trainval" / "scene.json").read_text())
    assert [scene["name"] for scene in written] == [scenes.train[0], scenes.val[0]]


def test_the_config_can_ask_for_them():
    assert load_config(None, ["simulate.scenes=60"]).simulate.scenes == 60
