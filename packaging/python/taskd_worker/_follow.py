"""One call of a task of a Celery app: what its tracer is given, what is kept from it, and what is told of its end."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from ._link import MAX_LINE, encode
from ._worker import Job, failure, sound

if TYPE_CHECKING:
    from ._celery import CeleryWorker

logger = logging.getLogger(__name__)

#: Milliseconds until a message that its task rejected comes again: Celery's brokers bring it back at once, and again.
REJECTED_MS = 1_000

#: Arguments of an exception and children beyond so many bytes of JSON are not told.
MOST_TOLD = 64 << 10

#: What ``self.retry()`` understands here; other options are those of a new message.
RETRY_OPTIONS = {"args", "kwargs", "exc", "throw", "eta", "countdown", "max_retries"}


class Call(Job):
    """A run of a task of the app."""

    def __init__(self, key: str, said: Dict[str, Any]) -> None:
        super().__init__(key, said)
        celery = said.get("celery") or {}
        self.args, self.kwargs = typed(self.args), typed(self.kwargs)
        #: As the client sent them, where one of Celery's did.
        self.headers: Dict[str, Any] = dict(celery.get("headers") or {})
        self.properties: Dict[str, Any] = dict(celery.get("properties") or {})
        self.embed: Dict[str, Any] = dict(celery.get("embed") or {})
        self.app: Any = None
        self.task: Any = None
        self.interrupt_with: Optional[Callable[[], None]] = None
        #: ``self.request`` of the call itself, once it is under way.
        self.context: Any = None
        self.inside = False
        #: What follows a success; not to be seen by the tracer, which would publish it.
        self.hidden: Tuple[Any, Any] = (None, None)
        #: The result as JSON.
        self.result: bytes = b"null"
        self.retry: Any = None
        #: ``self.retry()`` said that there were enough.
        self.exhausted = False
        self.errbacks: List[int] = []
        self.children: List[Any] = []

    def request(self, hostname: str) -> Dict[str, Any]:
        """What becomes ``self.request``."""
        run = self.run
        info = {"exchange": "", "routing_key": run.queue, "priority": self.properties.get("priority")}
        info.update(self.properties.get("delivery_info") or {})
        # An attempt beyond those that were asked for: one before it was lost or interrupted.
        info["redelivered"] = run.attempt > run.retries + 1
        properties = {"correlation_id": run.id, "reply_to": None, **self.properties, "delivery_info": info}
        made = {
            "lang": "py",
            "task": run.name,
            "id": run.id,
            "group": None,
            "timelimit": [None, None],
            "root_id": run.id,
            "parent_id": None,
            **run.headers,
            **self.headers,
            "retries": run.retries,
            "args": self.args,
            "kwargs": self.kwargs,
            "hostname": hostname,
            "is_eager": False,
            "delivery_info": info,
            "properties": properties,
            "reply_to": properties["reply_to"],
            "correlation_id": properties["correlation_id"],
            **{key: self.embed.get(key) for key in ("callbacks", "errbacks", "chain", "chord")},
        }
        if made.get("ignore_result", ...) is None:
            # The client did not know the task: it decides.
            del made["ignore_result"]
        return made

    def tell_revoked(self) -> None:
        """The app hears of a run that was canceled."""
        from celery import signals

        if self.run.cancel_reason == "revoked" and self.context is not None:
            how = {"request": self.context, "terminated": True, "signum": "SIGTERM", "expired": False}
            signals.task_revoked.send(sender=self.task, **how)

    def told(self) -> Dict[str, Any]:
        """What Celery's own result would say beside state and result."""
        told: Dict[str, Any] = {}
        if self.children:
            told["children"] = self.children
        if self.errbacks:
            told["errbacks"] = self.errbacks
        return told


def typed(value: Any) -> Any:
    """A value of Celery's JSON: times, UUIDs and the like are what they were."""
    from kombu.utils.json import object_hook

    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return object_hook({key: typed(item) for key, item in value.items()})
    return value


def adopt(worker: "CeleryWorker", task: Any) -> None:
    """Make a task one whose calls go as this module says; a second time nothing happens."""
    from celery.app.trace import build_tracer, task_has_custom

    if not isinstance(task, Adopted):
        kind = type(task)
        # A class of its own above the task's, because it may have a ``__call__``, a ``retry`` and the like itself.
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        body = {"taskd": worker, "taskd_custom": task_has_custom(task, "__call__"), **names}
        task.__class__ = type(kind.__name__, (Adopted, kind), body)
        task.__dict__["taskd_results"] = Results(worker, task)
        task.__trace__ = None
    if task.__trace__ is None:
        task.__trace__ = build_tracer(task.name, task, worker.app.loader, worker.host.hostname, app=worker.app)


