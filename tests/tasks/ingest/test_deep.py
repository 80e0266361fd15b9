"""`ingest --deep`, what it keeps of what it looked at, and `ingest.leave_out`, which goes on without what it finds."""

import numpy as np
import pytest
import yaml
from PIL import Image

from batches.images import ImageDraw, load_image
from common.errors import DataError
from models.names import LIDAR
from storage.index import Index, write_index
from tasks.ingest import deep
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import check_index, ingest

DEEP = IngestConfig(sweeps=3, frames=2, deep=True)


@pytest.fixture
def photos(world):
    """The world with images whose middle can be damaged."""
    random = np.random.default_rng(0)
    for row in world.table("sample_data"):
        if row["filename"].endswith(".jpg"):
            Image.fromarray(random.integers(0, 256, (16, 32, 3), np.uint8)).save(world.root / row["filename"])
    return world


def hurt(path) -> None:
    """Zeros in the middle: the head and the end stay as they are."""
    data = bytearray(path.read_bytes())
    middle = len(data) - 200
    data[middle : middle + 100] = bytes(100)
    path.write_bytes(data)


def lines(error) -> list[str]:
    return str(error.value).splitlines()[2:]


def looked_at(monkeypatch) -> list[str]:
    """Collects the images that are decoded."""
    names, real = [], deep._image_fault
    monkeypatch.setattr(deep, "_image_fault", lambda path: names.append(str(path)) or real(path))
    return names


@pytest.mark.parametrize("key", [True, False])
def test_an_image_damaged_in_its_middle_is_found_by_decoding_it(photos, tmp_path, key):
    path = photos.file_of("CAM_BACK", key)
    hurt(path)
    with pytest.raises(DataError, match="does not decode"):
        load_image(path, ImageDraw(1.0, (0, 0)), (16, 32), (32, 16))
    ingest(photos.root, photos.version, IngestConfig(sweeps=3, frames=2))
    with pytest.raises(DataError) as raised:
        ingest(photos.root, photos.version, DEEP, tmp_path)
    (line,) = lines(raised)
    assert line.startswith(f"{path.relative_to(photos.root)}  sample_data.filename  is a damaged JPEG (")
    assert "or name it in ingest.leave_out" in line


def test_every_cloud_is_read_whatever_the_budget(photos, tmp_path):
    path = photos.file_of(LIDAR, key=False)
    points = np.fromfile(path, np.float32)
    points[7] = np.nan
    points.tofile(path)
    config = DEEP.model_copy(update={"read_gigabytes": 0.0})
    ingest(photos.root, photos.version, config.model_copy(update={"deep": False}))
    with pytest.raises(DataError, match="holds NaN"):
        ingest(photos.root, photos.version, config, tmp_path)


def test_what_was_looked_at_is_not_looked_at_again(photos, tmp_path, monkeypatch):
    names = looked_at(monkeypatch)
    _, _, facts = ingest(photos.root, photos.version, DEEP, tmp_path)
    images = facts["images_decoded"]
    assert images == 2 * 6 * 5
    assert sorted(names) == sorted(set(names))
    assert len(names) == images
    names.clear()
    again = ingest(photos.root, photos.version, DEEP, tmp_path)[2]
    assert (names, again) == ([], facts)

    path = photos.file_of("CAM_FRONT")
    hurt(path)  # another file under the same name is looked at
    with pytest.raises(DataError, match="is a damaged JPEG"):
        ingest(photos.root, photos.version, DEEP, tmp_path)
    assert names == [str(path.resolve())]
    with pytest.raises(DataError, match="is a damaged JPEG"):  # what is wrong is not kept as good
        ingest(photos.root, photos.version, DEEP, tmp_path)


def test_an_interrupted_check_goes_on(photos, tmp_path, monkeypatch):
    """A line of the record may be torn; every file is looked at once in all."""
    names, real, record = [], deep._image_fault, deep.record_of(photos.root, tmp_path)

    def dies_at_ten(path):
        if len(names) == 10:
            raise KeyboardInterrupt
        names.append(str(path))
        return real(path)

    config = DEEP.model_copy(update={"threads": 1})
    monkeypatch.setattr(deep, "_image_fault", dies_at_ten)
    with pytest.raises(KeyboardInterrupt):
        ingest(photos.root, photos.version, config, tmp_path)
    record.write_bytes(record.read_bytes()[:-7])  # the tenth image's
    monkeypatch.setattr(deep, "_image_fault", lambda path: names.append(str(path)) or real(path))
    facts = ingest(photos.root, photos.version, config, tmp_path)[2]
    assert len(set(names)) == facts["images_decoded"]
    assert len(names) == len(set(names)) + 1
    names.clear()
    ingest(photos.root, photos.version, config, tmp_path)
    assert names == []


