#!/bin/bash
# Limits that only a kernel with control groups keeps, under the shipped unit. For uml and qemu: in a container without
# them this fails, because a skipped proof is none.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

check 'the unit has control groups of its own'
for controller in cpu io memory pids; do
    has "$(cat /sys/fs/cgroup/cgroup.controllers)" "\b$controller\b" 'the controllers of this machine'
done
is "$(property Delegate)" yes 'Delegate='
has "$(taskd status)" 'control groups \(v2\)' 'taskd status'
configure <<'TOML'
[tasks.leak]
command = 'head -c 300M /dev/zero | tail -c 300M | wc -c'
memory_max = "64M"
[tasks.more]
command = 'head -c 60M /dev/zero | tail -c 60M | wc -c'
memory_max = "32M"
on_memory = { memory_max = "4x", max = 1 }
[tasks.crowd]
command = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait'
tasks_max = 8
time_limit = "120s"
[tasks.busy]
command = 'while [ ! -e /tmp/quota-seen ]; do :; done'
cpu_quota = "20%"
[tasks.leaver]
command = 'setsid sh -c "trap \"\" TERM; sleep 77; sleep 77" >/dev/null 2>&1 & nohup sleep 77 >/dev/null 2>&1 & echo left'
TOML
configure < <(hold_task)
main=$(launcher) old=$(daemon)

check 'the tree of groups: launcher and daemon, a group for each child, a leaf for each attempt'
enqueue hold
within 20 test -e "/tmp/held.$id.1"
of_process() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
top=/system.slice/taskd.service
is "$(of_process "$main")" $top/supervisor 'the launcher'
is "$(of_process "$old")" $top/supervisor 'the daemon'
has "$(of_process "$(pgrep -o -f '^taskd: runner default/0')")" "^$top/slots/default-0\.[0-9]+/main$" 'a runner'
has "$(of_process "$(held "$id" 1)")" "^$top/slots/default-[0-9]+\.[0-9]+/[^/]+$" 'an attempt'
hasnt "$(of_process "$(held "$id" 1)")" '/main$' 'an attempt'
is "$(cat /sys/fs/cgroup$top/cgroup.procs)" '' 'processes directly in the group of the unit'
touch /tmp/go
within 20 in_state "$id" SUCCESS

check 'memory_max: the kernel ends a leak, and the result says why'
ends 137 taskd enqueue leak --wait
has "$said" 'memory \(memory_max of 64 MiB: killed by the kernel' 'the client'
is "$(taskd list --task leak --json | jq -r '.[0] | .state + " " + .outcome.cause.kind')" 'FAILURE memory' 'the message'
journalctl --sync
is "$(journalctl TASKD_TASK=leak TASKD_CAUSE=memory -o json --no-pager | jq -s length)" 1 'entries with TASKD_CAUSE=memory'
check 'on_memory: once more with four times as much'
ends 0 taskd enqueue more --wait
has "$said" '^62914560$' 'its output'

check 'tasks_max: no more processes than that'
taskd enqueue crowd --wait >/tmp/crowd 2>&1 || :
has "$(cat /tmp/crowd)" 'FAILURE|[Ff]ork|Resource temporarily unavailable' 'the client'
is "$(taskd list --task crowd --json | jq -r '.[0].state')" FAILURE 'the message'

check 'cpu_quota: a fifth of a processor'
enqueue busy
within 20 in_state "$id" RUNNING
leaf() { find $group/slots -mindepth 2 -maxdepth 2 -name 'a*' -not -name main | head -n 1; }
within 10 test -n "$(leaf)"
is "$(cat "$(leaf)/cpu.max")" '20000 100000' 'cpu.max'
throttled() { [ "$(sed -n 's/^nr_throttled //p' "$(leaf)/cpu.stat")" -ge 5 ]; }
within 20 throttled
touch /tmp/quota-seen
within 20 in_state "$id" SUCCESS

check 'what leaves its session and ignores signals is ended with its attempt'
ends 0 taskd enqueue leaver --wait
is "$(pgrep -af 'sleep 7[7]')" '' 'processes that were left'

check 'the daemon and the launcher survived all of it, and no leaf is left'
is "$(launcher) $(daemon) $(property NRestarts)" "$main $old 0" 'launcher, daemon, restarts'
within 5 test -z "$(leaf)"
within 5 only_ours

check 'a stop leaves no group and no process'
ends 0 systemctl stop taskd.socket taskd
within 5 no_process
[ ! -e $group ] || fail "$group is still there: $(find $group)"