class Adopted:
    """What is above the class of a task."""

    taskd: "CeleryWorker"
    #: Whether the task's own class has a ``__call__``.
    taskd_custom: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        job = self.taskd.current
        if job is None or job.inside or job.task is not self:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        job.inside = True
        job.context = context = self.request_stack.top  # type: ignore[attr-defined]
        assert job.interrupt_with is not None
        job.begin(job.interrupt_with)
        try:
            # As the tracer does it: a class without a ``__call__`` of its own is spared that.
            function = super().__call__ if self.taskd_custom else self.run  # type: ignore[attr-defined, misc]
            result = function(*args, **kwargs)
        finally:
            job.end()
        job.hidden, context.callbacks, context.chain = (context.callbacks, context.chain), None, None
        return result

    @property
    def backend(self) -> Any:
        return self.__dict__["taskd_results"]

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    def retry(self, *args: Any, **options: Any) -> Any:
        from celery.exceptions import Retry

        job = self.taskd.current
        context = self.request_stack.top  # type: ignore[attr-defined]
        if job is None or context is None or context is not job.context:
            return super().retry(*args, **options)  # type: ignore[misc]
        other = sorted(set(options) - RETRY_OPTIONS)
        if other:
            logger.warning("%s: self.retry() is done by taskd, which passes over %s", job.run.name, ", ".join(other))
        # So it does all but to send it: that is taskd's to do, in one step with the end of this attempt.
        context.is_eager = True
        try:
            job.retry = super().retry(*args, **options)  # type: ignore[misc]
        except Retry as retry:
            job.retry = retry
            raise
        except BaseException:
            job.exhausted = True
            raise
        finally:
            context.is_eager = False
        return job.retry


class Results:
    """Stands before the app's result backend, for one task: the end of the call under way is taskd's to keep; everything
    else goes through."""

    def __init__(self, worker: "CeleryWorker", task: Any) -> None:
        self._worker = worker
        self._task = task

    def _real(self) -> Any:
        own = self._task.__dict__.get("_backend")
        return self._worker.app.backend if own is None else own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def _job(self, request: Any) -> Optional[Call]:
        job = self._worker.current
        if job is None or request is None or job.task is not self._task:
            return None
        if job.context is None and request.id == job.run.id and not request.called_directly and not request.is_eager:
            # It ended before the function was called.
            job.context = request
        return job if request is job.context else None

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = "SUCCESS") -> None:
        job = self._job(request)
        if job is None:
            self._real().mark_as_done(task_id, result, request, store_result, state)
            return
        request.callbacks, request.chain = job.hidden
        job.children = children(request)
        follows = job.said.get("passes") or any(job.embed.get(key) for key in ("callbacks", "chain", "chord"))
        if store_result or follows:
            job.result = as_json(result)

    def mark_as_failure(self, task_id: str, exc: BaseException, traceback: Any = None, request: Any = None, **more: Any) -> None:
        job = self._job(request)
        if job is None:
            self._real().mark_as_failure(task_id, exc, traceback=traceback, request=request, **more)
            return
        job.children = children(request)
        if more.get("call_errbacks", True) and request.errbacks:
            call_errbacks(job, request, exc, traceback)

    def mark_as_retry(self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, **more: Any) -> None:
        if self._job(request) is None:
            self._real().mark_as_retry(task_id, exc, traceback=traceback, request=request, **more)

    def store_result(self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **more: Any) -> Any:
        job = self._worker.current
        if job is None or task_id != job.run.id or job.task is not self._task:
            return self._real().store_result(task_id, result, state, traceback=traceback, request=request, **more)
        if state != "STARTED":
            # self.update_state(): `taskd status` shows it as progress.
            meta = result if isinstance(result, dict) else {}
            number = {key: meta[key] for key in ("current", "total") if isinstance(meta.get(key), (int, float))}
            told = meta.get("message") or meta.get("status") or state
            job.run.progress(number.get("current", 0), number.get("total", 0), str(told))
        return result

    def process_cleanup(self) -> None:
        if "_backend_cache" in self._worker.app.__dict__ and self._worker.app.__dict__["_backend_cache"] is not None:
            self._real().process_cleanup()


def children(request: Any) -> List[Any]:
    """Tasks that the call sent, as Celery's result has them."""
    told = [child.as_tuple() for child in getattr(request, "children", None) or []]
    try:
        size = len(encode({"children": told}))
    except (TypeError, ValueError):
        return []
    return told if size <= MOST_TOLD else []


def call_errbacks(job: Call, request: Any, exc: BaseException, traceback: Any) -> None:
    """Call those errbacks that take ``(request, exc, traceback)``: they are functions of this process. taskd sends the
    others, which are tasks that are given an id."""
    from celery.exceptions import NotRegistered
    from celery.utils.functional import arity_greater

    for index, errback in enumerate(request.errbacks):
        try:
            errback = job.app.signature(errback)
            header = getattr(errback.type, "__header__", None)
            # That of a bound task is a partial: it is always sent.
            if header is None or hasattr(header, "func") or not arity_greater(header, 1):
                continue
        except NotRegistered:
            continue
        job.errbacks.append(index)
        try:
            errback(request, exc, traceback)
        except Exception:
            logger.exception("the errback %r failed", errback)


