from nuscenes.utils.splits import create_splits_scenes

from dataroot.devkit_splits import devkit_splits


def test_the_lists_are_the_devkits():
    assert devkit_splits() == create_splits_scenes()
