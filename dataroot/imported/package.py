"""py123d itself, an optional package: which version, and how it is installed beside the locked ones."""

from common.errors import UserError

# What reading logs takes: pyproject.toml's extra `import` is the same. Installed without dependencies: py123d asks for
# a viewer that wants an older rich, for notebooks and for a second OpenCV, none of which is needed to read.
PACKAGES = (
    "py123d==0.7.0",
    "pyarrow<26",
    "opencv-python-headless<4.12",
    "ray<3",
    "msgpack<2",
    "networkx<4",
    "trimesh<6",
    "laspy<3",
    "lazrs<1",
    "DracoPy<3",
    "av<16",
)


def require_py123d() -> None:
    """Raise UserError where py123d cannot be imported."""
    try:
        import cv2  # noqa: F401
        import py123d.api  # noqa: F401
    except ImportError as error:
        install = "pip install --no-deps " + " ".join(f"'{package}'" for package in PACKAGES)
        raise UserError(f"geomim import: needs py123d, which does not import here ({error}): {install}") from None
