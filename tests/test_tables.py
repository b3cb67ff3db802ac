"""Data files as chunks of columns: kinds, missing values, bad lines, constant memory."""

import gzip
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInputError
from agent.tables import BadLines, Columns, format_of, read_columns


def write(path: Path, text: str | bytes) -> Path:
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def read(path: Path, **options: Any) -> Columns:
    chunks = list(read_columns(path, **options))
    return {name: np.concatenate([c[name] for c in chunks if name in c]) for name in chunks[-1]}


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(BadInputError) as caught:
        list(read_columns(path, **options))
    text = str(caught.value).replace(f"{path.parent}/", "")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_columns_are_numbers_or_text(tmp_path: Path, name: str) -> None:
    text = 'x, y,"z ""q"""\n1,a,2\n,"b,c",NA\n?,,-3e2\n'
    columns = read(write(tmp_path / name, text))
    assert list(columns) == ["x", "y", 'z "q"']
    np.testing.assert_array_equal(columns["x"], [1, np.nan, np.nan])
    assert columns["y"].tolist() == ["a", "b,c", None]
    np.testing.assert_array_equal(columns['z "q"'], [2, np.nan, -300])


def test_other_separators_and_a_byte_order_mark(tmp_path: Path) -> None:
    columns = read(write(tmp_path / "a.csv", "\ufeffx;y\n1;2,5\n"))
    assert columns["x"].tolist() == [1.0]
    assert columns["y"].tolist() == ["2,5"]
    assert read(write(tmp_path / "a.tsv", "x\ty\n1\t2\n"))["y"].tolist() == [2.0]


def test_a_number_column_keeps_its_kind_when_a_word_comes_later(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x\n1\n2\n3\nlost\n")
    first, second = read_columns(path, chunk_rows=2)
    assert first["x"].dtype == np.float64
    assert second["x"].tolist() == [3.0, "lost"]


def test_a_text_column_keeps_its_kind_when_numbers_come_later(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x\na\nb\n3\n4\n")
    _, second = read_columns(path, chunk_rows=2)
    assert second["x"].tolist() == ["3", "4"]


def test_which_words_are_missing_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y\nNA,1\nb,-999\n")
    columns = read(path, missing={"-999"})
    assert columns["x"].tolist() == ["NA", "b"]
    np.testing.assert_array_equal(columns["y"], [1, np.nan])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "x,y\n1,2\n1\n", "a.csv:3: has 1 fields where the header has 2: mend it, or"),
        ("a.csv", "x,x\n", "a.csv:1: names the column 'x' twice: rename one"),
        ("a.csv", "", "a.csv: is empty"),
        ("a.csv", b"x\n\xff\n", "a.csv:2: is not UTF-8 text: mend it"),
        ("a.jsonl", '{"x": 1}\n{"x":\n', "a.jsonl:2: is no JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: is no JSON object"),
        ("a.parquet", "PAR1", "a.parquet: is no whole Parquet file"),
        ("a.xlsx", "", "a.xlsx: unknown kind of file: let it end in"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    assert refusal(write(tmp_path / name, text)).startswith(said)


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(b"x\n" + b"123456789\n" * 10_000)
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path / "a.csv.gz") == "a.csv.gz: is damaged or cut off: copy it again"
    assert "cannot be read" in refusal(tmp_path / "absent.csv")


def test_bad_lines_are_left_out_up_to_the_number_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y\n1,2\n3\n4,5,6\n7,8\n")
    said: list[str] = []
    bad = BadLines(allowed=2, said=said.append)
    assert read(path, bad_lines=bad)["x"].tolist() == [1.0, 7.0]
    assert bad.count == 2
    assert [line.rpartition("a.csv:")[2].partition(":")[0] for line in said] == ["3", "4"]
    assert "1 were allowed" in refusal(path, bad_lines=BadLines(allowed=1))


def test_json_lines_keep_what_json_said(tmp_path: Path) -> None:
    rows = [{"n": 1, "b": True, "s": "1", "l": [1]}, {"n": None, "s": 2}, {"new": 1.5}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    columns = read(write(tmp_path / "a.jsonl.gz", text))
    np.testing.assert_array_equal(columns["n"], [1, np.nan, np.nan])
    assert columns["b"].tolist() == [True, None, None]
    assert columns["s"].tolist() == ["1", 2, None]
    assert columns["l"].tolist() == [[1], None, None]
    np.testing.assert_array_equal(columns["new"], [np.nan, np.nan, 1.5])


def test_a_json_column_that_stops_coming_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"x": 1}\n{"y": 2}\n')
    _, second = read_columns(path, chunk_rows=1)
    assert np.isnan(second["x"]).all()


def test_parquet_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int32()),
            "f": [0.5, None, float("nan")],
            "s": pa.array(["a", None, "a"]).dictionary_encode(),
            "b": [True, None, False],
            "n": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    columns = read(tmp_path / "a.parquet", chunk_rows=2)
    np.testing.assert_array_equal(columns["i"], [1, np.nan, 3])
    np.testing.assert_array_equal(columns["f"], [0.5, np.nan, np.nan])
    assert columns["s"].tolist() == ["a", None, "a"]
    assert columns["b"].tolist() == [True, None, False]
    assert np.isnan(columns["n"]).all()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (20_000, 80_000):
        path = write(tmp_path / f"{rows}.csv", "x,y\n" + "1.25,word\n" * rows)
        tracemalloc.start()
        for _ in read_columns(path, chunk_rows=2_000):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert all(later < 1.2 * earlier for earlier, later in pairwise(peaks))


CELLS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=6),
    st.floats().map(str),
    st.sampled_from(["", "NA", "?", '"', ","]),
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=8), st.integers(1, 4))
def test_how_the_rows_are_chunked_changes_no_value(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], chunk_rows: int
) -> None:
    import csv

    path = tmp_path_factory.getbasetemp() / "random.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    chunks = list(read_columns(path, chunk_rows=chunk_rows))
    assert sum(len(chunk["a"]) for chunk in chunks) == len(rows)
    assert all(len(chunk["a"]) == len(chunk["b"]) <= chunk_rows for chunk in chunks)


@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.jsonl", "a.csv.gz", "a.parquet"]))
def test_any_bytes_are_columns_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    refused = ""
    try:
        for columns in read_columns(path, chunk_rows=3):
            assert len({len(column) for column in columns.values()}) == 1
    except BadInputError as error:
        refused = str(error)
    assert not refused or refused.isprintable()


@pytest.mark.parametrize("name", ["a.PARQUET", "b.Csv", "c.ndjson.GZ"])
def test_the_ending_of_the_name_says_the_format(name: str) -> None:
    assert format_of(Path(name)) in ("parquet", "csv", "jsonl")
