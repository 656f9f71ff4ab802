"""An app whose tasks taskd runs, called by an unmodified client: what it sends is done as by `celery worker`.

Usage: apps.py BROKER-URL, with the app in shopapp.py. Prints `ok NAME` for each thing that holds; the first that does
not ends it.
"""

import datetime
import os
import sys
import time
import uuid

URL = os.environ["SHOP_URL"] = sys.argv[1]

import redis  # noqa: E402
from celery import chain, chord, group  # noqa: E402
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded  # noqa: E402
from celery.canvas import StampingVisitor  # noqa: E402
from shopapp import (  # noqa: E402
    OutOfStock, about, add, again, app, auto, counts_down, dies_once, echo, failed_here, failed_id, fans_out, flat, hard,
    ignores, noted, quiet, replaced_by_chain, replaced_by_group, replaced_by_one, sells, sleeps, soft, tomorrow, total,
)

store = redis.Redis.from_url(URL)
LIMIT = 30


def until(what, look):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT} s: {what}")


def raises(kind, result):
    try:
        result.get(timeout=LIMIT)
    except kind as error:
        return error
    raise AssertionError(f"it succeeded with {result.result!r}")


def results():
    assert add.delay(2, 3).get(timeout=LIMIT) == 5
    day = datetime.datetime(2026, 1, 2, 3, 4, 5)
    assert tomorrow.delay(day).get(timeout=LIMIT) == datetime.datetime(2026, 1, 3, 3, 4, 5)
    one = uuid.uuid4()
    assert echo.delay({"a": [one]}).get(timeout=LIMIT) == {"a": [one]}
    error = raises(OutOfStock, sells.delay("hat"))
    assert error.args == ("hat", 3), error.args


def requests():
    class Stamping(StampingVisitor):
        def on_signature(self, sig, **headers):
            return {"tenant": "x", "stamped_headers": ["tenant"]}

    sig = about.s().set(headers={"mine": 1}, priority=4)
    sig.stamp(Stamping())
    result = sig.apply_async(link=add.si(1, 1), shadow="seen", soft_time_limit=20, time_limit=30)
    told = result.get(timeout=LIMIT)
    assert (told["id"], told["root_id"], told["parent_id"]) == (result.id, result.id, None), told
    assert (told["correlation_id"], told["routing_key"], told["retries"]) == (result.id, "shop", 0), told
    assert told["reply_to"] and told["origin"].startswith("gen"), told
    assert told["headers"]["mine"] == 1, told
    assert told["stamps"] == {"tenant": "x"} and told["stamped_headers"] == ["tenant"], told
    assert (told["callbacks"], told["shadow"], told["timelimit"]) == (1, "seen", [30, 20]), told
    first = add.si(1, 1)
    second = chain(first, about.si(), add.si(1, 2))()
    told = second.parent.get(timeout=LIMIT)
    assert second.get(timeout=LIMIT) == 3
    assert told["chain"] == 1 and told["parent_id"] == second.parent.parent.id == told["root_id"], told
    members = group(about.si(), about.si())()
    told = members.get(timeout=LIMIT)
    assert [t["group_index"] for t in told] == [0, 1] and {t["group"] for t in told} == {members.id}, told


def canvas():
    assert chain(add.s(2, 2), add.s(4), add.s(8))().get(timeout=LIMIT) == 16
    assert chain(quiet.s(1), add.s(1))().get(timeout=LIMIT) == 3
    assert chain(tomorrow.s(datetime.datetime(2026, 1, 1)), tomorrow.s())().get(timeout=LIMIT).day == 3
    assert group(add.s(n, n) for n in range(10))().get(timeout=LIMIT) == [2 * n for n in range(10)]
    assert chord([add.s(n, n) for n in range(10)])(total.s()).get(timeout=LIMIT) == 90
    nested = chord([group(add.s(1, 1), add.s(2, 2)), chain(add.s(1, 1), add.s(1))])(flat.s())
    assert nested.get(timeout=LIMIT) == 9
    assert (group(add.s(1, 1), add.s(2, 2)) | total.s() | add.s(1))().get(timeout=LIMIT) == 7
    broken = chord([add.s(1, 1), sells.s()])(total.s())
    until("the end of a chord with a failed member", lambda: broken.state == "FAILURE")
    broken = chain(sells.s(), add.s(1))()
    until("the end of a chain whose head failed", lambda: broken.state == "FAILURE")


