"""Run Python functions as tasks of taskd, in a process that stays alive.

A module with tasks::

    from taskd_worker import current, retry, task

    @task
    def add(a, b):
        return a + b

    @task(name="shop.send_invoice")
    async def send_invoice(order_id):
        current().progress(1, 2, "rendering")
        ...

and a pool of taskd that runs it::

    [pools.shop]
    worker = ["/srv/shop/venv/bin/python", "-m", "taskd_worker", "shop.tasks"]

Nothing here imports anything but Python itself (3.9 or newer).
"""

from ._run import Canceled, DoNotRetry, Retry, Run, SoftTimeLimitExceeded, current, retry
from ._tasks import task
from ._worker import run

__all__ = [
    "Canceled",
    "DoNotRetry",
    "Retry",
    "Run",
    "SoftTimeLimitExceeded",
    "current",
    "retry",
    "run",
    "task",
]
__version__ = "0.1.0"
