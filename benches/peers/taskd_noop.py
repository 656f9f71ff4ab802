"""The no-op task of a Python worker."""
from taskd_worker import task


@task(name="noop")
def noop():
    return None
