"""An app as a shop has it, run by Celery's own worker: what taskd sends is run here, by code that knows nothing of it.

The broker is $SHOP_BROKER. A file in $SHOP_LEDGER gets a line for each call that began.
"""

import os
import time

from celery import Celery

URL = os.environ["SHOP_BROKER"]
app = Celery("shop", broker=URL, backend=URL)
app.conf.update(task_default_queue=os.environ.get("SHOP_QUEUE", "celery"), worker_prefetch_multiplier=1)


def note(*what):
    with open(os.environ["SHOP_LEDGER"], "a") as ledger:
        ledger.write(" ".join(map(str, what)) + "\n")


@app.task(name="shop.add")
def add(a, b=0):
    note("add", a, b)
    return a + b


@app.task(name="shop.typed")
def typed(n, m):
    return n + m


@app.task(name="shop.fail")
def fail(why):
    raise ValueError(why)


@app.task(name="shop.big")
def big(n):
    return ["x"] * n


@app.task(name="shop.sleep")
def sleep(seconds):
    note("sleep", seconds)
    time.sleep(seconds)
    return "slept"


@app.task(name="shop.limits", bind=True)
def limits(self):
    info = self.request
    return {"timelimit": info.timelimit, "priority": info.delivery_info.get("priority"), "retries": info.retries}


@app.task(name="shop.again", bind=True, max_retries=2)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(name="shop.quiet", ignore_result=True)
def quiet():
    note("quiet")
