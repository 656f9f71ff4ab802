import os

from celery import Celery
from celery.schedules import crontab
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auction.settings")

app = Celery("auction")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.timezone = settings.TIME_ZONE
app.autodiscover_tasks()

app.conf.beat_schedule = {
    # every afternoon
    "announce-at-17": {
        "task": "auction.tasks.announce",
        "schedule": crontab(minute=0, hour=17),
    },
    # "not-now": {
    #     "task": "auction.tasks.old",
    #     "schedule": 10.0,
    # },
    "close-due": {"task": "auction.tasks.close_due", "schedule": 30.0, "args": ()},
}


@app.task(bind=True)
def debug_task(self):
    print(f"Request: {self.request!r}")
