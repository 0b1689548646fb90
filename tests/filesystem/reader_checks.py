"""Checks of what reads through fsspec, each run as a process: ``reader_checks.py NAME FOLDER``.

pandas, pyarrow and zarr start threads that stay. A process that has them must not be forked, as other tests do.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import fsspec

from layerstore import Store
from layerstore.filesystem import LayerstoreFileSystem

SKIPPED = 77
"""The exit code that says that a package is not there; which one stands on standard output."""


def pandas_csv(folder: Path) -> None:
    pandas = package("pandas")
    root = folder / "csv"
    root.mkdir()
    (root / "a.csv").write_text("x,y\n1,2\n3,4\n")
    options = image(folder, "shop:1.0", root)
    frame = pandas.read_csv("layerstore://shop:1.0!/a.csv", storage_options=options)
    assert frame.to_dict("list") == {"x": [1, 3], "y": [2, 4]}
    assert len(pandas.read_csv("layerstore:///a.csv", storage_options={**options, "image": "shop:1.0"})) == 2


def pandas_parquet(folder: Path) -> None:
    pandas = package("pandas")
    options = tables(folder)
    frame = pandas.read_parquet("layerstore://tables:1!/one.parquet", storage_options=options)
    assert int(frame["n"].sum()) == sum(range(10_000))


def pyarrow_parquet(folder: Path) -> None:
    parquet = package("pyarrow.parquet")
    files = LayerstoreFileSystem(**tables(folder), image="tables:1")
    assert parquet.read_table("one.parquet", filesystem=files)["n"].to_pylist() == list(range(10_000))
    with files.open("one.parquet") as file:
        assert parquet.ParquetFile(file).read_row_group(7)["n"].to_pylist() == list(range(7000, 8000))


def pyarrow_dataset(folder: Path) -> None:
    dataset, file_systems = package("pyarrow.dataset"), package("pyarrow.fs")
    files = LayerstoreFileSystem(**tables(folder), image="tables:1")
    wrapped = file_systems.PyFileSystem(file_systems.FSSpecHandler(files))
    assert wrapped.get_file_info("set").type == file_systems.FileType.Directory
    assert wrapped.get_file_info("none").type == file_systems.FileType.NotFound
    found = dataset.dataset("set", filesystem=wrapped, format="parquet", partitioning="hive")
    assert found.count_rows() == 200
    later = found.to_table(filter=dataset.field("year") == 2025)
    assert later["n"].to_pylist() == list(range(2025, 2125))
    try:
        wrapped.create_dir("new")
    except OSError as error:
        assert "Read-only file system" in str(error)
    else:
        raise AssertionError("something was written")


def zarr_arrays(folder: Path) -> None:
    zarr = package("zarr")
    root = folder / "arrays"
    made = zarr.open_group(str(root / "group"), mode="w", zarr_format=3)
    made.attrs["title"] = "from an image"
    array = made.create_array("grid", shape=(40, 30), chunks=(7, 11), dtype="int32")
    array[:] = [[row * 100 + column for column in range(30)] for row in range(40)]
    options = image(folder, "grid:1", root)
    opened = zarr.open_group("layerstore://grid:1!/group", mode="r", storage_options=options)
    assert opened.attrs["title"] == "from an image"
    assert opened["grid"][13:15, 10:12].tolist() == [[1310, 1311], [1410, 1411]]
    assert int(opened["grid"][:].sum()) == sum(row * 100 + column for row in range(40) for column in range(30))


CHECKS = {
    check.__name__: check for check in (pandas_csv, pandas_parquet, pyarrow_parquet, pyarrow_dataset, zarr_arrays)
}


def tables(folder: Path) -> dict[str, str]:
    """An image ``tables:1`` with one file of 10,000 rows, and a dataset of two partitions."""
    pyarrow, parquet = package("pyarrow"), package("pyarrow.parquet")
    root = folder / "tables"
    for year in (2024, 2025):
        (root / f"set/year={year}").mkdir(parents=True)
        parquet.write_table(pyarrow.table({"n": list(range(year, year + 100))}), root / f"set/year={year}/part.parquet")
    parquet.write_table(pyarrow.table({"n": list(range(10_000))}), root / "one.parquet", row_group_size=1000)
    (root / "set/again").symlink_to(".")  # a walk that followed it would never end
    return image(folder, "tables:1", root)


def image(folder: Path, tag: str, root: Path) -> dict[str, str]:
    """Make a store with an image of a directory; the options that name the store."""
    with Store.create(folder / "store") as store:
        store.create_image([store.push_tree(root).layer], tag=tag)
    return {"store": str(folder / "store")}


def package(name: str) -> Any:
    """A package, or the end of the check if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is not installed: {error}")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    fsspec.register_implementation("layerstore", LayerstoreFileSystem, clobber=True)
    CHECKS[sys.argv[1]](Path(sys.argv[2]))
    # pyarrow's threads now and then abort the end of an interpreter, with fsspec's own local files just the same.
    os._exit(0)
