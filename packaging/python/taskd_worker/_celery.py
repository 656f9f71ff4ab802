"""A Celery app in a pool of taskd: its tasks are called by Celery's own tracer, so that ``bind=True``, ``self.request``,
``self.retry``, ``autoretry_for``, handlers and signals are what they are under ``celery worker``.

What differs is who keeps what: taskd stores the result, counts the retries and publishes what follows (callbacks, the
next of a chain, the body of a chord), all in one step. So nothing of the call itself goes to the app's result backend or
broker from here; see :mod:`._follow`. What a task itself sends (``other.delay()``, ``self.replace()``) goes where the app says.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional

from . import _preload, _worker
from ._follow import Call, adopt, end_of, exception
from ._run import Canceled, DoNotRetry
from ._worker import Worker, failure, socket_of_taskd

def load(name: str) -> Any:
    """The app that ``celery -A NAME`` means.

    :raises SystemExit: there is none, or it cannot be imported; the last line on stderr says why.
    """
    try:
        from celery import Celery
        from celery.app import trace
        from celery.app.utils import find_app
    except ImportError as error:
        sys.exit(f"taskd_worker: {sys.executable} has no Celery ({error}); is `python` of the pool that of the app's virtualenv?")
    _worker.OURS.add(trace.__file__)
    try:
        module, colon, attribute = name.partition(":")
        if colon:
            found = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        else:
            found = find_app(name)
    except BaseException as error:  # noqa: B902 - a module may also call sys.exit()
        traceback.print_exc()
        sys.exit(f"taskd_worker: cannot load the Celery app {name}: {type(error).__name__}: {error}")
    if not isinstance(found, Celery) and not hasattr(found, "_get_current_object"):
        sys.exit(f"taskd_worker: {name} is no Celery app but a {type(found).__name__}")
    return found


class Instance:
    """Stands for the worker in signals that name it."""

    pool_cls = "prefork"
    concurrency = 1
    loglevel: Optional[int] = None
    logfile: Optional[str] = None

    def __init__(self, app: Any, hostname: str) -> None:
        self.app = app
        self.hostname = hostname

    def __repr__(self) -> str:
        return f"<taskd: {self.hostname}>"


class Host:
    """The life of a ``celery worker`` as the app sees it: in its order what is imported, set up and signaled."""

    def __init__(self, app: Any, loglevel: str) -> None:
        self.app = app
        self.hostname = f"celery@{os.environ.get('TASKD_NODE') or os.uname().nodename}"
        self.instance = Instance(app, self.hostname)
        self.instance.loglevel = self.loglevel = getattr(logging, loglevel)
        #: This process is main process and child in one.
        self.whole = True

    def prepare(self) -> None:
        """What a worker does before it has children."""
        from celery import signals
        from celery.app import trace

        app, hostname = self.app, self.hostname
        app.loader.init_worker()
        signals.celeryd_init.send(sender=hostname, instance=self.instance, conf=app.conf, options={})
        trace.setup_worker_optimizations(app, hostname)
        signals.worker_init.send(sender=self.instance)
        app.log.setup(self.loglevel, redirect_stdouts=False, colorize=False, hostname=hostname)
        signals.celeryd_after_setup.send(sender=hostname, instance=self.instance, conf=app.conf)

    def begin(self) -> None:
        """What a child of it does first."""
        from celery import signals
        from celery._state import _set_task_join_will_block

        # As in every child of a worker: a task that waits for another one is told that it may wait for ever.
        _set_task_join_will_block(True)
        self.app.loader.init_worker_process()
        signals.worker_process_init.send(sender=self.hostname)
        if self.whole:
            self.ready()

    def ready(self) -> None:
        from celery import signals

        signals.worker_ready.send(sender=self.instance)

    def ending(self) -> None:
        from celery import signals

        if self.whole:
            signals.worker_shutting_down.send(sender=self.hostname, sig="SIGTERM", how="Warm", exitcode=0)

    def end(self) -> None:
        from celery import signals

        signals.worker_process_shutdown.send(sender=self.hostname, pid=os.getpid(), exitcode=0)
        if self.whole:
            signals.worker_shutdown.send(sender=self.instance)

    def end_of_parent(self) -> None:
        """What is the part of the main process of a worker."""
        from celery import signals

        signals.worker_shutting_down.send(sender=self.hostname, sig="SIGTERM", how="Warm", exitcode=0)
        signals.worker_shutdown.send(sender=self.instance)


class CeleryWorker(Worker):
    job = Call

    def __init__(self, sock: Any, host: Host) -> None:
        from celery.exceptions import SoftTimeLimitExceeded

        super().__init__(sock, 1)
        self.host = host
        self.app = host.app
        self.tasks = {}
        #: The run that is under way.
        self.current: Optional[Call] = None
        #: Held while the app is told that it ends.
        self.ending = threading.Lock()
        self.told_ending = False
        Call.soft_limit = SoftTimeLimitExceeded

    def offers(self) -> List[str]:
        return sorted(self.app.tasks)

    def began(self, job: Call) -> Dict[str, Any]:  # type: ignore[override]
        since = time.monotonic() - (job.started or 0.0)
        left = {key: max(1, round((seconds - since) * 1000)) for key, seconds in self.limits(job).items()}
        return {**super().began(job), **left}

    def limits(self, job: Call) -> Dict[str, float]:
        """The time limits that the client or the app sets, in seconds; taskd keeps them beside its own."""
        task = self.app.tasks.get(job.run.name)
        hard, soft = (list(job.headers.get("timelimit") or []) + [None, None])[:2]
        told = {
            "time_limit_ms": hard or getattr(task, "time_limit", None),
            "soft_time_limit_ms": soft or getattr(task, "soft_time_limit", None),
        }
        return {key: float(seconds) for key, seconds in told.items() if seconds}

    def outcome(self, job: Call, interrupt: Callable[[], None]) -> Any:  # type: ignore[override]
        from celery.exceptions import NotRegistered

        try:
            task = self.app.tasks[job.run.name]
        except NotRegistered as error:
            names = [name for name in self.offers() if not name.startswith("celery.")]
            message = f"the Celery app has no task of the name {job.run.name!r}; it has: {', '.join(names) or 'none'}"
            line = failure(DoNotRetry(message))
            return {**line, "type": "celery.exceptions.NotRegistered", "celery": {"exception": exception(error)}}
        adopt(self, task)
        job.app, job.task, job.interrupt_with = self.app, task, interrupt
        self.current = job
        try:
            return end_of(job, task.__trace__(job.run.id, job.args, job.kwargs, job.request(self.host.hostname)))
        except Canceled:
            job.tell_revoked()
            raise
        finally:
            self.current = None

    def finish(self) -> None:
        # Whoever comes second, be it a signal handler, waits for nothing: the process waits in the end.
        if self.ending.acquire(blocking=False):
            try:
                if not self.told_ending:
                    self.told_ending = True
                    self.host.ending()
            finally:
                self.ending.release()
        super().finish()

    def serve(self) -> None:
        super().serve()
        # The thread that reads may still be in a handler of the app's: a process must not end under it.
        with self.ending:
            pass


def run(name: str, loglevel: str = "WARNING", preload: bool = False) -> None:
    """Run the tasks of this Celery app until taskd says that it is over. ``preload``: in processes that are forked from
    this one.

    :raises SystemExit: it was not started by taskd, or the app cannot be loaded.
    """
    sock = socket_of_taskd()
    host = Host(load(name), loglevel)
    try:
        host.prepare()
        if preload:
            # What the children would each do again.
            host.app.finalize()
            _preload.disconnect(host.app)
    except BaseException as error:  # noqa: B902 - a task module may also call sys.exit()
        traceback.print_exc()
        sys.exit(f"taskd_worker: cannot start the Celery app {name}: {type(error).__name__}: {error}")
    if preload:
        host.whole = False
        own = _preload.Parent(sock, host).children()
        if own is None:
            host.end_of_parent()
            return
        sock = own
    host.begin()
    try:
        CeleryWorker(sock, host).serve()
    finally:
        host.end()


def names(name: str) -> List[str]:
    """The names of the app's tasks."""
    app = load(name)
    app.loader.init_worker()
    app.finalize()
    return sorted(app.tasks)
