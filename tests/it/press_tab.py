"""Presses keys in a real shell on a terminal of its own and prints the line that the shell has then.

Usage: press_tab.py bash|zsh SCRIPT KEYS   (KEYS are typed as they are; \\t is Tab)
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

shell, script, keys = sys.argv[1:]
# Ctrl-T shows the line; what is shown is told from what is echoed by its frame, which is never typed.
SETUP = {
    "bash": "PS1=; bind 'set bell-style none'; source '{script}'; "
    "bind -x '\"\\C-t\": printf \"<%s<%s>%s>\" \"<\" \"$READLINE_LINE\" \">\"'; printf 'rea%s\\n' dy\n",
    "zsh": "PS1=; unsetopt beep; autoload -Uz compinit; compinit -u -D; source '{script}'; "
    "show() {{ printf '<%s<%s>%s>' '<' \"$BUFFER\" '>' }}; zle -N show; bindkey '^T' show; printf 'rea%s\\n' dy\n",
}
ARGV = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}

pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(shell, ARGV[shell])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
seen = b""


def until(pattern):
    """Waits for what the shell prints."""
    global seen
    end = time.monotonic() + 60
    while True:
        found = re.search(pattern, seen, re.S)
        if found:
            return found
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit(f"no {pattern!r} in {seen!r}")
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            sys.exit(f"the shell ended: {seen!r}")


os.write(terminal, SETUP[shell].format(script=script).encode())
until(rb"ready")
seen = b""
os.write(terminal, keys.encode().decode("unicode_escape").encode() + b"\x14")
sys.stdout.buffer.write(until(rb"<<<(.*?)>>>").group(1) + b"\n")
os.kill(pid, 9)
