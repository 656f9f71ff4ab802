"""A Celery app with one task that does nothing, acknowledged late, its result stored; as a program it sends one message."""
import os

from celery import Celery

app = Celery("noop", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop():
    return None


if __name__ == "__main__":
    noop.apply_async()
