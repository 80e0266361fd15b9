import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pyquaternion import Quaternion

from models.geometry import (
    apply,
    heading,
    inverse,
    project,
    quaternion_to_rotation,
    rotation_to_quaternion,
    rotation_z,
    transform,
    yaw_of,
)

FINITE = st.floats(-100, 100)


@st.composite
def quaternions(draw):
    q = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    return q / np.linalg.norm(q) if np.linalg.norm(q) > 1e-3 else np.array([1.0, 0, 0, 0])


@given(quaternions())
def test_rotation_is_pyquaternions(q):
    rotation = quaternion_to_rotation(q)
    np.testing.assert_allclose(rotation, Quaternion(q).rotation_matrix, atol=1e-12)
    np.testing.assert_allclose(quaternion_to_rotation(rotation_to_quaternion(rotation)), rotation, atol=1e-12)


def test_half_turns_come_back():
    for q in ([0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0]):
        rotation = quaternion_to_rotation(np.array(q, float))
        np.testing.assert_allclose(quaternion_to_rotation(rotation_to_quaternion(rotation)), rotation, atol=1e-15)


@given(quaternions(), st.tuples(FINITE, FINITE, FINITE), st.tuples(FINITE, FINITE, FINITE))
def test_a_transform_and_its_inverse(q, translation, point):
    a_to_b = transform(q, translation)
    points = np.array([point])
    moved = apply(a_to_b, points)
    np.testing.assert_allclose(moved[0], (a_to_b @ [*point, 1])[:3], atol=1e-9)
    np.testing.assert_allclose(apply(inverse(a_to_b), moved), points, atol=1e-9)
    np.testing.assert_allclose(inverse(a_to_b) @ a_to_b, np.eye(4), atol=1e-9)


def test_transforms_broadcast():
    q = np.array([[1.0, 0, 0, 0], [0, 0, 0, 1]])
    many = transform(q, np.arange(6).reshape(2, 3))
    points = np.random.default_rng(0).normal(size=(2, 5, 3))
    for i in range(2):
        np.testing.assert_allclose(apply(many, points)[i], apply(many[i], points[i]))
        np.testing.assert_allclose(inverse(many)[i], inverse(many[i]))


@given(st.floats(-3.1, 3.1))
def test_yaw_of_a_turn(yaw):
    np.testing.assert_allclose(yaw_of(transform(rotation_z(yaw), np.zeros(3))), yaw, atol=1e-12)


def test_project_against_the_pinhole_written_out():
    intrinsics = np.array([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]])
    points = np.array([[1.0, -2.0, 10.0], [0, 0, 5.0]])
    pixels, depth = project(points, intrinsics)
    np.testing.assert_allclose(pixels[0], [1266.4 * 0.1 + 816.3, 1266.4 * -0.2 + 491.5])
    np.testing.assert_allclose(pixels[1], [816.3, 491.5])
    np.testing.assert_allclose(depth, [10, 5])


def test_a_heading_is_the_same_wherever_its_vectors_lie():
    """Bit by bit, in a memory that fills up: a result often comes to lie right behind the vectors."""
    vectors = np.random.default_rng(0).normal(size=(436, 3, 3))
    expected = np.arctan2(vectors[:, 1, 0].copy(), vectors[:, 0, 0].copy())
    kept = [(copy := vectors.copy(), yaw_of(copy), heading(copy[..., 0])) for _ in range(50)]
    assert all((yaws == expected).all() for _, *both in kept for yaws in both)
