from celery.schedules import crontab as every

beat_schedule = {}
beat_schedule["one"] = {"task": "a.one", "schedule": every(minute="5")}
beat_schedule.update({"two": {"task": "a.two", "schedule": every(minute="10", month_of_year="jan,July")}})
if DEBUG:
    beat_schedule["three"] = {"task": "a.three", "schedule": 5}
for name in NAMES:
    beat_schedule[name] = {"task": name, "schedule": 5}
task_routes = (route_task, {"a.*": {"queue": "a"}})
timezone = "UTC"
