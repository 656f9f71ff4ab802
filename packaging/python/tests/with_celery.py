"""Tasks of a Celery app. They need Celery, so discovery passes them over: `python -m unittest tests.with_celery` with the
interpreter of a virtualenv that has it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from . import daemon as fake
from .daemon import Daemon

try:
    import celery  # noqa: F401
except ImportError:
    sys.exit("these tests need Celery: run `bash tests/needs.sh test` in the repository, then target/venv-celery/bin/python")


class Case(unittest.TestCase):
    def worker(self, *words):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.environ["PAPP_BACKEND"] = f"file://{self.folder.name}"
        os.environ["TASKD_NODE"] = "web1"
        daemon = Daemon("--celery", *(words or ["papp:app"]))
        self.addCleanup(daemon.close)
        self.ready = daemon.hello()[0]
        return daemon

    def ends(self, daemon, task, *args, key=None, **more):
        self.count = getattr(self, "count", 0) + 1
        daemon.run(key or str(self.count), "papp." + task, *args, **more)
        return daemon.outcome()

    def stored(self):
        return sorted(os.listdir(self.folder.name))


class Calls(Case):
    def test_a_result_is_told_and_the_apps_backend_is_left_alone(self):
        daemon = self.worker()
        self.assertEqual(self.ready["tasks"][0], "*")
        self.assertIn("papp.add", self.ready["tasks"])
        self.assertEqual(self.ends(daemon, "add", 2, 3)["result"], 5)
        self.assertEqual(self.ends(daemon, "add", 2, kwargs={"b": 4})["result"], 6)
        self.assertEqual(self.stored(), [])
        self.assertEqual(daemon.stop(), 0)

    def test_what_a_task_sees_of_its_call(self):
        daemon = self.worker()
        told = self.ends(daemon, "about", 1, key="7", headers={"tenant": "x"})
        self.assertEqual(told["type"], "TypeError", "arguments are the function's own matter")
        seen = self.ends(daemon, "about", headers={"tenant": "x"}, key="8")["result"]
        self.assertEqual((seen["id"], seen["root"], seen["parent"], seen["group"]), ("id-8", "id-8", None, None))
        self.assertEqual((seen["retries"], seen["called_directly"], seen["is_eager"]), (0, False, False))
        self.assertEqual((seen["hostname"], seen["correlation_id"]), ("celery@web1", "id-8"))
        self.assertEqual(seen["delivery_info"]["routing_key"], "q")
        self.assertIs(seen["delivery_info"]["redelivered"], False)
        self.assertEqual(seen["headers"]["tenant"], "x")
        link = {"task": "papp.told", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
        call = {
            "headers": {"group": "g", "root_id": "r", "parent_id": "p", "retries": 99, "mine": 1, "timelimit": [None, None]},
            "properties": {"reply_to": "me", "priority": 3, "delivery_info": {"exchange": "", "routing_key": "other"}},
            "embed": {"callbacks": [link], "errbacks": None, "chain": [link], "chord": None},
        }
        seen = self.ends(daemon, "about", celery=call, retries=1, attempt=3)["result"]
        self.assertEqual((seen["root"], seen["parent"], seen["group"]), ("r", "p", "g"))
        self.assertEqual((seen["retries"], seen["headers"]["mine"]), (1, 1))
        self.assertEqual((len(seen["chain"]), len(seen["callbacks"])), (1, 1))
        self.assertEqual((seen["delivery_info"]["routing_key"], seen["delivery_info"]["redelivered"]), ("other", True))

    def test_handlers_signals_and_a_class_of_ones_own_are_as_under_celery(self):
        daemon = self.worker()
        self.assertEqual(self.ends(daemon, "careful", key="9")["result"], "papp.careful")
        self.assertIn("on_success papp.careful id-9", daemon.printed("on_success"))
        self.assertIn("SUCCESS", daemon.printed("after_return"))
        failed = self.ends(daemon, "careful", True)
        self.assertEqual((failed["op"], failed["type"], failed["message"]), ("failure", "papp.OutOfStock", "('shoe', 3)"))
        self.assertEqual(failed["celery"]["exception"], {"module": "papp", "type": "OutOfStock", "args": ["shoe", 3]})
        self.assertNotIn("retry", failed)
        first = failed["traceback"].splitlines()[1]
        self.assertIn("papp.py", first, failed["traceback"])
        self.assertIn("on_failure", daemon.printed("on_failure"))
        seen = self.ends(daemon, "history")["result"]
        self.assertEqual(seen[:3], ["worker_init", "worker_process_init", "worker_ready"])
        self.assertEqual(
            seen[3:], ["task_prerun", "call id-9", "task_success", "task_postrun", "task_prerun", "call id-2", "task_failure", "task_postrun", "task_prerun"]
        )
        self.assertEqual(daemon.stop(), 0)
        rest = daemon.process.stdout.read()
        self.assertIn("worker_shutting_down", rest)
        self.assertIn("worker_process_shutdown", rest)

    def test_results_are_celerys_json(self):
        daemon = self.worker()
        told = self.ends(daemon, "values")["result"]
        self.assertEqual([value["__type__"] for value in told], ["datetime", "uuid"])
        for kind in "set", "nan", "half":
            told = self.ends(daemon, "odd", kind)
            self.assertEqual((told["op"], told["type"]), ("failure", "kombu.exceptions.EncodeError"), kind)
        self.assertIsNone(self.ends(daemon, "silent")["result"])
        self.assertEqual(self.ends(daemon, "silent", passes=True)["result"], "nobody asks")
        told = self.ends(daemon, "local_error")
        self.assertEqual(told["celery"]["exception"]["type"], "UnpickleableExceptionWrapper")
        self.assertTrue(told["type"].endswith("Hidden"), told)

    def test_what_follows_is_left_to_taskd(self):
        daemon = self.worker()
        link = {"task": "papp.told", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
        errback = {**link, "task": "papp.reported"}
        bad = {**link, "options": {"queue": 5}}
        embed = {"callbacks": [bad], "errbacks": [link, errback], "chain": [bad], "chord": {"task": "none"}}
        # Sent by Celery's tracer, either of them would be an error; the chord would need a backend that counts.
        told = self.ends(daemon, "add", 1, 2, celery={"headers": {"group": "g"}, "embed": embed})
        self.assertEqual((told["op"], told["result"]), ("success", 3), told)
        told = self.ends(daemon, "careful", True, celery={"embed": embed}, key="e")
        self.assertEqual((told["op"], told["celery"]["errbacks"]), ("failure", [1]), told)
        self.assertIn("errback id-e OutOfStock", daemon.printed("errback"))
        self.assertEqual(self.stored(), [])

    def test_what_a_task_sends_goes_to_the_apps_broker_and_is_named(self):
        daemon = self.worker()
        told = self.ends(daemon, "sends")
        self.assertEqual((told["op"], told["result"]), ("success", 7))
        (((child, _parent), _members),) = told["celery"]["children"]
        self.assertEqual(len(child), 36)
        told = self.ends(daemon, "replaces")
        self.assertEqual((told["op"], told["celery"]["ignored"]), ("success", True))

    def test_progress_is_taskds(self):
        daemon = self.worker()
        daemon.run("p", "papp.progresses")
        lines = daemon.until("success")
        progress = next(line for line in lines if line["op"] == "progress")
        self.assertEqual((progress["current"], progress["total"], progress["message"]), (1, 4, "begun"))
        self.assertEqual(self.stored(), [])


class Retries(Case):
    def test_a_task_that_asks_for_a_retry_is_not_sent_by_celery(self):
        daemon = self.worker()
        told = self.ends(daemon, "again")
        self.assertEqual((told["op"], told["delay_ms"], told["own"]), ("retry", 5000, True))
        self.assertEqual((told["failure"]["type"], told["failure"]["message"]), ("OSError", "not yet"))
        self.assertNotIn("args", told)
        self.assertEqual(self.ends(daemon, "again", retries=1, attempt=2)["op"], "retry")
        told = self.ends(daemon, "again", retries=2, attempt=3)
        self.assertEqual((told["op"], told["type"], told["retry"]), ("failure", "OSError", False))
        self.assertEqual(self.ends(daemon, "again", kwargs={"max_retries": 5}, retries=2)["op"], "retry")
        self.assertEqual(self.ends(daemon, "never_again")["delay_ms"], 0)
        told = self.ends(daemon, "never_again", retries=1)
        self.assertEqual((told["op"], told["type"]), ("failure", "celery.exceptions.MaxRetriesExceededError"))
        self.assertEqual(self.stored(), [])
        self.assertNotIn("before_task_publish", self.ends(daemon, "history")["result"])

    def test_other_arguments_times_and_ways(self):
        daemon = self.worker()
        told = self.ends(daemon, "other_arguments", 2)
        self.assertEqual((told["args"], told["kwargs"]), ([1], {"how": "changed"}))
        self.assertEqual(self.ends(daemon, "other_arguments", 0, kwargs={"how": "changed"})["result"], [0, "changed"])
        self.assertAlmostEqual(self.ends(daemon, "at_a_time")["delay_ms"], 60_000, delta=20_000)
        told = self.ends(daemon, "quietly")
        self.assertEqual((told["op"], told["delay_ms"]), ("retry", 1000))
        told = self.ends(daemon, "bare")
        self.assertEqual((told["op"], told["delay_ms"]), ("retry", 3000))
        told = self.ends(daemon, "bare", retries=3)
        self.assertEqual((told["op"], told["retry"]), ("failure", False))

    def test_autoretry_has_its_own_delay(self):
        daemon = self.worker()
        delays = [self.ends(daemon, "auto", retries=n)["delay_ms"] for n in range(3)]
        self.assertEqual(delays, [4000, 8000, 16000])
        told = self.ends(daemon, "auto", retries=3)
        self.assertEqual((told["op"], told["type"], told["retry"]), ("failure", "ConnectionError", False))
        self.assertIsNone(self.ends(daemon, "auto", False)["result"])

    def test_ignored_and_rejected(self):
        daemon = self.worker()
        told = self.ends(daemon, "ignored")
        self.assertEqual((told["op"], told["celery"]["ignored"]), ("success", True))
        self.assertNotIn("result", told)
        told = self.ends(daemon, "rejected", False)
        self.assertEqual((told["op"], told["type"], told["retry"]), ("failure", "celery.exceptions.Reject", False))
        told = self.ends(daemon, "rejected", True)
        self.assertEqual((told["op"], told["back"], told["delay_ms"]), ("retry", True, 1000))


class Ends(Case):
    def test_a_cancel_and_limits(self):
        daemon = self.worker()
        daemon.run("1", "papp.sleeps")
        daemon.printed("asleep")
        daemon.say(op="cancel", run="1", reason="revoked")
        self.assertEqual(daemon.outcome()["type"], "Canceled")
        daemon.run("2", "papp.sleeps")
        daemon.printed("asleep")
        daemon.say(op="cancel", run="2", reason="time_limit")
        self.assertEqual(daemon.outcome()["type"], "billiard.exceptions.SoftTimeLimitExceeded")
        daemon.run("3", "papp.limited")
        started = daemon.until("started")[-1]
        self.assertEqual((started["soft_time_limit_ms"], started["time_limit_ms"]), (20_000, 30_000))
        daemon.printed("asleep")
        daemon.say(op="cancel", run="3", reason="time_limit")
        self.assertEqual(daemon.outcome()["result"], "cleaned up")
        daemon.run("5", "papp.calls_itself")
        daemon.printed("asleep")
        daemon.say(op="cancel", run="5", reason="revoked")
        self.assertEqual(daemon.outcome()["type"], "Canceled", "a call inside of the call is a part of it")
        self.assertIn("task_revoked", self.ends(daemon, "history")["result"])
        daemon.run("4", "papp.add", 1, 2, celery={"headers": {"timelimit": [9, 8.5]}})
        started = daemon.until("started")[-1]
        self.assertEqual((started["soft_time_limit_ms"], started["time_limit_ms"]), (8500, 9000))
        self.assertEqual(daemon.outcome()["result"], 3)

    def test_a_new_daemon_is_told_what_is_left_of_a_limit(self):
        daemon = self.worker()
        daemon.run("1", "papp.limited")
        daemon.until("started")
        daemon.printed("asleep")
        time.sleep(0.05)
        again = next(line for line in daemon.hello(2) if line["op"] == "started")
        self.assertLess(again["time_limit_ms"], 30_000)
        self.assertGreater(again["time_limit_ms"], 1_000)

    def test_leaving_and_unknown_names_are_failures(self):
        daemon = self.worker()
        self.assertEqual(self.ends(daemon, "leaves")["type"], "SystemExit")
        told = self.ends(daemon, "nothing")
        self.assertEqual((told["type"], told["retry"]), ("celery.exceptions.NotRegistered", False))
        self.assertEqual(told["celery"]["exception"]["args"], ["papp.nothing"])
        self.assertIn("papp.add", told["message"])
        self.assertEqual(self.ends(daemon, "add", 1, 1)["result"], 2)

    def test_sigterm_ends_it_after_what_runs(self):
        daemon = self.worker()
        daemon.run("1", "papp.sleeps", 0.3)
        daemon.printed("asleep")
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.outcome()["op"], "success")
        self.assertEqual(daemon.process.wait(fake.PATIENCE), 0)


class Preloaded(Case):
    def parent(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.environ["PAPP_BACKEND"] = f"file://{self.folder.name}"
        launcher = fake.Launcher("--celery", "papp:app", "--preload")
        self.addCleanup(launcher.close)
        self.assertEqual(launcher.hears(), {"op": "ready"})
        return launcher

    def born(self, launcher, slot="shop/0"):
        child = launcher.child(slot)
        self.addCleanup(child.close)
        child.hello()
        return child

    def test_children_are_the_launchers_own_and_call_tasks(self):
        launcher = self.parent()
        first, second = self.born(launcher), self.born(launcher, "shop/1")
        self.assertEqual(self.ends(first, "add", 1, 2)["result"], 3)
        self.assertEqual(self.ends(second, "add", 3, 4)["result"], 7)
        seen = self.ends(first, "environment")["result"]
        self.assertEqual(seen["pid"], first.pid)
        self.assertNotEqual(first.pid, second.pid)
        # Its socket and nothing of its parent's, and the directory that is being read.
        self.assertEqual(len(seen["fds"]), 5, seen)
        with open(f"/proc/{first.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        # Parent, process group and session.
        self.assertEqual([int(n) for n in fields[1:4]], [os.getpid(), first.pid, first.pid])
        self.assertEqual(self.ends(second, "slot")["result"], "shop/1")
        self.assertEqual(first.stop(), 0)
        self.assertEqual(self.ends(second, "add", 1, 1)["result"], 2)

    def test_signals_go_to_parent_and_children_as_under_celery(self):
        launcher = self.parent()
        child = self.born(launcher)
        self.assertEqual(self.ends(child, "history")["result"], ["worker_init", "worker_process_init", "task_prerun"])
        late = self.born(launcher)
        seen = self.ends(late, "history")["result"]
        self.assertEqual(seen, ["worker_init", "worker_ready", "worker_process_init", "task_prerun"])
        self.assertEqual(child.stop(), 0)
        self.assertIn("worker_process_shutdown", child.stdout.read())
        self.assertEqual(launcher.stop(), 0)

    def test_children_outlive_their_parent_and_its_end(self):
        launcher = self.parent()
        child = self.born(launcher)
        child.run("1", "papp.sleeps", 0.3)
        child.printed("asleep")
        launcher.process.send_signal(signal.SIGKILL)
        launcher.process.wait()
        self.assertEqual(child.outcome()["op"], "success")
        child.send_signal(signal.SIGKILL)
        self.assertEqual(child.wait(), -signal.SIGKILL)

    def test_a_child_that_nobody_speaks_to_is_gone_with_its_socket(self):
        launcher = self.parent()
        child = launcher.child()
        child.socket.close()
        self.assertEqual(child.wait(), 0)
        self.assertEqual(self.ends(self.born(launcher), "add", 1, 1)["result"], 2)

    def test_many_may_be_on_their_way_at_once(self):
        launcher = self.parent()
        asked = {child.number: child for child in (launcher.order(f"shop/{n}") for n in range(5))}
        for child in asked.values():
            self.addCleanup(child.close)
        born = set()
        while len(born) < len(asked):
            said = launcher.hears()
            if said["op"] == "forked":
                asked[said["child"]].pid = said["pid"]
            else:
                self.assertEqual(said["op"], "born")
                born.add(said["child"])
            if said["op"] == "forked" and len([c for c in asked.values() if c.pid]) == len(asked):
                for number in asked:
                    launcher.say(op="go", child=number)
        for child in asked.values():
            child.hello()
            self.assertEqual(self.ends(child, "add", 1, 1)["result"], 2)

    def test_sigterm_and_the_end_of_the_socket_end_a_parent(self):
        launcher = self.parent()
        launcher.process.send_signal(signal.SIGTERM)
        self.assertEqual(launcher.process.wait(fake.PATIENCE), 0)
        self.assertEqual(self.parent().stop(), 0)


class Loading(Case):
    def test_names_are_found_as_celery_finds_them(self):
        for name in "papp", "papp:app", "papp.app":
            with self.subTest(name):
                daemon = self.worker(name)
                self.assertEqual(self.ends(daemon, "add", 1, 2)["result"], 3)

    def test_what_cannot_be_loaded_says_why_in_its_last_line(self):
        environment = {**os.environ, "PYTHONPATH": f"{fake.HERE.parent}:{fake.HERE}"}
        module = [sys.executable, "-m", "taskd_worker", "--list", "--celery"]
        for name, why in [
            ("nowhere.celery:app", "ModuleNotFoundError: No module named 'nowhere'"),
            ("papp:nothing", "AttributeError"),
            ("papp:add.name", "papp:add.name is no Celery app but a str"),
        ]:
            ran = subprocess.run([*module, name], env=environment, stderr=subprocess.PIPE, text=True)
            self.assertEqual(ran.returncode, 1)
            self.assertIn(why, ran.stderr.splitlines()[-1])
        ran = subprocess.run([*module, "papp:app"], env=environment, stdout=subprocess.PIPE, text=True)
        self.assertIn("papp.add", ran.stdout.split())


if __name__ == "__main__":
    unittest.main()
