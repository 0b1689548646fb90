"""What went wrong elsewhere in stores. Power cuts, kills and other processes have folders of their own."""

from samples import noise, packs_of, pulled

from layerstore import Store


def test_kopia_3439_verify_reads_the_disk(store: Store) -> None:
    """kopia#3439, dvc#9641: what was just pulled, and is cached, is found damaged all the same."""
    layer = store.push_layer(noise(100_000)).layer
    assert pulled(layer) == noise(100_000)
    pack = packs_of(store)[0]
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    with pack.open("r+b") as file:
        file.write(content)
    report = store.verify()
    assert not report.is_clean
    assert any(layer.diff_id in problem.layers for problem in report.problems)
    assert store.verify(full=False).is_clean  # the quick one reads no frames, and its name says so