def links():
    key = "linked:" + str(uuid.uuid4())
    add.apply_async((1, 2), link=[noted.s(key), noted.s(key)])
    until("both callbacks", lambda: store.llen(key) == 2)
    key = "failed-id:" + str(uuid.uuid4())
    failed = sells.apply_async(link_error=[failed_id.s(key), failed_here.s()])
    until("the errback that is a task", lambda: store.llen(key))
    until("the errback that is called in the child", lambda: store.llen("failed:" + failed.id))
    time.sleep(0.3)
    assert store.lrange(key, 0, -1) == [failed.id.encode()], "once"
    assert store.lrange("failed:" + failed.id, 0, -1) == [b"OutOfStock"], "once"


def retries():
    done = again.delay(3)
    assert done.get(timeout=LIMIT) == 3
    assert isinstance(raises(OSError, again.delay(9)), OSError)
    raises(ConnectionError, auto.delay())


def limits():
    assert soft.delay().get(timeout=LIMIT) == "cleaned up"
    raises(TimeLimitExceeded, hard.delay())
    raises(TimeLimitExceeded, sleeps.apply_async((60,), time_limit=0.5))
    raises(SoftTimeLimitExceeded, sleeps.apply_async((60,), soft_time_limit=0.3))
    assert add.delay(1, 1).get(timeout=LIMIT) == 2


def lost():
    key = "died:" + str(uuid.uuid4())
    assert dies_once.delay(key).get(timeout=LIMIT) == "the second time"
    assert len(set(store.lrange(key, 0, -1))) == 2


def replaced():
    result = replaced_by_one.delay(1, 2)
    assert result.get(timeout=LIMIT) == 3
    result = replaced_by_chain.delay(1)
    assert result.get(timeout=LIMIT) == 13, result.result
    assert replaced_by_group.delay(3).get(timeout=LIMIT) == [0, 2, 4]
    result = counts_down.delay(5)
    assert result.get(timeout=LIMIT) == [result.id, 5]
    assert chain(add.s(1, 1), replaced_by_one.s(5), add.s(100))().get(timeout=LIMIT) == 107
    assert chord([add.s(1, 1), replaced_by_one.s(2, 2), replaced_by_chain.s(1)])(total.s()).get(timeout=LIMIT) == 19
    key = "linked:" + str(uuid.uuid4())
    replaced_by_one.apply_async((3, 4), link=noted.s(key))
    until("the callback of one that was replaced", lambda: store.llen(key))
    time.sleep(0.3)
    assert store.lrange(key, 0, -1) == [b"7"], store.lrange(key, 0, -1)
    nothing = ignores.delay()
    add.delay(1, 1).get(timeout=LIMIT)
    time.sleep(0.2)
    assert nothing.state == "PENDING", nothing.state


def own_tasks():
    assert add.starmap([(1, 2), (3, 4)]).delay().get(timeout=LIMIT) == [3, 7]
    assert echo.map(["a", "b"]).delay().get(timeout=LIMIT) == ["a", "b"]
    assert add.chunks(zip(range(6), range(6)), 2)().get(timeout=LIMIT) == [[0, 2], [4, 6], [8, 10]]
    call = app.send_task("celery.accumulate", args=(1, 2))
    assert call.get(timeout=LIMIT) == [1, 2]
    assert app.send_task("celery.backend_cleanup").get(timeout=LIMIT) is None
    body = add.si(1, 1).set(task_id=str(uuid.uuid4()))
    done = add.delay(1, 1)
    done.get(timeout=LIMIT)
    unlock = {"group_id": "g", "callback": body, "interval": 0.1, "result": [done.as_tuple()]}
    app.send_task("celery.chord_unlock", kwargs=unlock)
    assert app.AsyncResult(body.id).get(timeout=LIMIT) == 2
    raises(Exception, app.send_task("celery.chain"))


def refused_elsewhere():
    for name in ("celery.map", "celery.starmap"):
        error = raises(Exception, app.send_task(name, args=(add.s(), [[1, 2]]), queue="plain"))
        assert "Celery app" in str(error), error


def children():
    result = fans_out.delay(3)
    assert result.get(timeout=LIMIT) == 3
    until("what it sent is its child", lambda: result.children)
    assert result.children[0].get(timeout=LIMIT) == [1, 2, 3]


def nothing_is_left():
    until("nothing is unacknowledged", lambda: store.hlen("unacked") == 0 and store.zcard("unacked_index") == 0)


CHECKS = [
    results, requests, canvas, links, retries, limits, lost, replaced, own_tasks, refused_elsewhere, children, nothing_is_left,
]
for check in CHECKS:
    if len(sys.argv) == 2 or check.__name__ in sys.argv[2:]:
        check()
        print("ok", check.__name__, flush=True)
