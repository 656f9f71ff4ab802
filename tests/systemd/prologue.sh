# shellcheck shell=bash
# What the scenarios share. Each runs as root inside a machine of boot.sh, says what it checks, and ends at the first
# thing that is not so, with what was seen instead.
set -u
unit=taskd.service config=/etc/taskd.toml group=/sys/fs/cgroup/system.slice/taskd.service
# How much slower than a container a machine may be.
case $METHOD in uml) slower=6 ;; qemu) slower=8 ;; *) slower=1 ;; esac
now_checked='the start'
never=$(mktemp -u) && mkfifo "$never"

check() { now_checked=$*; printf '%7.1f  %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }
fail() {
    printf 'FAILED: %s\n' "$now_checked"
    printf '%s\n' "$@" | sed 's/^/    /'
    { systemctl status --no-pager -l -n 30 $unit; systemctl --no-pager -l status taskd.socket; ps -eo pid,ppid,user,stat,args --forest; } 2>&1 |
        sed 's/^/    | /' >"$OUT/at-failure"
    exit 1
}
pause() { read -rt "$1" <>"$never" || :; }

# is SEEN WANTED WHAT
is() { [ "$1" = "$2" ] || fail "$3: wanted '$2', saw '$1'"; }
# has TEXT REGEX WHAT
has() { grep -Eq -- "$2" <<<"$1" || fail "$3: nothing like '$2' in:" "$1"; }
hasnt() { if grep -Eq -- "$2" <<<"$1"; then fail "$3: '$2' is in:" "$1"; fi; }
# A command that must end with this code; what it printed is in $said.
ends() { # ends CODE COMMAND…
    local wanted=$1 code=0
    shift
    said=$("$@" 2>&1) || code=$?
    [ "$code" = "$wanted" ] || fail "\`$*\` ended with $code, not $wanted, and said:" "$said"
}
# Waits until a command succeeds, or fails with what it printed last.
within() { # within SECONDS COMMAND…
    local bound=$(($1 * slower)) seen
    local late=$((SECONDS + bound))
    shift
    until seen=$("$@" 2>&1); do
        [ "$SECONDS" -lt "$late" ] || fail "not within $bound s: $*" "${seen:-}"
        pause 0.1
    done
}

# Ends this phase; the next one begins in the same script once the machine is up again.
reboots() { echo "$1" >"$OUT/again"; exit 0; }

property() { systemctl show -P "$1" "${2:-$unit}"; }
active() { [ "$(systemctl is-active $unit)" = active ]; }
ready() { active && taskd status >/dev/null; }
launcher() { property MainPID; }
daemon() { pgrep -P "$(launcher)" -f '^taskd: daemon'; }
# Appends to the config and makes it count.
configure() {
    cat >>$config
    ends 0 systemctl reload taskd
}

enqueue() { # the id in $id
    id=$(taskd enqueue "$@") || fail "\`taskd enqueue $*\` ended with $? and said: $id"
}
of() { # of ID .JQ
    taskd status "$1" --json | jq -r "$2"
}
in_state() { # in_state ID STATE
    local state
    state=$(of "$1" .state)
    [ "$state" = "$2" ] || { echo "$1 is $state, not $2"; return 1; }
}
# Nothing of taskd, of its user or of a task.
no_process() {
    local left
    left=$(pgrep -a -u taskd,taskd-run; pgrep -a -x taskd; [ ! -e $group ] || find $group -name cgroup.procs -exec cat {} +)
    [ -z "$left" ] || { echo "processes: $left"; return 1; }
}
# Every process of the unit, and of its users, comes from the launcher there is now.
only_ours() {
    local pid parent main
    main=$(launcher)
    for pid in $(pgrep -u taskd,taskd-run; find $group -name cgroup.procs -exec cat {} +); do
        parent=$pid
        while [ "$parent" != "$main" ]; do
            parent=$(sed -n 's/^PPid:\s*//p' "/proc/$parent/status" 2>/dev/null) || parent=''
            # It ended while it was looked at.
            [ -n "$parent" ] || break
            [ "$parent" -gt 1 ] || { echo "process $pid is none of $main: $(tr '\0' ' ' <"/proc/$pid/cmdline")"; return 1; }
        done
    done
}

# A task that says that it runs, with its own process id, and goes on until it is let go.
hold_task() {
    cat <<'TOML'
[tasks.hold]
command = 'echo begin; echo $$ >/tmp/held.$TASKD_ID.$TASKD_ATTEMPT; until [ -e /tmp/go ]; do sleep 0.1; done; echo done'
TOML
}
held() { # held ID ATTEMPT: the process of that attempt
    cat "/tmp/held.$1.$2"
}
