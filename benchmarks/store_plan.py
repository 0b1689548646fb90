"""What the process that drives layerstore is asked to do."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: paths are absolute, layers are named by their place in ``layers``."""

    store: str
    layers: list[str]
    diff_ids: list[str]
    targets: list[str]
    """Where each layer is restored to."""
    images: dict[str, list[int]]
    deleted: list[str]
    """The images that the collection step deletes first."""

    def write(self, path: Path) -> None:
        """Write the plan for the process that follows it."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan that `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
