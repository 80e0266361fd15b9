import json

import numpy as np
import pytest

from dataroot import pieces
from dataroot.faults import Faults
from dataroot.kinds import FIELDS
from dataroot.pieces import read_span, spans
from dataroot.tables import Column, read_table

NAME = "sample_annotation"


def annotations(count: int) -> list[dict]:
    return [
        {
            "token": f"{i:032x}",
            "sample_token": "s" * (i % 40 + 1),
            "instance_token": "i",
            "visibility_token": str(i % 5),
            "attribute_tokens": ["a"] * (i % 2),
            "translation": [i, 0.5, -1.0],
            "size": [1, 2, 3],
            "rotation": [1, 0, 0, 0],
            "num_lidar_pts": i,
            "num_radar_pts": 0,
            "prev": "",
            "next": "",
        }
        for i in range(count)
    ]


def read(folder):
    faults = Faults()
    table = read_table(folder, "table.json", FIELDS[NAME], faults, NAME)
    return table, [(fault.field, fault.what) for fault in faults.faults]


@pytest.mark.parametrize("separators", [(",", ":"), (",\n", ": "), (" ,\n\n", " : ")])
@pytest.mark.parametrize("window", [1, 7, 4096])
def test_spans_hold_all_rows_once(tmp_path, monkeypatch, separators, window):
    monkeypatch.setattr(pieces, "WINDOW", max(window, 40))
    rows = annotations(50)
    (tmp_path / "table.json").write_text("\n [" + json.dumps(rows, separators=separators)[1:] + "\n")
    found = spans(tmp_path / "table.json", 700)
    assert len(found) > 10
    assert [r for s in found for r in json.loads(b"[" + read_span(tmp_path / "table.json", s) + b"]")] == rows


@pytest.mark.parametrize("text", ["", "[]", "{}", "x" * 99, '{"a": [' + "{}," * 99 + "{}]}", "[" + "{}," * 99])
def test_what_is_short_or_no_list_is_not_cut(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    assert spans(tmp_path / "table.json", 20) == []


def test_pieces_make_the_same_table_as_one_go(tmp_path, monkeypatch):
    rows = annotations(300)
    rows[7]["size"], rows[290]["num_lidar_pts"] = [1, 2], "many"
    del rows[200]["token"]
    rows[250] = "no row"
    (tmp_path / "table.json").write_text(json.dumps(rows))
    whole, told = read(tmp_path)
    monkeypatch.setattr("dataroot.tables.PIECE", 900)
    table, found = read(tmp_path)
    assert sorted(found) == sorted(told)  # of one row after the other, or field after field
    assert table.rows == whole.rows == 300
    assert table.columns.keys() == whole.columns.keys()
    for name, column in whole.columns.items():
        assert table[name].dtype == column.dtype
        np.testing.assert_array_equal(table[name], column)
    assert {n: m.tolist() for n, m in table.bad.items()} == {n: m.tolist() for n, m in whole.bad.items()}


def test_no_json_is_told_of_by_line(tmp_path, monkeypatch):
    text = json.dumps(annotations(300), indent=0)
    (tmp_path / "table.json").write_text(text.replace('"num_radar_pts": 0', '"num_radar_pts": O', 1))
    _, told = read(tmp_path)
    monkeypatch.setattr("dataroot.tables.PIECE", 900)
    assert read(tmp_path)[1] == told
    assert "line 25 " in told[0][1]


def test_a_column_grows_with_rows_and_texts():
    column, parts = Column(), [np.array(part, "S") for part in (["a"], ["b", "ccc"], ["d"] * 9, ["long text"])]
    for part in parts:
        column.add(part)
    assert column.all().tolist() == np.concatenate(parts).tolist()
    assert column.all().dtype == np.concatenate(parts).dtype
