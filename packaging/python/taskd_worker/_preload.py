"""A parent: loads a Celery app once and forks a child of taskd's from itself whenever it is asked to.

What was loaded is then shared by all children: the kernel copies a page only when one of them writes to it. The parent
forks twice, so that the new process becomes a child of taskd's launcher, which limits, kills and reaps it as every other
one. It begins only when a daemon speaks to it, which no daemon does before that.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from typing import Any, Dict, List, Optional, Tuple

#: prctl(2): the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


class Parent:
    def __init__(self, sock: socket.socket, host: Any) -> None:
        sock.setblocking(True)
        self.sock = sock
        self.host = host
        self.launcher = os.getppid()
        #: Of each child on its way: the process between, and the pipe whose end lets that go.
        self.between: Dict[int, Tuple[int, int]] = {}
        self.told_ready = False
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl

    def say(self, **said: Any) -> None:
        self.sock.sendall(json.dumps(said).encode())

    def children(self) -> Optional[socket.socket]:
        """Serve; in each child return its socket, in the parent nothing once taskd needs it no longer."""
        signal.signal(signal.SIGTERM, lambda *_: self.leave())
        rest = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
        if rest:
            # As under `celery worker`: a fork takes only the thread that forks.
            print(f"threads that the app started while it was loaded do not live on in its children: {', '.join(rest)}")
        self.quiet()
        freeze()
        self.say(op="ready")
        while True:
            try:
                packet, fds, _flags, _from = socket.recv_fds(self.sock, 65_536, 3)
            except OSError:
                packet, fds = b"", []
            if not packet:
                return None
            said = json.loads(packet)
            child = int(said["child"])
            if said["op"] == "fork":
                sock = self.fork(child, str(said["slot"]), fds)
                if sock is not None:
                    return sock
            elif child in self.between:
                self.let_go(child)

    def leave(self) -> None:
        """SIGTERM: as the end of the socket, which wakes whoever reads it."""
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def quiet(self) -> None:
        """What was printed so far is taskd's to tell; from now on nobody reads it."""
        sys.stdout.flush()
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def fork(self, child: int, slot: str, fds: List[int]) -> Optional[socket.socket]:
        """Fork a child, which waits. There its socket is returned, here nothing."""
        told, tells = os.pipe()
        held, holds = os.pipe()
        with warnings.catch_warnings():
            # That there are other threads was said above, where there are.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                between = os.fork()
            except OSError as error:
                for fd in (told, tells, held, holds, *fds):
                    os.close(fd)
                self.failed(child, error)
                return None
            if between == 0:
                return self.between_both(slot, fds, tells, held, (told, holds))
        for fd in (tells, held, *fds):
            os.close(fd)
        with os.fdopen(told, "rb") as pipe:
            pid = pipe.read()
        if not pid.isdigit():
            os.close(holds)
            os.waitpid(between, 0)
            self.failed(child, OSError(int(pid[1:] or errno.EAGAIN), "fork"))
            return None
        self.between[child] = (between, holds)
        self.say(op="forked", child=child, pid=int(pid))
        return None

    def failed(self, child: int, error: OSError) -> None:
        again = error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
        self.say(op="failed", child=child, why=os.strerror(error.errno or errno.EAGAIN), again=again)

    def between_both(self, slot: str, fds: List[int], tells: int, held: int, theirs: Tuple[int, int]) -> socket.socket:
        """The process between: forks the child, says its number, and ends when it is told to. Returns in the child."""
        try:
            # Another one's pipe that is open here too would not end with the parent's.
            for fd in (*theirs, *(pipe for _, pipe in self.between.values())):
                os.close(fd)
            try:
                pid = os.fork()
            except OSError as error:
                os.write(tells, f"-{error.errno}".encode())
                os._exit(1)
            if pid != 0:
                os.write(tells, str(pid).encode())
                os.close(tells)
                os.read(held, 1)
                os._exit(0)
            os.close(tells)
            os.close(held)
            return self.begin(slot, fds)
        except BaseException:  # noqa: B902 - whatever it is, this process is not to go on as its parent
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def let_go(self, child: int) -> None:
        between, holds = self.between.pop(child)
        os.close(holds)
        os.waitpid(between, 0)
        self.say(op="born", child=child)
        if not self.told_ready:
            # Now, as under `celery worker`: what its handlers start is not to be there when the first child is forked.
            self.told_ready = True
            self.host.ready()

    def begin(self, slot: str, fds: List[int]) -> socket.socket:
        """The child becomes what one that was not forked is when it has loaded the app."""
        mine, out, err = fds
        os.setsid()
        # Its socket has the number that it would have without a parent, that of the parent's, which is closed by this.
        place = self.sock.detach()
        for fd, to in ((mine, place), (out, 1), (err, 2)):
            os.dup2(fd, to, inheritable=to != place)
            os.close(fd)
        os.environ["TASKD_SLOT"] = slot
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sock = socket.socket(fileno=place)
        # A daemon speaks first, and only to one whose parent is the launcher by now.
        if not sock.recv(1, socket.MSG_PEEK):
            os._exit(0)
        self.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != self.launcher:
            os._exit(1)
        gc.enable()
        forked()
        return sock


def freeze() -> None:
    """What is there stays: a collection in a child is not to write into every page that it shares."""
    gc.collect()
    gc.freeze()


def disconnect(app: Any) -> None:
    """Close what the app opened while it was loaded: no connection may have two ends in as many processes."""
    from kombu import pools

    for pool in ("_pool", "_producer_pool"):
        found = app.__dict__.get(pool)
        if found is not None:
            found.force_close_all()
    pools.reset()
    amqp = app.__dict__.get("amqp")
    if amqp is not None:
        amqp._producer_pool = None
    django = sys.modules.get("django.db")
    if django is not None:
        try:
            django.connections.close_all()  # type: ignore[attr-defined]
        except Exception as error:
            print(f"closing Django's connections failed: {error}")


def forked() -> None:
    """What multiprocessing's and billiard's own children do first: Celery and kombu have their pools forgotten there."""
    import multiprocessing.util

    multiprocessing.util._run_after_forkers()  # type: ignore[attr-defined]
    try:
        from billiard import util
    except ImportError:
        return
    util._run_after_forkers()
