"""What child processes of the tests run. ``python places_children.py copy SOURCE TARGET REFERENCE``."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore.oci.documents import Descriptor
from layerstore.places.archive import OCIArchive
from layerstore.places.copying import copy
from layerstore.places.layout import OCILayout


class DeadlyLayout(OCILayout):
    """Kills its process in the middle of the second layer."""

    begun = 0

    @contextmanager
    def read_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        with super().read_blob(descriptor) as blocks:
            self.begun += "layer" in descriptor.media_type
            yield self._deadly(blocks) if self.begun == 2 else blocks

    def _deadly(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(blocks)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    action, source, target, reference = sys.argv[1:]
    sink = OCIArchive(target) if target.endswith(".tar") else OCILayout(target)
    if action == "copy":
        copy(OCILayout(source), sink, [reference])
    else:
        copy(DeadlyLayout(Path(source)), sink, jobs=1)


if __name__ == "__main__":
    main()
