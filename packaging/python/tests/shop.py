"""Plain tasks for the tests."""

import asyncio
import os
import subprocess
import sys
import time

from taskd_worker import DoNotRetry, SoftTimeLimitExceeded, current, retry, task


@task
def add(a, b=1):
    print("adding", a, b)
    sys.stdout.write("no newline")
    return {"sum": a + b}


@task(name="shop.fail")
def fail():
    raise ValueError("boom")


@task(name="shop.fatal")
def fatal():
    raise DoNotRetry("never again")


@task(name="shop.again")
def again(delay=None):
    if current().attempt == 1:
        retry(delay, "not yet")
    return current().attempt


@task(name="shop.no_json")
def no_json():
    return {1, 2}


@task(name="shop.far")
def far():
    current().progress(1, 2, "half")
    return [current().id, current().name, current().queue]


@task(name="shop.sleep")
def sleep(seconds=60):
    print("asleep", flush=True)
    time.sleep(seconds)


@task(name="shop.spin")
def spin(seconds=60):
    print("spins")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


@task(name="shop.until")
def until(path):
    print("asleep", flush=True)
    while not os.path.exists(path):
        time.sleep(0.01)


@task(name="shop.clean")
def clean():
    try:
        print("asleep")
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@task(name="shop.exit")
def leave():
    sys.exit("I leave")


@task(name="shop.child")
def child():
    command = [sys.executable, "-c", "import os; print(sorted(os.listdir('/proc/self/fd')), 'TASKD_FD' in os.environ)"]
    return subprocess.check_output(command, text=True)


@task(name="shop.wave")
async def wave(seconds=60):
    print("asleep")
    await asyncio.sleep(seconds)
    return current().id


@task(name="shop.later")
def later():
    async def nothing():
        return 1

    return nothing()
