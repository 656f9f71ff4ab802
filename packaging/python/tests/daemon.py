"""A daemon of taskd as the worker sees it: the other end of its socket."""

import ctypes
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
#: prctl(2).
PR_SET_CHILD_SUBREAPER = 36


class Daemon:
    """Starts a worker and speaks the protocol with it."""

    def __init__(self, *words, kind=socket.SOCK_STREAM):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, kind)
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


class Launcher(Daemon):
    """Starts a parent, and has children forked from it, as taskd's launcher does."""

    def __init__(self, *words):
        # Whoever loses its parent below becomes a child of this process.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        super().__init__(*words, kind=socket.SOCK_SEQPACKET)
        self.last = 0

    def hears(self):
        packet = self.socket.recv(65536)
        if not packet:
            raise EOFError(self.process.stderr.read())
        return json.loads(packet)

    def order(self, slot="shop/0"):
        """Asks for a child; its daemon, which has not spoken yet."""
        self.last += 1
        ours, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        order = json.dumps({"op": "fork", "child": self.last, "slot": slot}).encode()
        socket.send_fds(self.socket, [order], [theirs.fileno(), out_end, err_end])
        for end in (out_end, err_end):
            os.close(end)
        theirs.close()
        return Forked(self.last, ours, out, err)

    def child(self, slot="shop/0"):
        child = self.order(slot)
        said = self.hears()
        assert (said["op"], said["child"]) == ("forked", child.number), said
        child.pid = said["pid"]
        self.socket.sendall(json.dumps({"op": "go", "child": child.number}).encode())
        assert self.hears() == {"op": "born", "child": child.number}
        return child


class Forked(Daemon):
    """The daemon of a child that was forked."""

    def __init__(self, number, sock, out, err):
        self.number, self.socket, self.pid = number, sock, None
        self.socket.settimeout(PATIENCE)
        self.process = self
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self.rest, self.heard = b"", []
        self.status = None

    def poll(self):
        return self.status

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self, _patience=None):
        """Only its parent can."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def waits(what, look):
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.01)
