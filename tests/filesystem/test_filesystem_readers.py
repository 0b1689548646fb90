"""What reads through fsspec reads out of an image: pandas, pyarrow, zarr."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerstore import Store
from layerstore.filesystem import LayerstoreFileSystem

PushTree = Callable[[str, Path], str]


def test_pandas_reads_a_csv(store: Store, image: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    url = "layerstore://shop:1.0!/data/a.csv"
    frame = pandas.read_csv(url, storage_options={"store": str(store.path)})
    assert frame.to_dict("list") == {"x": [1, 3], "y": [2, 4]}
    options = {"store": str(store.path), "image": image}
    assert len(pandas.read_csv("layerstore:///data/deep/b.csv", storage_options=options)) == 1


@pytest.fixture
def arrow() -> Any:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pytest.importorskip("pyarrow.dataset", reason="pyarrow has no datasets")
    return pytest.importorskip("pyarrow.parquet", reason="pyarrow has no parquet")


@pytest.fixture
def tables(arrow: Any, push_tree: PushTree, store: Store, tmp_path: Path) -> LayerstoreFileSystem:
    """The file system of an image ``tables:1`` with one file of 10,000 rows, and a dataset of two partitions."""
    pyarrow = pytest.importorskip("pyarrow")
    root = tmp_path / "tables"
    for year in (2024, 2025):
        (root / f"set/year={year}").mkdir(parents=True)
        table = pyarrow.table({"n": list(range(year, year + 100))})
        arrow.write_table(table, root / f"set/year={year}/part.parquet")
    arrow.write_table(pyarrow.table({"n": list(range(10_000))}), root / "one.parquet", row_group_size=1000)
    # A walk that followed this one would never end.
    (root / "set/again").symlink_to(".")
    push_tree("tables:1", root)
    return LayerstoreFileSystem(store=str(store.path), image="tables:1")


def test_pyarrow_reads_parquet(arrow: Any, tables: LayerstoreFileSystem) -> None:
    assert arrow.read_table("one.parquet", filesystem=tables)["n"].to_pylist() == list(range(10_000))
    with tables.open("one.parquet") as file:
        assert arrow.ParquetFile(file).read_row_group(7)["n"].to_pylist() == list(range(7000, 8000))


def test_pyarrow_reads_a_dataset(arrow: Any, tables: LayerstoreFileSystem) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    file_systems = pytest.importorskip("pyarrow.fs")
    wrapped = file_systems.PyFileSystem(file_systems.FSSpecHandler(tables))
    assert wrapped.get_file_info("set").type == file_systems.FileType.Directory
    assert wrapped.get_file_info("none").type == file_systems.FileType.NotFound
    found = dataset.dataset("set", filesystem=wrapped, format="parquet", partitioning="hive")
    assert found.count_rows() == 200
    later = found.to_table(filter=dataset.field("year") == 2025)
    assert later["n"].to_pylist() == list(range(2025, 2125))
    with pytest.raises(OSError, match="Read-only file system"):
        wrapped.create_dir("new")


def test_pandas_reads_parquet(tables: LayerstoreFileSystem, store: Store) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    options = {"store": str(store.path)}
    frame = pandas.read_parquet("layerstore://tables:1!/one.parquet", storage_options=options)
    assert int(frame["n"].sum()) == sum(range(10_000))


def test_zarr_reads_arrays(store: Store, push_tree: PushTree, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3", reason="zarr 3 is not installed")
    made = zarr.open_group(str(tmp_path / "group"), mode="w")
    made.attrs["title"] = "from an image"
    array = made.create_array("grid", shape=(40, 30), chunks=(7, 11), dtype="int32")
    array[:] = [[row * 100 + column for column in range(30)] for row in range(40)]
    push_tree("grid:1", tmp_path)
    url = "layerstore://grid:1!/group"
    opened = zarr.open_group(url, mode="r", storage_options={"store": str(store.path)})
    assert opened.attrs["title"] == "from an image"
    assert opened["grid"][13:15, 10:12].tolist() == [[1310, 1311], [1410, 1411]]
    assert int(opened["grid"][:].sum()) == sum(row * 100 + column for row in range(40) for column in range(30))
