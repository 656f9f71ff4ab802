"""How taskd starts the module ``taskd_worker`` that it carries itself, in whatever Python a pool names: this text, before
it ``SOURCES = {"_worker": "...", ...}``, is the script of that Python. So nothing of taskd is to be installed in a
virtualenv, no directory of others comes into ``sys.path``, and the module always fits the daemon."""

import importlib.abc
import importlib.util
import os
import sys

SOURCES: dict


class Carried(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds the package and its modules among the sources."""

    @staticmethod
    def key(name):
        return "__init__" if name == "taskd_worker" else name[len("taskd_worker.") :]

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "taskd_worker" or self.key(name) not in SOURCES:
            return None
        origin = f"taskd/taskd_worker/{self.key(name)}.py"
        return importlib.util.spec_from_loader(name, self, origin=origin, is_package=name == "taskd_worker")

    def get_source(self, name):
        return SOURCES[self.key(name)]

    def exec_module(self, module):
        module.__file__ = module.__spec__.origin
        exec(compile(self.get_source(module.__name__), module.__file__, "exec", dont_inherit=True), module.__dict__)


def main():
    # The script came as an open file: it is read, and no business of what tasks start.
    if __file__.startswith("/proc/self/fd/"):
        os.close(int(__file__.rpartition("/")[2]))
    # Nor can a process that multiprocessing starts anew load it: that one needs nothing of it.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    # As for `python -m` and `celery -A`: modules are looked for in the working directory first.
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        del sys.path[0]
    sys.path.insert(0, os.getcwd())
    sys.meta_path.insert(0, Carried())
    sys.argv[0] = "taskd_worker"
    from taskd_worker.__main__ import main as worker

    worker()


main()
