"""An unmodified Celery client against a node of taskd: what it sends is run, what it asks for it gets.

Usage: clients.py BROKER-URL. Prints `ok NAME` for each thing that holds; the first that does not ends it.
"""

import json
import subprocess
import sys
import time

import redis
from celery import Celery, chain, chord, group, signature
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, TimeoutError

URL = sys.argv[1]
app = Celery("client", broker=URL, backend=URL)
app.conf.task_default_queue = "celery"
app.conf.broker_connection_retry_on_startup = True
store = redis.Redis.from_url(URL)
LIMIT = 30


def sig(name, *args, **options):
    return signature(name, args=args, app=app, **options)


def call(name, *args, **options):
    return app.send_task(name, args=args, **options)


def until(what, look):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT} s: {what}")


def results():
    assert call("shop.add", 2, 3).get(timeout=LIMIT) == 5
    assert app.send_task("shop.named", kwargs={"user": "é", "n": 7}).get(timeout=LIMIT) == {"user": "é", "n": 7}


def errors():
    failed = call("shop.fail")
    try:
        failed.get(timeout=LIMIT)
        raise AssertionError("it succeeded")
    except subprocess.CalledProcessError as e:
        assert e.returncode == 3, e.returncode
    assert failed.state == "FAILURE"


def chains():
    assert chain(sig("shop.add", 2, 2), sig("shop.add", 4), sig("shop.add", 8))().get(timeout=LIMIT) == 16
    broken = chain(sig("shop.fail"), sig("shop.add", 1, 1, immutable=True))()
    until("the end of a chain whose head failed", lambda: broken.state == "FAILURE")


def groups():
    sums = group(sig("shop.add", n, n) for n in range(10))()
    assert sums.get(timeout=LIMIT) == [2 * n for n in range(10)]


def chords():
    header = [sig("shop.add", n, n) for n in range(10)]
    assert chord(header)(sig("shop.sum")).get(timeout=LIMIT) == 90
    nested = chord([group(sig("shop.add", 1, 1), sig("shop.add", 2, 2)), sig("shop.add", 3, 3)])(sig("shop.flat"))
    assert nested.get(timeout=LIMIT) == 12
    failed = chord([sig("shop.add", 1, 1), sig("shop.fail")])(sig("shop.sum"))
    until("the end of a chord with a failed member", lambda: failed.state == "FAILURE")
    assert type(failed.result).__name__ == "ChordError", failed.result


def links():
    linked = sig("shop.add", 10).set(task_id="linked-1")
    sig("shop.add", 2, 3).apply_async(link=linked)
    assert app.AsyncResult("linked-1").get(timeout=LIMIT) == 15
    handler = sig("shop.echo").set(task_id="handler-1")
    failed = sig("shop.fail").apply_async(link_error=handler)
    assert app.AsyncResult("handler-1").get(timeout=LIMIT) == failed.id


def times():
    began = time.monotonic()
    assert call("shop.add", 1, 1, countdown=0.5).get(timeout=LIMIT) == 2
    assert time.monotonic() - began >= 0.4
    late = call("shop.add", 1, 1, countdown=1, expires=0.2)
    try:
        late.get(timeout=LIMIT)
        raise AssertionError("it ran although it had expired")
    except TaskRevokedError:
        pass


def options():
    assert call("shop.add", 4, 4, compression="gzip").get(timeout=LIMIT) == 8
    for priority in range(10):
        assert call("shop.add", priority, 0, priority=priority).get(timeout=LIMIT) == priority
    quiet = call("shop.add", 1, 1, ignore_result=True, task_id="quiet-1")
    loud = call("shop.add", 1, 1)
    loud.get(timeout=LIMIT)
    until("the end of one without a result", lambda: not store.llen("celery"))
    assert app.AsyncResult(quiet.id).state == "PENDING"
    loud.forget()
    assert app.AsyncResult(loud.id).state == "PENDING"


def limits():
    for option in ({"time_limit": 0.5}, {"soft_time_limit": 0.5}):
        began = time.monotonic()
        try:
            call("shop.sleep", 600, **option).get(timeout=LIMIT)
            raise AssertionError("it was not ended")
        except (TimeLimitExceeded, SoftTimeLimitExceeded):
            pass
        assert time.monotonic() - began < 60


def protocol_1():
    old = Celery("old", broker=URL, backend=URL)
    old.conf.task_protocol = 1
    assert old.send_task("shop.add", args=(20, 1)).get(timeout=LIMIT) == 21


def refused():
    pickled = app.send_task("shop.add", args=(1, 1), serializer="pickle")
    try:
        pickled.get(timeout=LIMIT)
        raise AssertionError("pickle was taken")
    except Exception as e:
        assert "pickle" in str(e), e
    for raw in [b"{", b"\xff\xfe", b"[]", json.dumps({"body": "!", "headers": {}, "properties": {}}).encode()]:
        store.lpush("celery", raw)
    bad = {"body": "!!", "headers": {"task": "shop.add", "id": "bad-1"}, "content-type": "application/json",
           "properties": {"delivery_tag": "bad-1", "body_encoding": "base64", "delivery_info": {}}}
    store.lpush("celery", json.dumps(bad))
    until("the end of a broken message that has an id", lambda: app.AsyncResult("bad-1").state == "FAILURE")
    for strange in ["order/42", "one two"]:
        try:
            call("shop.add", 1, 1, task_id=strange).get(timeout=LIMIT)
            raise AssertionError("an id that taskd cannot keep was taken")
        except Exception as e:
            assert "id" in str(e), e
    assert call("shop.add", 2, 2).get(timeout=LIMIT) == 4


def revokes():
    waiting = call("shop.add", 1, 1, countdown=60)
    until("taken in", lambda: not store.llen("celery"))
    waiting.revoke()
    until("the end of a revoked one that waited", lambda: waiting.state == "REVOKED")
    running = call("shop.sleep", 60)
    until("it runs", lambda: any(t["id"] == running.id for n in (app.control.inspect().active() or {}).values() for t in n))
    running.revoke(terminate=True)
    until("the end of a revoked one that ran", lambda: running.state == "REVOKED")


def nothing_is_left():
    until("nothing is unacknowledged", lambda: store.hlen("unacked") == 0 and store.zcard("unacked_index") == 0)


for check in [results, errors, chains, groups, chords, links, times, options, limits, protocol_1, refused, revokes, nothing_is_left]:
    check()
    print("ok", check.__name__, flush=True)
