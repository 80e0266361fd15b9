from models.center_spec import ONE_GROUP, CenterHeadSpec
from models.lidar.detector import LidarSpec
from models.lidar.encoder import EncoderSpec
from models.lidar.grid import VoxelGrid
from tasks.meaning import first_difference, plain

RANGE = (-8.0, -6.4, -4.0, 8.0, 6.4, 4.0)


def test_files_keep_the_names_that_fields_had_first():
    head = CenterHeadSpec(16, RANGE, (0.8, 0.8), ONE_GROUP)
    written = plain(LidarSpec(VoxelGrid(RANGE, (0.1, 0.1, 0.2)), EncoderSpec(), head=head))
    assert written["grid"]["range"] == written["head"]["range"] == list(RANGE)
    assert not {"point_range", "bev_range"} & (written["grid"].keys() | written["head"].keys())
    assert written["head"]["rules"]


def test_the_first_difference_of_nested_values():
    one, other = {"a": {"b": [1, 2]}, "c": 3}, {"a": {"b": [1, 4]}, "c": 5}
    assert first_difference(one, other) == ("a.b", [1, 2], [1, 4])
    assert first_difference(one, other, ("a.b",)) == ("c", 3, 5)
    assert first_difference(one, other, ("a", "c")) is None
