"""The plain ones of the tasks for the tests."""

import inspect

import shop  # noqa: F401 - declares them
from taskd_worker import _tasks

for name in [name for name, function in _tasks.registered.items() if inspect.iscoroutinefunction(function)]:
    del _tasks.registered[name]
