# -*- coding: utf-8 -*-
from datetime import timedelta
from celery.schedules import crontab
from . import config

CELERY_INCLUDE = ['github.tasks']
BROKER_URL = config.REDIS_URI
CELERY_RESULT_BACKEND = config.REDIS_URI
CELERY_TASK_RESULT_EXPIRES = 60
CELERYD_CONCURRENCY = 50
CELERYD_PREFETCH_MULTIPLIER = 1

CELERYBEAT_SCHEDULE = {
    'crawl-users': {
        'task': 'github.tasks.update_all_users',
        # 'schedule': timedelta(minutes=1)
        'schedule': crontab(minute=30)
    },
    'timeline': {
        'task': 'github.tasks.fetch_timeline',
        'args': (2012, 3, 1, 8),
        'schedule': crontab(hour=20, minute=0)
    },
    'country-rank': {
        'task': 'github.tasks.country_rank',
        'schedule': crontab(day_of_month=2, hour=0, minute=0)
    },
    'poll': {
        'task': 'github.tasks.poll',
        'schedule': timedelta(seconds=10)
    },
}

CELERY_TIMEZONE = 'Asia/Shanghai'
CELERY_ACCEPT_CONTENT = ['json']
CELERY_TASK_SERIALIZER = 'json'
BROKER_TRANSPORT_OPTIONS = {'visibility_timeout': 3600 * 24}
CELERY_ROUTES = {
    'github.tasks.update_user': {'queue': 'users'},
    'github.tasks.*': {'queue': 'rest', 'routing_key': 'rest.#'},
}
SQLALCHEMY_DATABASE_URI = 'sqlite://'
