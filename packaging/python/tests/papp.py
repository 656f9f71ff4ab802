"""A Celery app for the tests, as they stand in shops: nothing in it knows of taskd."""

import datetime
import os
import sys
import time
import uuid

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

app = Celery("papp", broker="memory://", backend=os.environ.get("PAPP_BACKEND", "cache+memory://"))
app.conf.task_default_queue = "papp"

seen = []


class OutOfStock(Exception):
    def __init__(self, item, left):
        super().__init__(item, left)


class Careful(Task):
    """A base class as people write it."""

    def __call__(self, *args, **kwargs):
        seen.append(f"call {self.request.id}")
        return super().__call__(*args, **kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        print("on_success", retval, task_id)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        print("on_failure", exc, task_id)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        print("on_retry", exc, task_id)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        print("after_return", status)


for name in (
    "worker_init worker_process_init worker_ready task_prerun task_postrun task_success task_failure task_retry "
    "task_revoked before_task_publish worker_shutting_down worker_process_shutdown"
).split():

    def note(sender=None, name=name, **more):
        seen.append(name)
        if name.startswith("worker_"):
            print("signal", name, flush=True)

    getattr(signals, name).connect(note, weak=False)


@app.task
def add(a, b):
    return a + b


@app.task(bind=True, base=Careful)
def careful(self, fail=False):
    if fail:
        raise OutOfStock("shoe", 3)
    return self.name


@app.task(bind=True)
def about(self):
    request = self.request
    return {
        "id": request.id,
        "root": request.root_id,
        "parent": request.parent_id,
        "group": request.group,
        "args": request.args,
        "retries": request.retries,
        "hostname": request.hostname,
        "delivery_info": request.delivery_info,
        "headers": request.headers,
        "called_directly": request.called_directly,
        "correlation_id": request.correlation_id,
        "chain": request.chain,
        "callbacks": request.callbacks,
        "is_eager": request.is_eager,
    }


@app.task(bind=True, max_retries=2)
def again(self, countdown=5, **options):
    try:
        raise OSError("not yet")
    except OSError as error:
        raise self.retry(exc=error, countdown=countdown, **options)


@app.task(bind=True, max_retries=1)
def never_again(self):
    raise self.retry(countdown=0)


@app.task(bind=True)
def other_arguments(self, n, how="first"):
    if n > 0:
        raise self.retry(args=[n - 1], kwargs={"how": "changed"}, countdown=0)
    return [n, how]


@app.task(bind=True)
def at_a_time(self):
    raise self.retry(eta=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=60))


@app.task(bind=True)
def quietly(self):
    self.retry(countdown=1, throw=False)
    return "went on"


@app.task
def bare():
    raise Retry("raised by itself", when=3)


@app.task(autoretry_for=(ConnectionError,), retry_backoff=4, retry_jitter=False, max_retries=3)
def auto(fail=True):
    if fail:
        raise ConnectionError("down")


@app.task
def ignored():
    raise Ignore()


@app.task
def rejected(requeue):
    raise Reject("no", requeue=requeue)


@app.task
def sleeps(seconds=60):
    print("asleep", flush=True)
    time.sleep(seconds)


@app.task(bind=True)
def calls_itself(self, deeper=True):
    if deeper:
        self(False)
        print("asleep", flush=True)
        time.sleep(10)


@app.task(soft_time_limit=20, time_limit=30)
def limited():
    try:
        print("asleep", flush=True)
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task
def values():
    return [datetime.datetime(2026, 1, 2, 3, 4, 5), uuid.UUID(int=1)]


@app.task
def odd(kind):
    return {"set": {1}, "nan": float("nan"), "half": "\ud800"}[kind]


@app.task(ignore_result=True)
def silent():
    return "nobody asks"


@app.task
def sends():
    add.delay(1, 2)
    return add(3, 4)


@app.task(bind=True)
def replaces(self):
    raise self.replace(add.s(5, 6))


@app.task(bind=True)
def progresses(self):
    self.update_state(state="PROGRESS", meta={"current": 1, "total": 4, "status": "begun"})
    return "done"


@app.task
def local_error():
    class Hidden(Exception):
        pass

    raise Hidden("inside", object())


@app.task
def reported(request, exc, traceback):
    print("errback", request.id, type(exc).__name__, flush=True)


@app.task
def told(failed_id):
    print("not called here")


@app.task
def leaves():
    sys.exit(3)


@app.task
def history():
    return list(seen)


@app.task
def slot():
    return os.environ["TASKD_SLOT"]


@app.task
def environment():
    return {"path": sys.path, "fds": sorted(os.listdir("/proc/self/fd")), "argv": sys.argv, "pid": os.getpid()}
