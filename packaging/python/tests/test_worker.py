import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from taskd_worker._worker import Worker

from . import daemon as fake
from .daemon import Daemon


class Case(unittest.TestCase):
    def worker(self, *words):
        daemon = Daemon(*words)
        self.addCleanup(daemon.close)
        self.ready = daemon.hello()[0]
        return daemon


class Plain(Case):
    """Capacity 1: the main thread."""

    def test_it_says_what_it_can_do(self):
        daemon = self.worker("shop")
        self.assertEqual((self.ready["v"], self.ready["capacity"], self.ready["resume"]), (1, 1, True))
        self.assertNotIn("tasks", self.ready)
        self.assertEqual(daemon.stop(), 0)

    def test_a_result_is_told_and_what_was_printed_is_there_before(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.add", 2, kwargs={"b": 3})
        lines = daemon.until("success")
        self.assertEqual([line["op"] for line in lines], ["started", "success"])
        self.assertEqual(lines[-1]["result"], {"sum": 5})
        os.set_blocking(daemon.process.stdout.fileno(), False)
        self.assertEqual(os.read(daemon.process.stdout.fileno(), 999), b"adding 2 3\nno newline")

    def test_failures_say_why(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.fail")
        told = daemon.outcome()
        self.assertEqual((told["op"], told["type"], told["message"]), ("failure", "ValueError", "boom"))
        self.assertIn('raise ValueError("boom")', told["traceback"])
        self.assertNotIn("_worker.py", told["traceback"])
        self.assertNotIn("retry", told)
        daemon.run("2", "shop.fatal")
        self.assertIs(daemon.outcome()["retry"], False)
        daemon.run("3", "shop.no_json")
        told = daemon.outcome()
        self.assertEqual((told["op"], told["type"]), ("failure", "ResultNotJson"))
        self.assertIn("set", told["message"])
        daemon.run("4", "shop.add")
        self.assertEqual(daemon.outcome()["type"], "TypeError")
        daemon.run("5", "shop.nothing")
        told = daemon.outcome()
        self.assertIs(told["retry"], False)
        self.assertIn("shop.nothing", told["message"])
        daemon.run("6", "shop.exit")
        self.assertEqual(daemon.outcome()["type"], "SystemExit")
        daemon.run("7", "shop.later")
        self.assertIn("async def", daemon.outcome()["message"])
        daemon.run("8", "shop.add", 1)
        self.assertEqual(daemon.outcome()["op"], "success")

    def test_a_task_asks_to_run_again(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.again", 1.5)
        told = daemon.outcome()
        self.assertEqual((told["op"], told["delay_ms"], told["failure"]["message"]), ("retry", 1500, "not yet"))
        daemon.run("2", "shop.again")
        self.assertIsNone(daemon.outcome()["delay_ms"])
        daemon.run("3", "shop.again", attempt=2)
        self.assertEqual(daemon.outcome()["result"], 2)

    def test_a_task_knows_its_run_and_tells_how_far_it_is(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.far")
        lines = daemon.until("success")
        progress = lines[1]
        self.assertEqual((progress["current"], progress["total"], progress["message"]), (1, 2, "half"))
        self.assertEqual(lines[-1]["result"], ["id-1", "shop.far", "q"])

    def test_a_cancel_interrupts_a_system_call(self):
        daemon = self.worker("shop")
        for key, reason, kind in [
            ("1", "revoked", "Canceled"),
            ("2", "interrupted", "Canceled"),
            ("3", "time_limit", "SoftTimeLimitExceeded"),
        ]:
            daemon.run(key, "shop.sleep")
            daemon.printed("asleep")
            before = time.monotonic()
            daemon.say(op="cancel", run=key, reason=reason)
            told = daemon.outcome()
            self.assertEqual((told["op"], told["run"], told["type"]), ("failure", key, kind))
            self.assertLess(time.monotonic() - before, 30)
        daemon.run("4", "shop.clean")
        daemon.printed("asleep")
        daemon.say(op="cancel", run="4", reason="time_limit")
        self.assertEqual(daemon.outcome()["result"], "cleaned up")
        daemon.run("w", "shop.wave", 0)
        self.assertEqual(daemon.outcome()["result"], "id-w")
        daemon.run("v", "shop.wave")
        daemon.printed("asleep")
        daemon.say(op="cancel", run="v", reason="revoked")
        self.assertEqual(daemon.outcome()["type"], "Canceled")
        # One for a run that is over changes nothing.
        daemon.say(op="cancel", run="4", reason="revoked")
        daemon.run("5", "shop.add", 1)
        self.assertEqual(daemon.outcome()["op"], "success")

    def test_the_socket_is_not_for_what_tasks_start(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.child")
        # 0, 1, 2 and the directory that is being read.
        self.assertEqual(daemon.outcome()["result"], "['0', '1', '2', '3'] False\n")


class Adoption(Case):
    def test_what_is_not_settled_is_said_again(self):
        daemon = self.worker("shop")
        for key in "12":
            daemon.run(key, "shop.add", 1)
            daemon.outcome()
        daemon.say(op="settled", run="1")
        daemon.run("3", "shop.sleep")
        daemon.printed("asleep")
        daemon.until("started")
        # The daemon before died in the middle of a line.
        daemon.socket.sendall(b'{"op":"run","run":"torn","ta')
        lines = daemon.hello(2)
        told = [(line["op"], line.get("run")) for line in lines]
        self.assertEqual(told[0], ("ready", None))
        self.assertEqual(told[1:], [("running", "3"), ("started", "3"), ("success", "2"), ("resumed", None)])
        daemon.say(op="cancel", run="3", reason="revoked")
        self.assertEqual(daemon.outcome()["run"], "3")

    def test_an_answer_to_a_new_daemon_begins_with_a_newline(self):
        daemon = self.worker("shop")
        daemon.socket.sendall(b'\n{"op":"hello","v":1,"epoch":2}\n')
        self.assertIsNone(daemon.line())

    def test_the_end_of_file_lets_what_runs_end(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.sleep", 0.3)
        daemon.printed("asleep")
        daemon.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(daemon.outcome()["op"], "success")
        self.assertEqual(daemon.process.wait(fake.PATIENCE), 0)

    def test_sigterm_lets_what_runs_end_and_refuses_the_rest(self):
        daemon = self.worker("shop", "--capacity", "2")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        go = os.path.join(folder.name, "go")
        daemon.run("1", "shop.until", go)
        daemon.until("output")
        daemon.process.send_signal(signal.SIGTERM)

        def refused():
            daemon.run("2", "shop.add", 1)
            return daemon.outcome()["op"] == "refused"

        fake.waits("a refusal", refused)
        with open(go, "w"):
            pass
        self.assertEqual(daemon.outcome()["run"], "1")
        self.assertEqual(daemon.process.wait(fake.PATIENCE), 0)

    def test_a_run_that_comes_as_the_worker_begins_to_end_is_refused(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.settimeout(fake.PATIENCE)
        worker = Worker(theirs, 2)

        class Ends(dict):
            """SIGTERM comes while the run is being taken."""

            def get(self, *key):
                worker.finish()
                return super().get(*key)

        worker.tasks = Ends()
        worker.take("1", {"task": "shop.add"})
        self.assertEqual(json.loads(ours.recv(4096))["op"], "refused")
        self.assertEqual(worker.jobs, {})
        self.assertEqual([worker.work.get(), worker.work.get(), worker.work.empty()], [None, None, True])

    def test_more_than_the_capacity_is_refused(self):
        daemon = self.worker("shop")
        daemon.run("1", "shop.sleep")
        daemon.run("2", "shop.sleep")
        told = daemon.outcome()
        self.assertEqual((told["op"], told["run"]), ("refused", "2"))


class Threads(Case):
    """Plain functions beside each other; "shop" has a coroutine too, "plain" has none."""

    def test_as_many_run_at_once_and_a_cancel_finds_its_own(self):
        for module in "shop", "plain":
            with self.subTest(module):
                self.cancels_find_their_own(self.worker(module, "--capacity", "4"))

    def cancels_find_their_own(self, daemon):
        for key in "1234":
            daemon.run(key, "shop.spin")
        for _ in range(4):
            daemon.until("output")
        for key, reason, kind in [("3", "revoked", "Canceled"), ("1", "time_limit", "SoftTimeLimitExceeded")]:
            daemon.say(op="cancel", run=key, reason=reason)
            told = daemon.outcome()
            self.assertEqual((told["op"], told["run"], told["type"]), ("failure", key, kind))
        daemon.run("5", "shop.add", 1)
        lines = daemon.until("success")
        printed = [(line["run"], line["line"]) for line in lines if line["op"] == "output"]
        self.assertEqual(printed, [("5", "adding 1 1"), ("5", "no newline")])

    def test_many_short_runs_under_cancels_each_end_once(self):
        daemon = self.worker("shop", "--capacity", "4")
        for n in range(300):
            daemon.run(str(n), "shop.spin", 0.005)
            daemon.say(op="cancel", run=str(n), reason="revoked")
            told = daemon.outcome()
            self.assertEqual(told["run"], str(n))
        daemon.run("last", "shop.add", 1)
        self.assertEqual(daemon.outcome()["run"], "last")


class Coroutines(Case):
    def test_a_hundred_at_once(self):
        daemon = self.worker("waves", "--capacity", "100")
        for n in range(100):
            daemon.run(str(n), "waves.wait", 0.5)
        ended = {daemon.outcome()["result"] for _ in range(100)}
        self.assertEqual(ended, {f"id-{n}" for n in range(100)})
        daemon.run("p", "waves.plain")
        self.assertEqual(daemon.outcome()["result"], "plain")
        self.assertEqual(daemon.stop(), 0)

    def test_cancels_and_the_end(self):
        daemon = self.worker("waves", "--capacity", "10")
        for key, reason, kind in [("1", "revoked", "Canceled"), ("2", "time_limit", "SoftTimeLimitExceeded")]:
            daemon.run(key, "waves.wait")
            lines = daemon.until("output")
            self.assertEqual(lines[-1]["line"], f"waits id-{key}")
            daemon.say(op="cancel", run=key, reason=reason)
            told = daemon.outcome()
            self.assertEqual((told["run"], told["type"]), (key, kind))
        daemon.run("3", "waves.wait", 0.5)
        daemon.until("started")
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.outcome()["result"], "id-3")
        self.assertEqual(daemon.process.wait(fake.PATIENCE), 0)

    def test_an_unknown_task_is_told(self):
        daemon = self.worker("waves")
        daemon.run("1", "waves.none")
        self.assertIs(daemon.outcome()["retry"], False)


class Library(unittest.TestCase):
    def test_tasks_stay_functions_and_current_is_harmless_outside(self):
        from taskd_worker import current, task

        @task(name="library.double")
        def double(n):
            current().progress(1, 2)
            return 2 * n

        self.assertEqual((double(4), current().id), (8, ""))
        with self.assertRaises(ValueError):

            @task(name="library.double")
            def other():
                pass

    def test_by_hand_it_says_what_starts_it(self):
        environment = {k: v for k, v in os.environ.items() if k != "TASKD_FD"}
        environment["PYTHONPATH"] = f"{fake.HERE.parent}:{fake.HERE}"
        module = [sys.executable, "-m", "taskd_worker"]
        ran = subprocess.run([*module, "shop"], env=environment, stderr=subprocess.PIPE, text=True)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("[pools.NAME]", ran.stderr)
        ran = subprocess.run([*module, "waves", "--list"], env=environment, stdout=subprocess.PIPE, text=True)
        self.assertEqual(ran.stdout.split(), ["waves.plain", "waves.wait"])


if __name__ == "__main__":
    unittest.main()
