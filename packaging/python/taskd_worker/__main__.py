"""``python -m taskd_worker MODULE ... [--capacity N] [--list]``: what a pool's ``worker`` starts; with ``--celery APP`` what
its ``celery_app`` does."""

import argparse
import importlib

from . import _tasks
from ._worker import run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m taskd_worker",
        description="Run the tasks of these modules. Started by taskd, by the key `worker` of a pool.",
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="module with tasks, such as shop.tasks")
    parser.add_argument(
        "--capacity", type=int, default=1, metavar="N", help="runs at once (threads, or coroutines); default 1"
    )
    parser.add_argument(
        "--celery", metavar="APP", help="run the tasks of this Celery app instead, named as for `celery -A`: shop.celery:app"
    )
    levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    parser.add_argument(
        "--loglevel", type=str.upper, choices=levels, default="WARNING", help="what a Celery app logs; default WARNING"
    )
    parser.add_argument(
        "--preload", action="store_true", help="with --celery: load the app once, for children that are forked from this one"
    )
    parser.add_argument("--list", action="store_true", help="print the tasks' names and exit")
    options = parser.parse_args()
    if options.capacity < 1:
        parser.error("--capacity is at least 1")
    if options.preload and options.celery is None:
        parser.error("--preload is for --celery")
    if options.celery is not None:
        from . import _celery

        if options.modules or options.capacity != 1:
            parser.error("--celery has neither modules nor --capacity: a child runs one task of the app at a time")
        if options.list:
            print("\n".join(_celery.names(options.celery)))
        else:
            _celery.run(options.celery, options.loglevel, options.preload)
        return
    if not options.modules:
        parser.error("name a module with tasks, or a Celery app with --celery")
    if options.list:
        for module in options.modules:
            importlib.import_module(module)
        print("\n".join(sorted(_tasks.registered)))
        return
    run(*options.modules, capacity=options.capacity)


if __name__ == "__main__":
    main()
