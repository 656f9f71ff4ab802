from celery import Celery
from celery.schedules import crontab, schedule, solar
from kombu import Queue
from datetime import timedelta as td

MINUTE = 60
TASK = "shop.tasks."
app = Celery("shop", include=["shop.tasks"])
app.conf.update(
    task_serializer="json",
    timezone="Europe/Berlin",
    enable_utc=True,
    task_track_started=True,
    task_time_limit=30 * MINUTE,
    task_soft_time_limit=25 * MINUTE,
    worker_prefetch_multiplier=1,
    worker_max_tasks_per_child=200,
    worker_max_memory_per_child=200_000,
    task_acks_late=True,
    task_default_queue="shop",
    task_queues=(Queue("shop"), Queue("mail", routing_key="mail")),
    task_routes=([("shop.mail.*", {"queue": "mail"}), ("shop.media.resize", "media")],),
    task_annotations={
        "shop.mail.send": {"rate_limit": "10/m"},
        "shop.tasks.slow": {"rate_limit": "0.5/s", "time_limit": 120, "on_failure": notify},
    },
    beat_schedule={
        "morning mail": {
            "task": "shop.mail.send_" "digest",
            "schedule": crontab(minute=0, hour="*/3", day_of_week="mon-fri"),
            "kwargs": {"kind": "digest", "limit": 5 * 2},
            "options": {"queue": "mail", "priority": 3, "expires": td(minutes=5)},
        },
        "tick": {"task": TASK + "tick", "schedule": schedule(run_every=td(minutes=5), relative=True)},
        "lights": {"task": TASK + "lights", "schedule": solar("sunset", 52.5, -13.4)},
        "nights": {"task": TASK + "tick", "schedule": crontab(minute="0,30", hour="22-2", day_of_week="fri-mon")},
        "both days": {"task": TASK + "tick", "schedule": crontab(0, 0, day_of_month=1, day_of_week=1)},
        "dynamic": {"task": TASK + "tick", "schedule": float(os.environ.get("TICK", 5))},
        "null": {"task": TASK + "tick", "schedule": 3600, "args": [None, 1]},
        "off": {"task": TASK + "tick", "schedule": 3600, "enabled": False, "options": {"queue": "other"}},
    },
)