def as_json(value: Any) -> bytes:
    """A value as Celery's JSON tells it: times, UUIDs and the like are tagged.

    :raises EncodeError: it is no JSON; the tracer makes that the end of the call.
    """
    from kombu.exceptions import EncodeError
    from kombu.utils.json import dumps

    try:
        text: bytes = dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"the result (a {type(value).__name__}) cannot be told as JSON: {error}") from error
    if len(text) > MAX_LINE - 4096:
        raise EncodeError(f"the result is {len(text)} bytes of JSON; at most {MAX_LINE - 4096} can be told")
    return text


def end_of(job: Call, traced: Any) -> Any:
    """The line that tells how a call ended."""
    from billiard.einfo import ExceptionInfo

    info, value = traced[1], traced[0]
    state = getattr(info, "state", None)
    celery = job.told()
    if state is None and job.retry is not None:
        # It asked for a retry with throw=False, and went on.
        state, info = "RETRY", None
    if state == "RETRY":
        return retry_line(job, job.retry if info is None else info.retval, celery)
    if state == "IGNORED":
        return {"op": "success", "celery": {**celery, "ignored": True}}
    if state == "REJECTED":
        return rejected(job, info.retval, celery)
    if state is None and not isinstance(value, ExceptionInfo):
        head = encode({"op": "success", "run": job.key, **({"celery": celery} if celery else {})})
        return head[:-2] + b',"result":' + job.result + b"}\n"
    error = info.retval if state is not None else getattr(value.exception, "exc", value.exception)
    line = failure(error)
    if job.exhausted:
        line["retry"] = False
    return {**line, "celery": {**celery, "exception": exception(error)}}


def exception(error: BaseException) -> Dict[str, Any]:
    """An exception as Celery's clients raise it again."""
    from celery.utils.serialization import get_pickleable_exception

    # One whose class a client cannot have is told by one that it has.
    error = get_pickleable_exception(error)
    kind = type(error)
    told = {"module": kind.__module__, "type": getattr(kind, "__qualname__", kind.__name__)}
    args: List[Any] = []
    for arg in error.args:
        try:
            args.append(loads(as_json(arg)))
        except Exception:
            args.append(sound(repr(arg)))
    small = len(encode({"args": args})) <= MOST_TOLD
    return {**told, "args": args if small else [sound(str(error))[:4096]]}


def loads(text: bytes) -> Any:
    import json

    return json.loads(text)


def rejected(job: Call, reject: Any, celery: Dict[str, Any]) -> Dict[str, Any]:
    from celery import signals

    line = failure(reject)
    if reject.requeue:
        told = {key: line[key] for key in ("type", "message", "traceback")}
        return {"op": "retry", "delay_ms": REJECTED_MS, "back": True, "failure": told}
    how = {"task_id": job.run.id, "exception": reject, "args": job.args, "kwargs": job.kwargs, "traceback": None, "einfo": None}
    signals.task_failure.send(sender=job.task, **how)
    return {**line, "retry": False, "celery": {**celery, "exception": exception(reject)}}


def retry_line(job: Call, retry: Any, celery: Dict[str, Any]) -> Dict[str, Any]:
    """What ``self.retry()`` decided. A ``Retry`` that was raised without it is bounded by the task's own number."""
    cause = retry.exc if retry.exc is not None else retry
    line = failure(cause)
    told = {key: line[key] for key in ("type", "message", "traceback")}
    most = job.task.max_retries
    if retry is not job.retry and most is not None and job.run.retries >= most:
        return {**failure(retry), "retry": False, "celery": {**celery, "exception": exception(retry)}}
    made: Dict[str, Any] = {"op": "retry", "delay_ms": delay_ms(job, retry.when), "own": True, "failure": told}
    made["celery"] = {**celery, "exception": exception(cause)}
    sig = getattr(retry, "sig", None)
    if sig is not None and [list(sig.args), dict(sig.kwargs)] != [job.args, job.kwargs]:
        try:
            made["args"], made["kwargs"] = loads(as_json(list(sig.args))), loads(as_json(dict(sig.kwargs)))
        except Exception as error:
            return {**failure(error), "retry": False, "celery": {**celery, "exception": exception(error)}}
    return made


def delay_ms(job: Call, when: Any) -> int:
    """Milliseconds until a time, or of a number of seconds."""
    if when is None:
        return 0
    if isinstance(when, datetime):
        if when.tzinfo is None:
            from celery.utils.time import maybe_make_aware

            when = maybe_make_aware(when, job.app.timezone)
        when = (when - datetime.now(when.tzinfo)).total_seconds()
    elif hasattr(when, "total_seconds"):
        when = when.total_seconds()
    return max(0, round(float(when) * 1000))
