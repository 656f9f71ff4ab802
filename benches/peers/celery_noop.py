"""A Celery app with one task that does nothing; as a program, it enqueues: `celery_noop.py N` or lets go: `go`."""
import os
import sys

from celery import Celery

app = Celery("noop", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("QUEUE", "celery"),
)


@app.task(name="noop")
def noop():
    return None


if __name__ == "__main__":
    if sys.argv[1] == "go":
        app.control.add_consumer("celery", reply=True)
    else:
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(int(sys.argv[1])):
                noop.apply_async(producer=producer)
