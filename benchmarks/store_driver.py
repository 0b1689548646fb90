"""layerstore as one process for all layers, driven from a plan, so that it can be measured beside command-line tools.

``python -m benchmarks.store_driver store|restore|collect PLAN``; PLAN is a file that `store_plan.Plan` wrote.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.store_plan import Plan
from layerstore import Store


def main(arguments: Sequence[str]) -> int:
    """Do one step of the plan."""
    step, file = arguments
    plan = Plan.read(Path(file))
    match step:
        case "store":
            store_all(plan)
        case "restore":
            restore_all(plan)
        case "collect":
            delete_and_collect(plan)
        case _:
            raise ValueError(f"no step {step!r}")
    return 0


def store_all(plan: Plan) -> None:
    """Push every layer into a new store and make the images of them."""
    with Store.create(Path(plan.store)) as store:
        layers = [store.push_layer(Path(path)).layer for path in plan.layers]
        for name, numbers in plan.images.items():
            store.create_image([layers[number] for number in numbers], tag=name)


def restore_all(plan: Plan) -> None:
    """Pull every layer into its target."""
    with Store.open(Path(plan.store)) as store:
        for diff_id, target in zip(plan.diff_ids, plan.targets, strict=True):
            store.pull_layer(diff_id, Path(target))


def delete_and_collect(plan: Plan) -> None:
    """Delete images for good and give their space back."""
    with Store.open(Path(plan.store)) as store:
        for name in plan.deleted:
            store.delete_image(name, ttl=0)
        store.collect_garbage(store.plan_collection())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