def test_a_dataset_that_was_ingested_before_can_be_looked_at(photos, tmp_path):
    arrays, attributes, _ = ingest(photos.root, photos.version, IngestConfig())
    write_index(tmp_path / "index.zarr", arrays, attributes)
    index = Index.open(tmp_path / "index.zarr")
    assert check_index(index, photos.root, DEEP, tmp_path) == {"images_decoded": 36, "clouds_read": 10}
    hurt(photos.file_of("CAM_FRONT"))
    with pytest.raises(DataError, match=r"samples/CAM_FRONT/0-0.jpg +sample_data.filename +is a damaged JPEG"):
        check_index(index, photos.root, DEEP, tmp_path)


def test_many_faulty_files_are_listed_as_a_config_takes_them(world, tmp_path):
    config = IngestConfig(sweeps=3, frames=2)
    gone = sorted(path.relative_to(world.root).as_posix() for path in (world.root / "sweeps" / "CAM_BACK").iterdir())
    gone += sorted(path.relative_to(world.root).as_posix() for path in (world.root / "samples" / "CAM_BACK").iterdir())
    assert len(gone[:-1]) > 5
    for name in gone[:-1]:
        (world.root / name).unlink()
    with pytest.raises(DataError) as raised:
        ingest(world.root, world.version, config, tmp_path)
    assert lines(raised)[-1].startswith(f"{tmp_path}/leave_out.yaml names all {len(gone) - 1} files")
    listed = yaml.safe_load((tmp_path / "leave_out.yaml").read_text())
    assert sorted(listed["ingest"]["leave_out"]) == sorted(gone[:-1])
    config = config.model_copy(update={"leave_out": tuple(listed["ingest"]["leave_out"])})
    arrays, _, _ = ingest(world.root, world.version, config, tmp_path)
    assert arrays["camera_path"][:, 3].tolist() == gone[-1:] or gone[-1] in arrays["camera_path"].ravel().tolist()


def test_samples_and_files_are_left_out_by_name(world):
    """A key frame's file takes its sample along; an earlier reading is passed over; damaged ones hurt no more."""
    whole, _, _ = ingest(world.root, world.version, IngestConfig(sweeps=3, frames=2))
    gone = ("sample-0-0", "samples/CAM_BACK/1-2.jpg", "sweeps/LIDAR_TOP/1-3.pcd.bin", "sweeps/CAM_FRONT/0-3.jpg")
    for name in gone[1:]:
        (world.root / name).write_bytes(b"broken")
    config = IngestConfig(sweeps=3, frames=2, leave_out=gone)
    arrays, _, facts = ingest(world.root, world.version, config)
    assert arrays["token"].tolist() == ["sample-0-2", "sample-0-4", "sample-1-0", "sample-1-4"]
    assert arrays["previous"].tolist() == [-1, 0, -1, -1]
    kept = [whole["token"].tolist().index(token) for token in arrays["token"]]
    assert "2 of 6 samples are left out by ingest.leave_out (sample-0-0, sample-1-2)" in facts["warnings"]["left_out"]
    assert arrays["sweep_path"][3].tolist() == [
        "samples/LIDAR_TOP/1-2.pcd.bin",
        "sweeps/LIDAR_TOP/1-1.pcd.bin",
        "samples/LIDAR_TOP/1-0.pcd.bin",
    ]
    assert arrays["sweep_count"].tolist() == [2, 3, 0, 3]
    front = 0
    assert arrays["frame_path"][1, front].tolist() == ["samples/CAM_FRONT/0-2.jpg", "sweeps/CAM_FRONT/0-1.jpg"]
    for name in ("camera_path", "lidar_to_ego", "lidar_ego_to_global", "intrinsics", "split", "timestamp"):
        np.testing.assert_array_equal(arrays[name], whole[name][kept])
    for row, before in enumerate(kept):  # the boxes of each sample are its own
        mine, theirs = (slice(*a["box_offsets"][s : s + 2]) for a, s in ((arrays, row), (whole, before)))
        assert arrays["box_token"][mine].tolist() == whole["box_token"][theirs].tolist()
        np.testing.assert_array_equal(arrays["box_velocity"][mine], whole["box_velocity"][theirs])
    assert len(arrays["box_token"]) == arrays["box_offsets"][-1]


def test_what_is_left_out_is_in_the_key_whatever_its_order():
    one, other = IngestConfig(leave_out=("a", "b")), IngestConfig(leave_out=("b", "a", "b"))
    assert one.key_fields() == other.key_fields() != IngestConfig().key_fields()
    assert DEEP.key_fields() == DEEP.model_copy(update={"deep": False}).key_fields()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("sample-0-1",), "no sample and no file is 'sample-0-1', which ingest.leave_out names"),
        (tuple(f"sample-{s}-{k}" for s in (0, 1) for k in (0, 2, 4)), "all 6 samples are left out"),
    ],
)
def test_leaving_out_nothing_or_all_is_a_fault(world, names, words):
    with pytest.raises(DataError) as raised:
        ingest(world.root, world.version, IngestConfig(leave_out=names))
    assert [words in line for line in lines(raised)] == [True]
