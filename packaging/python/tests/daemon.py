"""A daemon of taskd as the worker sees it: the other end of its socket."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 60


class Daemon:
    """Starts a worker and speaks the protocol with it."""

    def __init__(self, *words):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        environment = {**os.environ, "TASKD_FD": str(theirs.fileno()), "PYTHONPATH": path}
        environment.pop("PYTHONUNBUFFERED", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskd_worker", *words],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        self.rest = b""
        self.heard = []

    def say(self, **line):
        self.socket.sendall(json.dumps(line).encode() + b"\n")

    def hello(self, epoch=1):
        self.socket.sendall(b"\n")
        self.say(op="hello", v=1, epoch=epoch)
        return self.until("resumed")

    def line(self):
        while b"\n" not in self.rest:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError(self.process.stderr.read())
            self.rest += chunk
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line) if line else None

    def until(self, *ops):
        """Lines up to the first of these operations, that one included."""
        lines = []
        while True:
            line = self.line()
            if line is None:
                continue
            lines.append(line)
            if line["op"] in ops:
                return lines

    def run(self, key, task, *args, **more):
        line = {"op": "run", "run": key, "id": "id-" + key, "task": task, "queue": "q", "attempt": 1}
        self.say(**{**line, "generation": 1, "args": list(args), "kwargs": {}, **more})

    def outcome(self):
        return self.until("success", "failure", "retry", "refused")[-1]

    def printed(self, words):
        """Waits until the worker printed this."""
        while words not in (line := self.process.stdout.readline()):
            if not line:
                raise EOFError(self.process.stderr.read())
        return line

    def stop(self):
        """End of file: the worker finishes and exits; its exit code."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.process.wait(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        self.socket.close()


def waits(what, look):
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.01)
