"""Settings of Flask, a class each."""
from celery.schedules import crontab


class Base(object):
    DEBUG = False
    CELERY_TIMEZONE = "UTC"
    INTERVAL = 15
    CELERYBEAT_SCHEDULE = {
        "every-fifteen": {
            "task": "access.refresh",
            "schedule": crontab(minute="*/%d" % INTERVAL),
        },
        "hourly": {"task": "access.rotate", "schedule": crontab(minute=0, hour="*/1")},
        "weekly": dict(task="access.report", schedule=crontab(0, 0, day_of_week="sunday"), args=["a", 1.5, True]),
    }


class Production(Base):
    CELERYBEAT_SCHEDULE = {
        **Base.CELERYBEAT_SCHEDULE,
        "extra": {"task": "access.extra", "schedule": 60 * 60 * 24},
    }
