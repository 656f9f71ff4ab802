from celery import Celery, shared_task
from celery.schedules import crontab
from lib.mail import deliver

celery_app = Celery('tasks', broker='redis://:secret@localhost:6379/0')


@celery_app.task(name='app.email', rate_limit='100/h')
def email():
    pass


@shared_task(
    autoretry_for=(ConnectionError, TimeoutError),
    retry_backoff=True,
    retry_backoff_max=300,
    retry_jitter=False,
    max_retries=7,
    soft_time_limit=20,
    time_limit=30,
    acks_late=True,
)
def post_to_webhook(*, url: str) -> None:
    raise NotImplementedError


@celery_app.task(max_retries=3, default_retry_delay=60, ignore_result=True, queue="slow", priority=2)
def rebuild(self, x, y=lambda: 1):
    return x if x else y


@celery_app.on_after_configure.connect
def setup_periodic_tasks(sender, **kwargs):
    # Calls email every 10 seconds.
    sender.add_periodic_task(10.0, email.s(), name='mail every 10')
    sender.add_periodic_task(30.0, rebuild.s(1, y='two'), expires=10)
    sender.add_periodic_task(
        crontab(hour=7, minute=30, day_of_week=1),
        deliver.si('Happy Mondays!'),
    )
    for minute in range(3):
        sender.add_periodic_task(minute, email.s(), name=f'{minute}')
