"""Coroutine tasks for the tests, and a plain one beside them."""

import asyncio

from taskd_worker import current, task


@task(name="waves.wait")
async def wait(seconds=60.0):
    print("waits", current().id)
    await asyncio.sleep(seconds)
    return current().id


@task(name="waves.plain")
def plain():
    return "plain"
