"""A Celery app as it stands in shops: nothing in it knows of taskd. Its broker and its results are where SHOP_URL says."""

import datetime
import os
import time

from celery import Celery, Task, chain, group
from celery.exceptions import Ignore, SoftTimeLimitExceeded

URL = os.environ["SHOP_URL"]
app = Celery("shopapp", broker=URL, backend=URL)
app.conf.task_default_queue = "shop"
app.conf.broker_connection_retry_on_startup = True


class OutOfStock(Exception):
    def __init__(self, item, left):
        super().__init__(item, left)


class Noting(Task):
    def note(self, key, value):
        self.app.backend.client.rpush(key, value)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def flat(numbers):
    return sum(flat(n) if isinstance(n, list) else n for n in numbers)


@app.task(bind=True)
def about(self):
    r = self.request
    names = "id root_id parent_id group group_index retries correlation_id reply_to origin shadow stamps stamped_headers"
    told = {name: getattr(r, name, None) for name in names.split()}
    told["headers"] = r.headers
    told["routing_key"] = r.delivery_info["routing_key"]
    told["chain"] = len(r.chain or [])
    told["callbacks"] = len(r.callbacks or [])
    told["timelimit"] = r.timelimit
    told["pid"], told["parent"] = os.getpid(), os.getppid()
    return told


@app.task
def sells(item="shoe"):
    raise OutOfStock(item, 3)


@app.task
def echo(value):
    return value


@app.task
def tomorrow(day):
    assert isinstance(day, datetime.datetime), day
    return day + datetime.timedelta(days=1)


@app.task(ignore_result=True)
def quiet(a):
    return a + 1


@app.task(bind=True, max_retries=3)
def again(self, until):
    if self.request.retries < until:
        raise self.retry(countdown=0.05, exc=OSError("not yet"))
    return self.request.retries


@app.task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=0.05, retry_kwargs={"countdown": 0.05})
def auto():
    raise ConnectionError("down")


@app.task(soft_time_limit=0.3)
def soft():
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task(soft_time_limit=0.3, time_limit=0.6)
def hard():
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            pass


@app.task
def sleeps(seconds):
    time.sleep(seconds)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True, base=Noting)
def dies_once(self, key):
    self.note(key, os.getpid())
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), 9)
    return "the second time"


@app.task(bind=True)
def replaced_by_one(self, a, b):
    raise self.replace(add.s(a, b))


@app.task(bind=True)
def replaced_by_chain(self, a):
    raise self.replace(chain(add.s(a, 1), add.s(1), replaced_by_one.s(10)))


@app.task(bind=True)
def replaced_by_group(self, n):
    raise self.replace(group(add.s(i, i) for i in range(n)))


@app.task(bind=True)
def counts_down(self, n):
    if n:
        raise self.replace(counts_down.s(n - 1))
    return [self.request.id, self.request.replaced_task_nesting]


@app.task(bind=True)
def fans_out(self, n):
    group(add.s(i, 1) for i in range(n)).apply_async()
    return n


@app.task
def ignores():
    raise Ignore()


@app.task(bind=True, base=Noting)
def noted(self, value, key):
    self.note(key, str(value))
    return value


@app.task(base=Noting, bind=True)
def failed_id(self, task_id, key):
    self.note(key, task_id)


@app.task
def failed_here(request, exc, traceback):
    app.backend.client.rpush("failed:" + request.id, type(exc).__name__)
