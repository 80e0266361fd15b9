"""Tokens turned into row numbers, once, so that everything after works on integer arrays."""

from dataclasses import dataclass

import numpy as np

from dataroot.lookup import Lookup
from dataroot.tables import Table, tokens_of

# (table, field) -> the table its tokens name. In the second set an empty text says "none".
REQUIRED = {
    ("instance", "category_token"): "category",
    ("calibrated_sensor", "sensor_token"): "sensor",
    ("sample", "scene_token"): "scene",
    ("sample_data", "sample_token"): "sample",
    ("sample_data", "ego_pose_token"): "ego_pose",
    ("sample_data", "calibrated_sensor_token"): "calibrated_sensor",
    ("sample_annotation", "sample_token"): "sample",
    ("sample_annotation", "instance_token"): "instance",
}
OPTIONAL = {
    ("scene", "log_token"): "log",
    ("sample", "prev"): "sample",
    ("sample", "next"): "sample",
    ("sample_data", "prev"): "sample_data",
    ("sample_data", "next"): "sample_data",
    ("sample_annotation", "prev"): "sample_annotation",
    ("sample_annotation", "next"): "sample_annotation",
    ("sample_annotation", "visibility_token"): "visibility",
}
LISTS = {
    ("sample_annotation", "attribute_tokens"): "attribute",
    ("map", "log_tokens"): "log",
}


@dataclass(frozen=True)
class Links:
    """Where every token leads."""

    rows: dict[tuple[str, str], np.ndarray]  # (rows,) int64: row in the target table, NONE or DANGLING
    lists: dict[tuple[str, str], tuple[np.ndarray, list[list[int]]]]  # code of each row, and each code's target rows

    def __getitem__(self, link: tuple[str, str]) -> np.ndarray:
        return self.rows[link]


def resolve(tables: dict[str, Table]) -> Links:
    """All links of all tables."""
    rows, lists = {}, {}
    for target in tables:
        singles = [link for link, to in (REQUIRED | OPTIONAL).items() if to == target]
        several = [link for link, to in LISTS.items() if to == target]
        if not singles and not several:
            continue
        lookup = Lookup(tables[target]["token"])
        for table, field in singles:
            rows[table, field] = lookup.rows(tables[table][field])
        for table, field in several:
            # Few lists differ (an attribute or none; the logs of a map): resolve each of them once.
            column = tables[table][field].tolist()
            code_of = {value: code for code, value in enumerate(dict.fromkeys(column))}
            codes = np.fromiter((code_of[value] for value in column), np.int64, len(column))
            lists[table, field] = codes, [lookup.rows(np.array(tokens_of(v), "S")).tolist() for v in code_of]
    return Links(rows, lists)


def follow(rows: np.ndarray, values: np.ndarray, blank: object) -> np.ndarray:
    """`values[rows]`, with `blank` where a row is NONE or DANGLING."""
    if len(values) == 0:
        return np.full(rows.shape + values.shape[1:], blank, values.dtype)
    out = values[np.maximum(rows, 0)]
    out[rows < 0] = blank
    return out
