"""Every command of `celery inspect` and `celery control`, `celery status`, `celery events`, a real worker and Flower
against one node. Usage: tools.py URL NODE. Whatever does not come out as it must is an exception.

The node has the tasks shop.nap and shop.limited (10/m), the queues default and low; one shop.nap runs, one is taken
ahead, one is scheduled, and others come and go."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import redis
from celery import Celery
from celery.bin.celery import celery as command_line
from celery.worker.control import Panel
from click.testing import CliRunner

URL, NODE = sys.argv[1:3]
app = Celery("tools", broker=URL, backend=URL)
server = redis.Redis.from_url(URL)


def until(what, probe, seconds=15):
    """What `probe` comes to, once that is true."""
    end = time.monotonic() + seconds
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s, last {got!r}")
        time.sleep(0.05)


def said(kind, *args):
    """What the node says to a command of the command line."""
    result = CliRunner().invoke(command_line, ["-b", URL, kind, "-d", NODE, "-t", "5", "--json", *args])
    assert result.exit_code == 0, (kind, args, result.exit_code, result.output)
    # More may follow: `control` also says how many nodes answered.
    return json.JSONDecoder().raw_decode(result.output, result.output.index("{"))[0][NODE]


def inspect():
    active = until("a task that runs", lambda: said("inspect", "active"))[0]
    assert active["name"] == active["type"] == "shop.nap" and active["hostname"] == NODE, active
    assert active["worker_pid"] > 1 and abs(time.time() - active["time_start"]) < 3600, active
    assert [int(n) for n in active["args"]] == [600] and active["kwargs"] == {} and not active["acknowledged"], active
    reserved = said("inspect", "reserved")[0]
    assert reserved["time_start"] is None and reserved["worker_pid"] is None, reserved
    scheduled = [entry for entry in said("inspect", "scheduled") if entry["request"]["name"] == "shop.nap"][0]
    assert scheduled["request"]["hostname"] == NODE and "T" in scheduled["eta"], scheduled
    plans = {
        "active": active, "reserved": reserved, "scheduled": scheduled,
        "ping": lambda r: r == {"ok": "pong"},
        "registered": lambda r: {"shop.nap", "shop.limited [rate_limit=10/m]"} <= set(r),
        "stats": lambda r: (
            r["broker"]["transport"] == "redis" and r["total"].get("shop.nap", 0) >= 1 and r["pid"] > 1
            and r["pool"]["max-concurrency"] >= 1 and r["pool"]["processes"] and r["rusage"]["maxrss"] > 0
            and r["uptime"] >= 0 and int(r["clock"]) > 0 and r["prefetch_count"] > 0
        ),
        "active_queues": lambda r: {q["name"] for q in r} == {"default", "low"} and all(len(q) == 18 for q in r),
        "conf": lambda r: r["task_default_queue"] == "default" and "broker_url" in r,
        "report": lambda r: "taskd:" in r["ok"],
        "revoked": lambda r: isinstance(r, list),
        "clock": lambda r: r["clock"] > 0,
        "query_task": lambda r: r[active["id"]][0] == "active" and r[active["id"]][1]["name"] == "shop.nap",
        "hello": lambda r: set(r) == {"revoked", "clock"},
        "memdump": lambda r: "error" in r, "memsample": lambda r: "error" in r, "objgraph": lambda r: "error" in r,
    }
    more = {"query_task": [active["id"], "no-such-id"]}
    for name, meta in sorted(Panel.meta.items()):
        if meta.type == "inspect":
            check = plans[name]
            if name == "hello":
                got = app.control.broadcast("hello", {"from_node": "other@host"}, reply=True, destination=[NODE], timeout=5)[0][NODE]
                assert check(got), (name, got)
            elif callable(check):
                got = said("inspect", name, *more.get(name, []))
                assert check(got), (name, got)
            print("inspect", name)
    assert any("max_retries=" in t for t in said("inspect", "registered", "max_retries"))
    result = CliRunner().invoke(command_line, ["-b", URL, "status"])
    assert result.exit_code == 0 and f"{NODE}: OK" in result.output and "1 node online" in result.output, result.output
    # By pattern, and not at all. A client of Celery that asks again at once still waits for its first queue for a
    # second, whoever answers, so none of these may be short.
    for pattern, matcher, there in [("taskd@*", "glob", True), ("^taskd@", "pcre", True), ("x*", "glob", False)]:
        got = app.control.broadcast("ping", reply=True, pattern=pattern, matcher=matcher, timeout=2)
        assert bool(got) == there, (pattern, got)
    assert app.control.ping(destination=["nobody@here"], timeout=1) == []
    return active, reserved, scheduled


def control(active, reserved):
    def ok(*args):
        got = said("control", *args)
        assert list(got) == ["ok"], (args, got)
        return got["ok"]

    def error(*args):
        got = said("control", *args)
        assert list(got) == ["error"], (args, got)
        return got["error"]

    done = set()

    def mark(name):
        done.add(name)
        print("control", name)

    assert ok("enable_events") in ("task events enabled", "task events already enabled")
    assert ok("enable_events") == "task events already enabled"
    mark("enable_events")
    assert ok("disable_events") == "task events disabled"
    mark("disable_events")
    assert said("control", "heartbeat") is None
    mark("heartbeat")
    assert app.control.broadcast("election", {"id": "e1", "topic": "t"}, reply=True, destination=[NODE], timeout=5) == [{NODE: None}]
    mark("election")
    assert ok("rate_limit", "shop.nap", "5/m") == "new rate limit set successfully"
    assert "shop.nap [rate_limit=5/m]" in said("inspect", "registered")
    assert ok("rate_limit", "shop.nap", "0") == "rate limit disabled successfully"
    assert "Invalid rate limit string" in error("rate_limit", "shop.nap", "often")
    assert error("rate_limit", "shop.unheard", "1/s") == "unknown task"
    mark("rate_limit")
    assert ok("time_limit", "shop.nap", "500", "550") == "time limits set successfully"
    assert "shop.nap [time_limit=550 soft_time_limit=500]" in \
        said("inspect", "registered", "time_limit", "soft_time_limit")
    assert error("time_limit", "shop.unheard", "1") == "unknown task"
    mark("time_limit")
    assert ok("cancel_consumer", "low") == "no longer consuming from low"
    assert [q["name"] for q in said("inspect", "active_queues")] == ["default"]
    assert ok("cancel_consumer", "low") == "no longer consuming from low"
    mark("cancel_consumer")
    assert ok("add_consumer", "low") == "add consumer low"
    assert ok("add_consumer", "low") == "already consuming from 'low'"
    assert "declare [queues.other]" in error("add_consumer", "other")
    mark("add_consumer")
    for name, args in [("pool_grow", ["2"]), ("pool_shrink", []), ("autoscale", ["4", "2"]), ("pool_restart", [])]:
        assert error(name, *args).startswith("ValueError("), name
        mark(name)
    # `celery control revoke` takes many; an id that is unknown here holds later.
    assert "flagged as revoked" in ok("revoke", reserved["id"], "not-here-yet")
    assert {"not-here-yet", reserved["id"]} <= set(said("inspect", "revoked"))
    until("the revoked one is not held", lambda: reserved["id"] not in
          [task["id"] for task in said("inspect", "reserved")])
    # Without terminate what runs goes on.
    assert "flagged as revoked" in ok("revoke", active["id"])
    assert said("inspect", "active")[0]["id"] == active["id"]
    mark("revoke")
    assert ok("terminate", "SIGTERM", "not-here-yet") == "terminate: tasks unknown"
    assert "no signal" in error("terminate", "SIGNOPE", active["id"])
    assert ok("terminate", "SIGTERM", active["id"]) == f"terminate: {active['id']}"
    until("it is ended", lambda: active["id"] not in [task["id"] for task in said("inspect", "active")])
    mark("terminate")
    app.control.revoke_by_stamped_headers({"customer": ["7"]}, destination=[NODE])
    assert "customer" in ok("revoke_by_stamped_headers", "customer=7")
    mark("revoke_by_stamped_headers")
    got = app.control.broadcast("no_such_command", reply=True, destination=[NODE], timeout=5)
    assert got == [{NODE: {"error": "KeyError('no_such_command')"}}], got
    got = app.control.broadcast("revoke", reply=True, destination=[NODE], timeout=5)
    assert "missing 1 required positional argument: 'task_id'" in got[0][NODE]["error"], got
    left = {n for n, m in Panel.meta.items() if m.type == "control"} - done - {"shutdown"}
    assert not left, left


def broken():
    """Nothing that comes on a channel stops the node."""
    import base64

    def envelope(body, **other):
        envelope = {"body": base64.b64encode(body.encode()).decode(), "content-type": "application/json",
                    "content-encoding": "utf-8", "headers": {},
                    "properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": "t"}}
        return json.dumps(envelope | other)

    reply_to = {"exchange": "reply.celery.pidbox", "routing_key": "nobody"}
    database = server.connection_pool.connection_kwargs.get("db", 0)
    for channel in (f"/{database}.celery.pidbox", "celery.pidbox", f"/{database}.celeryev/worker.heartbeat"):
        for text in [
            "", "{", "[]", "null", b"\xff\xfe", "9" * 100_000, "[" * 50_000, envelope("nonsense"), envelope("[]"),
            envelope("{}"), envelope('{"method": 5}'), envelope('{"method": "ping", "arguments": 7}'),
            envelope('{"method": "ping", "destination": {"a": 1}}'),
            envelope('{"method": "ping"}', headers={"clock": "x", "expires": "y"}),
            envelope('{"method": "ping"}', **{"content-type": "application/x-python-serialize"}),
            envelope('{"method": "ping", "pattern": "(((", "matcher": "pcre"}'),
            envelope('{"type": "worker-elect"}'), envelope('[{"type": 1}, 2, null]'),
            envelope(json.dumps({"method": "ping", "ticket": "t",
                                 "reply_to": {"exchange": "", "routing_key": "default"}})),
            envelope(json.dumps({"method": "ping", "ticket": "t", "reply_to": reply_to})),
            envelope(json.dumps({"method": "revoke", "arguments": {"task_id": [1, None]}})),
            envelope(json.dumps({"method": "revoke", "arguments": {"task_id": ["../../x", "a b"]}})),
            envelope(json.dumps({"method": "ping", "ticket": "t", "reply_to": reply_to}), headers={"expires": 1}),
        ]:
            server.publish(channel, text)
    assert said("inspect", "ping") == {"ok": "pong"}
    assert not server.exists("nobody.reply.celery.pidbox", "default.", "default"), "a reply to nobody was written"
    print("broken requests")


def prompt():
    """How long a ping takes, beside a busy task queue."""
    times = []
    for _ in range(200):
        began = time.perf_counter()
        assert app.control.ping(destination=[NODE], timeout=5)
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    print(f"ping: p50 {times[100]:.1f} ms, p99 {times[198]:.1f} ms")
    assert times[100] < 200, times[100]


def events():
    """What comes while events are wanted, and that none comes otherwise."""
    seen = {}

    def collect(seconds, enough):
        seen.clear()
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": lambda e: seen.setdefault(e["type"], e)})
            end = time.monotonic() + seconds
            # A heartbeat comes every two seconds.
            for _ in receiver.consume(limit=None, timeout=10, wakeup=False):
                if enough() or time.monotonic() > end:
                    break

    app.control.disable_events(destination=[NODE], reply=True, timeout=5)
    collect(4, lambda: False)
    assert set(seen) == {"worker-heartbeat"}, set(seen)
    beat = seen["worker-heartbeat"]
    assert beat["hostname"] == NODE and beat["freq"] == 2.0 and beat["sw_ident"] == "taskd", beat
    assert abs(time.time() - beat["timestamp"]) < 10 and beat["pid"] > 1 and beat["clock"] > 0, beat
    app.control.enable_events(destination=[NODE], reply=True, timeout=5)
    want = {f"task-{word}" for word in ("received", "started", "succeeded", "failed", "retried", "revoked")}
    collect(40, lambda: want <= set(seen))
    assert want <= set(seen), want - set(seen)
    assert seen["task-received"]["name"].startswith("shop."), seen["task-received"]
    assert seen["task-succeeded"]["runtime"] >= 0 and seen["task-failed"]["exception"], seen
    assert all(abs(time.time() - e["timestamp"]) < 60 for e in seen.values()), seen
    print("events:", ", ".join(sorted(seen)))
    dump = subprocess.Popen([sys.executable, "-m", "celery", "-b", URL, "events", "--dump"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    deadline = time.monotonic() + 30
    os.set_blocking(dump.stdout.fileno(), False)
    while time.monotonic() < deadline:
        lines += [line for line in iter(dump.stdout.readline, "") if line]
        text = "".join(lines)
        if NODE in text and "heartbeat" in text and "succeeded" in text:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("celery events --dump: " + "".join(lines)[-2000:])
    dump.terminate()
    dump.wait(10)
    print("celery events --dump")


def beside():
    """A real worker on the same broker: they meet, and both answer."""
    app.control.revoke("known-to-taskd-only", destination=[NODE], reply=True, timeout=5)
    with tempfile.TemporaryDirectory() as place:
        with open(os.path.join(place, "lab.py"), "w") as file:
            file.write(f"from celery import Celery\napp = Celery('lab', broker={URL!r}, backend={URL!r})\n")
        with open(os.path.join(place, "log"), "w+") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "lab", "worker", "-P", "solo", "-Q", "elsewhere",
                 "-n", "real@lab", "-l", "info"], cwd=place, stdout=log, stderr=log)
            try:
                def text():
                    with open(os.path.join(place, "log")) as file:
                        return file.read()

                until("a worker that is ready", lambda: "real@lab ready" in text(), 40)
                assert "mingle: sync with 1 nodes" in text() and "sync complete" in text(), text()
                nodes = {name for reply in app.control.ping(timeout=2) for name in reply}
                assert nodes == {"real@lab", NODE}, nodes
                known = app.control.inspect(destination=["real@lab"], timeout=5).revoked()["real@lab"]
                assert "known-to-taskd-only" in known, known
            finally:
                worker.terminate()
                worker.wait(20)
    print("a real worker beside it")


def flower():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    place = tempfile.TemporaryDirectory()
    # Flower lets limits be set of tasks that its own app knows.
    with open(os.path.join(place.name, "shop.py"), "w") as file:
        file.write(f"from celery import Celery\napp = Celery('shop', broker={URL!r}, backend={URL!r})\n"
                   "@app.task(name='shop.nap')\ndef nap(seconds): pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "shop", "flower", "--address=127.0.0.1", f"--port={port}"],
        env=os.environ | {"FLOWER_UNAUTHENTICATED_API": "true"}, cwd=place.name,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fetch(path, **fields):
        data = urllib.parse.urlencode(fields, doseq=True).encode() if fields else None
        try:
            with urllib.request.urlopen(base + path, data, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError:
            return 0, ""

    node = urllib.parse.quote(NODE)
    try:
        until("Flower answers", lambda: fetch("/api/workers")[0] == 200, 40)
        workers = until("the node", lambda: json.loads(fetch("/api/workers?refresh=true")[1]).get(NODE), 30)
        assert {q["name"] for q in workers["active_queues"]} == {"default", "low"}, workers
        assert workers["stats"]["broker"]["transport"] == "redis" and workers["registered"], workers
        tasks = until("tasks with their names", lambda: [
            t for t in json.loads(fetch("/api/tasks")[1]).values()
            if t["name"] and t["state"] == "SUCCESS" and t["worker"] == NODE], 40)
        assert tasks[0]["name"].startswith("shop."), tasks[0]
        lengths = json.loads(fetch("/api/queues/length")[1])["active_queues"]
        assert {q["name"] for q in lengths} >= {"default", "low"}, lengths
        for page in ("/workers", f"/worker/{node}", "/tasks", "/broker", f"/task/{tasks[0]['uuid']}", "/metrics"):
            status, text = fetch(page)
            assert status == 200 and (page in ("/tasks", "/broker") or NODE in text), (page, status, text[:500])
        for path, fields, good in [
            (f"/api/worker/queue/cancel-consumer/{node}", {"queue": "low"}, 200),
            (f"/api/worker/queue/add-consumer/{node}", {"queue": "low"}, 200),
            ("/api/task/rate-limit/shop.nap", {"workername": NODE, "ratelimit": "100/m"}, 200),
            ("/api/task/timeout/shop.nap", {"workername": NODE, "soft": "400", "hard": "450"}, 200),
            (f"/api/worker/pool/grow/{node}", {"n": "1"}, 403),
            (f"/api/worker/pool/shrink/{node}", {"n": "1"}, 403),
            (f"/api/worker/pool/autoscale/{node}", {"min": "1", "max": "2"}, 403),
            ("/api/task/revoke/asked-by-flower", {"terminate": "false"}, 200),
        ]:
            status, text = fetch(path, **fields)
            assert status == good, (path, status, text)
            print("flower", path.removesuffix(node))
        until("its revoke", lambda: "asked-by-flower" in said("inspect", "revoked"))
    finally:
        process.terminate()
        process.wait(20)
        place.cleanup()
    print("flower")


def shutdown():
    app.control.shutdown(destination=[NODE])
    until("nobody answers", lambda: not app.control.ping(destination=[NODE], timeout=2), 30)
    print("control shutdown")


running, ahead, _ = inspect()
control(running, ahead)
broken()
prompt()
events()
beside()
flower()
shutdown()
print("all of it")
