#!/bin/bash
# Inside the kernel of boot.sh: the real taskd in a delegated group keeps the limits of real tasks, says why it ended
# them, measures them, and leaves nothing behind. Usage: limits.sh TASKD
set -u
taskd=$(realpath "$1")
dir=$(mktemp -d)
group=/sys/fs/cgroup/taskd.service
export TASKD_SOCKET=$dir/sock
cat >"$dir/t.toml" <<TOML
[taskd]
state_dir = "$dir/state"
socket = "$dir/sock"
[pools.default]
processes = 2
[tasks.hog]
command = 'head -c 200M /dev/zero | tail -c 200M | wc -c'
memory_max = "64M"
[tasks.more]
command = 'head -c 60M /dev/zero | tail -c 60M | wc -c'
memory_max = "32M"
on_memory = { memory_max = "4x", max = 1 }
[tasks.bomb]
command = 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait'
tasks_max = 8
time_limit = "60s"
[tasks.leaver]
command = 'setsid sh -c "trap \\"\\" TERM; sleep 77; sleep 77" >/dev/null 2>&1 & nohup sleep 77 >/dev/null 2>&1 & echo left'
TOML
failed=0
fail() { echo "limits: $*" >&2; failed=1; }
# The launcher wants its group for itself; this shell goes elsewhere.
mkdir /sys/fs/cgroup/other && echo $$ >/sys/fs/cgroup/other/cgroup.procs
# As the unit has it.
bash -c "umask 0077; echo \$\$ >$group/cgroup.procs; exec $taskd run --config $dir/t.toml" >"$dir/log" 2>&1 &
launcher=$!
for _ in $(seq 200); do "$taskd" status >"$dir/status" 2>/dev/null && break; sleep 0.1; done
grep -q 'control groups (v2)' "$dir/status" || fail "no control groups in force: $(cat "$dir/status" "$dir/log")"
run() { "$taskd" enqueue "$1" --wait >"$dir/out" 2>&1; echo $? >"$dir/code"; }
said() { grep -q "$1" "$dir/out" || fail "$2: $(cat "$dir/out")"; }
run hog && said 'memory_max of 64 MiB: killed by the kernel' 'a task beyond memory_max'
run more && said 62914560 'a task that gets four times as much by on_memory'
run bomb && said 'FAILURE' 'a task beyond tasks_max'
run leaver && said left 'a task that leaves processes behind'
pgrep -f 'sleep 7[7]' >/dev/null && fail "processes were left: $(pgrep -af 'sleep 7[7]')"
leaves=$(find $group/slots -name 'a[0-9]*' | wc -l)
[ "$leaves" = 0 ] || fail "$leaves groups of attempts were left"
kill $launcher && wait $launcher || fail "the launcher ended with $?: $(cat "$dir/log")"
[ -d $group/slots ] && fail 'groups of slots were left'
[ $failed = 0 ] && echo 'limits: kept by the kernel, told, measured, cleaned up'
exit $failed
