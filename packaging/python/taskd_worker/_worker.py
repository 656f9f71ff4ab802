"""The worker: takes runs from taskd, calls the tasks, and keeps each outcome until taskd has stored it.

A thread of its own reads the socket. Where the tasks are called depends on what they are:

=====================================  ==========================================================
capacity 1                             in the main thread; a cancel interrupts even a system call
more, plain functions only             in as many threads; a cancel waits for the next bytecode
more, any coroutine function           coroutines in an event loop in the main thread, plain
                                       functions in threads beside it
=====================================  ==========================================================
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import importlib
import inspect
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Type, Union

from . import _output, _tasks
from ._link import MAX_LINE, Link, encode
from ._run import Canceled, DoNotRetry, Retry, Run, SoftTimeLimitExceeded, running

#: Version of the child protocol.
VERSION = 1

#: Wakes the main thread out of a system call; ignored by default, so a late one does no harm.
WAKE = signal.SIGURG

#: Progress of one run is told at most once in so many seconds.
PROGRESS_EVERY = 0.05


class Job:
    """A run that was taken and has no outcome yet."""

    #: What a run is told at its soft limit.
    soft_limit: Type[Exception] = SoftTimeLimitExceeded

    def __init__(self, key: str, said: Dict[str, Any]) -> None:
        #: The line of taskd that told of it.
        self.said = said
        self.key = key
        self.run = Run(str(said.get("id", "")), str(said.get("task", "")), str(said.get("queue", "")))
        self.run.attempt = int(said.get("attempt", 1))
        self.run.retries = int(said.get("retries", 0))
        self.run.headers = dict(said.get("headers") or {})
        self.args: List[Any] = list(said.get("args") or [])
        self.kwargs: Dict[str, Any] = dict(said.get("kwargs") or {})
        #: When it began, on the monotonic clock.
        self.started: Optional[float] = None
        self.lock = threading.Lock()
        #: How a cancel reaches it while its function is called.
        self.interrupt: Optional[Callable[[], None]] = None
        #: The exception that the main thread's signal handler is to raise.
        self.pending: Optional[BaseException] = None
        self.told_at = 0.0

    def cancel(self, reason: str) -> None:
        with self.lock:
            if self.run.cancel_reason is None:
                self.run.cancel_reason = reason
                if self.interrupt is not None:
                    self.interrupt()

    def begin(self, interrupt: Callable[[], None]) -> None:
        """Its function is called next; raises where it was canceled before."""
        with self.lock:
            if self.run.cancel_reason is not None:
                raise self.exception()
            self.interrupt = interrupt

    def end(self) -> None:
        """Its function has returned: nothing interrupts it any more."""
        with self.lock:
            self.interrupt = None
            self.pending = None

    def exception(self) -> BaseException:
        if self.run.cancel_reason == "time_limit":
            return self.soft_limit("the soft time limit has passed")
        return Canceled(f"told to end: {self.run.cancel_reason}")


class Worker:
    #: What a run is here.
    job: Type[Job] = Job

    def __init__(self, sock: socket.socket, capacity: int) -> None:
        self.link = Link(sock)
        self.capacity = capacity
        self.tasks = _tasks.registered
        #: Runs without an outcome, and outcomes that taskd has not stored yet.
        self.jobs: Dict[str, Job] = {}
        self.unsettled: Dict[str, bytes] = {}
        self.work: "queue.SimpleQueue[Optional[Job]]" = queue.SimpleQueue()
        self.finishing = False
        #: Held while a run is queued, and while the end is: a run behind the end would never begin. A signal handler
        #: takes it, so whoever holds it waits for nothing else, and the thread that has it may take it again.
        self.gate = threading.RLock()
        self.loop: Optional[asyncio.AbstractEventLoop] = None
        self.coroutines: Dict[Job, "asyncio.Task[None]"] = {}
        #: Set where coroutines run beside each other.
        self.over: Optional[asyncio.Event] = None
        self.streams: List[_output.Attributed] = []

    # What taskd says.

    def read(self) -> None:
        """The life of the reading thread."""
        for said in self.link.lines():
            op, key = said.get("op"), said.get("run")
            if op == "hello":
                self.hello(int(said.get("epoch", 1)))
            elif op == "run" and isinstance(key, str):
                self.take(key, said)
            elif op == "cancel" and isinstance(key, str):
                job = self.jobs.get(key)
                if job is not None:
                    job.cancel(str(said.get("reason")))
            elif op == "settled":
                self.unsettled.pop(str(key), None)
        self.finish()

    def hello(self, epoch: int) -> None:
        """A daemon, the first or a new one, learns what is held here."""
        with self.link.lock:
            # It throws away what comes before the first newline: let that be nothing.
            lines = [b"\n"] if epoch > 1 else []
            ready = {"op": "ready", "v": VERSION, "capacity": self.capacity, "resume": True}
            # No list of tasks: a message of one that is not here is to fail at once, not to wait for ever.
            if self.offers():
                # The first one: it says that all the same whatever comes is taken.
                ready["tasks"] = ["*", *self.offers()]
            lines.append(encode(ready))
            for key, job in self.jobs.items():
                lines.append(encode({"op": "running", "run": key}))
                if job.started is not None:
                    lines.append(encode(self.began(job)))
            lines.extend(self.unsettled.values())
            lines.append(encode({"op": "resumed"}))
            self.link.send(*lines)

    def offers(self) -> List[str]:
        """Names of tasks that taskd may show."""
        return []

    def take(self, key: str, said: Dict[str, Any]) -> None:
        if len(self.jobs) >= self.capacity:
            self.refuse(key, "this worker is ending" if self.finishing else f"it takes {self.capacity} runs at once")
            return
        job = self.job(key, said)
        run = job.run
        run._report = lambda current, total, message: self.progress(job, current, total, message)
        with self.link.lock:
            self.jobs[key] = job
        function = self.tasks.get(run.name)
        with self.gate:
            taken = not self.finishing
            if taken and self.loop is not None and self.over is not None and inspect.iscoroutinefunction(function):
                self.loop.call_soon_threadsafe(self.start_coroutine, job, function)
            elif taken:
                self.work.put(job)
        if not taken:
            with self.link.lock:
                self.jobs.pop(key, None)
            self.refuse(key, "this worker is ending")

    def refuse(self, key: str, why: str) -> None:
        self.link.send(encode({"op": "refused", "run": key, "why": why}))

    def finish(self) -> None:
        """Nothing new is taken; the worker ends when what it holds has ended."""
        with self.gate:
            if self.finishing:
                return
            self.finishing = True
            for _ in range(self.capacity):
                self.work.put(None)
        if self.loop is not None and self.over is not None:
            self.loop.call_soon_threadsafe(self.look_for_end)

    # What is said to taskd.

    def progress(self, job: Job, current: int, total: int, message: str) -> None:
        now = time.monotonic()
        with self.link.lock:
            if now - job.told_at < PROGRESS_EVERY or job.key not in self.jobs:
                return
            job.told_at = now
            line = {"op": "progress", "run": job.key, "current": max(current, 0), "total": max(total, 0)}
            self.link.send(encode({**line, "message": sound(message[:1000])}))

    def say(self, run: Run, stream: str, text: str, cut: bool) -> None:
        with self.link.lock:
            job = next((j for j in self.jobs.values() if j.run is run), None)
            if job is not None:
                line = {"op": "output", "run": job.key, "stream": stream, "line": sound(text), "cut": cut}
                self.link.send(encode(line))

    def started(self, job: Job) -> None:
        with self.link.lock:
            job.started = time.monotonic()
            self.link.send(encode(self.began(job)))

    def began(self, job: Job) -> Dict[str, Any]:
        """The line that says that a run has begun."""
        return {"op": "started", "run": job.key, "pid": os.getpid()}

    def ended(self, job: Job, line: Union[bytes, Dict[str, Any]]) -> None:
        """A run has an outcome (a whole line already, if it is bytes): told, and kept until taskd says that it is stored."""
        _output.flush()
        for stream in self.streams:
            stream.end(job.run)
        try:
            encoded = line if isinstance(line, bytes) else encode({**line, "run": job.key})
            if len(encoded) > MAX_LINE:
                raise OverflowError(f"its result is {len(encoded)} bytes of JSON; at most {MAX_LINE} can be told")
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            kind = type(line.get("result") if isinstance(line, dict) else None).__name__
            message = f"the task succeeded, but its result (a {kind}) cannot be told as JSON: {error}"
            encoded = encode({"op": "failure", "run": job.key, "type": "ResultNotJson", "message": message})
        with self.link.lock:
            self.jobs.pop(job.key, None)
            self.unsettled[job.key] = encoded
            self.link.send(encoded)

    # Calling tasks.

    def function(self, job: Job) -> Callable[..., Any]:
        function = self.tasks.get(job.run.name)
        if function is None:
            known = ", ".join(sorted(self.tasks)) or "none"
            raise DoNotRetry(f"this worker has no task of the name {job.run.name!r}; it has: {known}")
        return function

    def call(self, job: Job, interrupt: Callable[[], None]) -> None:
        """Run a plain function to its end, in this thread."""
        self.started(job)
        try:
            try:
                line = self.outcome(job, interrupt)
            except BaseException as error:  # noqa: B902 - whatever a task raises is its outcome
                job.end()
                line = failure(error)
        except (Canceled, job.soft_limit) as late:
            # It came between the task's end and the moment from which nothing comes any more.
            job.end()
            line = failure(late)
        self.ended(job, line)

    def outcome(self, job: Job, interrupt: Callable[[], None]) -> Union[bytes, Dict[str, Any]]:
        """Call the task; the line that tells of its end. What is raised is its end, too."""
        function = self.function(job)
        job.begin(interrupt)
        try:
            return {"op": "success", "result": contextvars.copy_context().run(self.within, job, function)}
        finally:
            job.end()

    @staticmethod
    def within(job: Job, function: Callable[..., Any]) -> Any:
        running.set(job.run)
        result = function(*job.args, **job.kwargs)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise TypeError(f"{job.run.name} returned an awaitable: declare it with `async def`")
        return result

    def serve_here(self) -> None:
        """Calls in the main thread, one at a time."""
        at_work: List[Optional[Job]] = [None]

        def woken(_number: int, _frame: object) -> None:
            job = at_work[0]
            if job is not None and job.pending is not None:
                pending, job.pending = job.pending, None
                raise pending

        main = threading.main_thread().ident
        signal.signal(WAKE, woken)
        while True:
            job = self.work.get()
            if job is None:
                return
            if inspect.iscoroutinefunction(self.tasks.get(job.run.name)):
                self.loop = self.loop or asyncio.new_event_loop()
                self.loop.run_until_complete(self.start_coroutine(job, self.tasks[job.run.name]))
                continue
            at_work[0] = job

            def interrupt(job: Job = job) -> None:
                job.pending = job.exception()
                signal.pthread_kill(main, WAKE)  # type: ignore[arg-type]

            self.call(job, interrupt)
            at_work[0] = None

    def serve_thread(self) -> None:
        """Calls in a thread of its own, one at a time."""
        me = ctypes.c_ulong(threading.get_ident())

        def raise_here(error: Optional[type]) -> None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(me, None if error is None else ctypes.py_object(error))

        while True:
            try:
                job = self.work.get()
                if job is None:
                    return
                taken: Job = job
                self.call(taken, lambda: raise_here(type(taken.exception())))
                raise_here(None)
            except (Canceled, SoftTimeLimitExceeded):
                # One that came when the task had returned already.
                continue

    def threads(self) -> List[threading.Thread]:
        made = [threading.Thread(target=self.serve_thread, name=f"task-{n}", daemon=True) for n in range(self.capacity)]
        for thread in made:
            thread.start()
        return made

    # Coroutines.

    def start_coroutine(self, job: Job, function: Callable[..., Any]) -> "asyncio.Task[None]":
        context = contextvars.copy_context()
        context.run(running.set, job.run)
        loop = self.loop
        assert loop is not None
        task = context.run(loop.create_task, self.await_coroutine(job, function))
        self.coroutines[job] = task
        return task

    async def await_coroutine(self, job: Job, function: Callable[..., Any]) -> None:
        loop, me = self.loop, asyncio.current_task()
        assert loop is not None and me is not None
        self.started(job)
        try:
            job.begin(lambda: loop.call_soon_threadsafe(me.cancel))
            try:
                line = {"op": "success", "result": await function(*job.args, **job.kwargs)}
            finally:
                job.end()
        except asyncio.CancelledError as error:
            told = job.run.cancel_reason is not None
            line = failure(job.exception().with_traceback(error.__traceback__) if told else error)
        except BaseException as error:  # noqa: B902 - whatever a task raises is its outcome
            line = failure(error)
        self.ended(job, line)
        self.coroutines.pop(job, None)
        self.look_for_end()

    def look_for_end(self) -> None:
        if self.finishing and not self.coroutines and self.over is not None:
            self.over.set()

    async def serve_loop(self) -> None:
        """Coroutines here, plain functions in threads."""
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        # The kernel may give the signal to any thread; this wakes the loop all the same.
        self.loop.add_signal_handler(signal.SIGTERM, self.finish)
        threads = self.threads() if not all(map(inspect.iscoroutinefunction, self.tasks.values())) else []
        if not threads:
            # Runs of unknown tasks come this way, too.
            threads = [threading.Thread(target=self.serve_thread, name="task-0", daemon=True)]
            threads[0].start()
        self.start_reading()
        await self.over.wait()
        for thread in threads:
            await self.loop.run_in_executor(None, thread.join)

    def start_reading(self) -> None:
        threading.Thread(target=self.read, name="taskd-reader", daemon=True).start()

    def serve(self) -> None:
        """Until taskd says that it is over, or SIGTERM comes."""
        signal.signal(signal.SIGTERM, lambda *_: self.finish())
        _output.by_line()
        if self.capacity > 1:
            for name in ("stdout", "stderr"):
                stream = _output.Attributed(getattr(sys, name), name, self.say)
                setattr(sys, name, stream)
                self.streams.append(stream)
        if self.capacity == 1:
            self.start_reading()
            self.serve_here()
        elif any(map(inspect.iscoroutinefunction, self.tasks.values())):
            asyncio.run(self.serve_loop())
        else:
            threads = self.threads()
            self.start_reading()
            for thread in threads:
                # The kernel may give a signal to another thread than this one, which alone handles it: look now and then.
                while thread.is_alive():
                    thread.join(0.5)


def failure(error: BaseException) -> Dict[str, Any]:
    """The line that tells of an exception."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "taskd_worker._run") else f"{kind.__module__}.{kind.__qualname__}"
    told: Dict[str, Any] = {"type": name, "message": sound(str(error)[:4096])}
    told["traceback"] = sound(trace(error)[-64_000:])
    if isinstance(error, Retry):
        delay = None if error.delay is None else max(0, round(error.delay * 1000))
        return {"op": "retry", "delay_ms": delay, "failure": told}
    if isinstance(error, DoNotRetry):
        told["retry"] = False
    return {"op": "failure", **told}


