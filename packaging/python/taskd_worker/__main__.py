"""``python -m taskd_worker MODULE ... [--capacity N] [--list]``: what a pool's ``worker`` starts."""

import argparse
import importlib

from . import _tasks
from ._worker import run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m taskd_worker",
        description="Run the tasks of these modules. Started by taskd, by the key `worker` of a pool.",
    )
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="module with tasks, such as shop.tasks")
    parser.add_argument(
        "--capacity", type=int, default=1, metavar="N", help="runs at once (threads, or coroutines); default 1"
    )
    parser.add_argument("--list", action="store_true", help="print the tasks' names and exit")
    options = parser.parse_args()
    if options.capacity < 1:
        parser.error("--capacity is at least 1")
    if options.list:
        for module in options.modules:
            importlib.import_module(module)
        print("\n".join(sorted(_tasks.registered)))
        return
    run(*options.modules, capacity=options.capacity)


if __name__ == "__main__":
    main()