def sound(text: str) -> str:
    """The text, with what is no character (half of a pair, a byte of a file's name) told in ASCII."""
    return text.encode("utf-8", "backslashreplace").decode()


#: Files whose frames at the beginning of a traceback are nobody's concern, and directories of such.
OURS = {os.path.dirname(__file__)}


def trace(error: BaseException) -> str:
    """The traceback, without the frames of this package at its beginning."""
    at = error.__traceback__
    while at is not None and not OURS.isdisjoint(
        (at.tb_frame.f_code.co_filename, os.path.dirname(at.tb_frame.f_code.co_filename))
    ):
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at))


def socket_of_taskd() -> socket.socket:
    """The socket that taskd gave this process.

    :raises SystemExit: it was not started by taskd.
    """
    fd = os.environ.pop("TASKD_FD", "")
    if not fd.isdigit():
        sys.exit("taskd_worker: this is started by taskd; set `worker` or `celery_app` in a [pools.NAME] of its config")
    # Neither the socket nor its number is for the programs that tasks start.
    os.set_inheritable(int(fd), False)
    return socket.socket(fileno=int(fd))


def run(*modules: str, capacity: int = 1) -> None:
    """Import these modules and run their tasks until taskd says that it is over.

    ``capacity`` is how many runs are taken at once: threads for plain functions, coroutines of one event
    loop for coroutine functions (100 is a good number for those).

    :raises SystemExit: it was not started by taskd, or there are no tasks in these modules.
    """
    sock = socket_of_taskd()
    for module in modules:
        importlib.import_module(module)
    if not _tasks.registered:
        sys.exit(f"taskd_worker: no tasks in {', '.join(modules)}; mark functions with @taskd_worker.task")
    Worker(sock, capacity).serve()
