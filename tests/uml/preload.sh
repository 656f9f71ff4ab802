#!/bin/bash
# Inside the kernel of boot.sh: children that are forked from one process that loaded a Celery app are in control groups
# of their own, with the limits of their pool, and what their parent leaves is gone at the end. Usage: preload.sh TASKD
set -u
taskd=$(realpath "$1")
python=$(dirname "$(dirname "$taskd")")/venv-celery/bin/python
[ -x "$python" ] || { echo "preload: no Celery: run tests/needs.sh test" >&2; exit 1; }
dir=$(mktemp -d)
group=/sys/fs/cgroup/taskd.service
export TASKD_SOCKET=$dir/sock
cat >"$dir/app.py" <<'PY'
from celery import Celery
app = Celery("app", broker="redis://127.0.0.1:1/0", backend="file:///nonexistent")
loaded = bytearray(20 << 20)
@app.task
def where():
    import os
    with open("where", "w") as told:
        told.write(f"{os.getpid()} {open('/proc/self/cgroup').read().strip().rpartition(':')[2]}\n")
@app.task
def hog(size):
    return len(bytearray(b"x") * (size << 20))
PY
cat >"$dir/t.toml" <<TOML
[taskd]
state_dir = "$dir/state"
socket = "$dir/sock"
[pools.app]
processes = 2
celery_app = "app:app"
preload = true
python = "$python"
working_directory = "$dir"
memory_max = "96M"
[queues.app]
pool = "app"
[tasks."app.*"]
queue = "app"
TOML
failed=0
fail() { echo "preload: $*" >&2; failed=1; }
mkdir /sys/fs/cgroup/other && echo $$ >/sys/fs/cgroup/other/cgroup.procs
bash -c "umask 0077; echo \$\$ >$group/cgroup.procs; exec $taskd run --config $dir/t.toml" >"$dir/log" 2>&1 &
launcher=$!
for _ in $(seq 200); do "$taskd" status >"$dir/status" 2>/dev/null && break; sleep 0.1; done
run() { "$taskd" enqueue "$@" --wait >"$dir/out" 2>&1; echo $? >"$dir/code"; }
ends() { run "${@:2}"; [ "$(cat "$dir/code")" = "$1" ] || fail "${*:2}: $(cat "$dir/out" "$dir/log")"; }
ends 0 app.where
read -r pid here <"$dir/where"
case $here in /taskd.service/slots/app-[01].*) ;; *) fail "a forked child is in the group $here" ;; esac
[ "$(cat "/sys/fs/cgroup$here/cgroup.procs")" = "$pid" ] || fail "it is not alone in its group"
limits=$(cat "/sys/fs/cgroup$here/memory.max" "/sys/fs/cgroup$here/../memory.max")
case $limits in *100663296*) ;; *) fail "its group has no limit: $limits" ;; esac
ends 0 app.hog size:=50
run app.hog size:=300
grep -q 'ran out of memory' "$dir/out" || fail "a task beyond memory_max: $(cat "$dir/out")"
ends 0 app.hog size:=50
kill $launcher && wait $launcher || fail "the launcher ended with $?: $(cat "$dir/log")"
[ -d $group/slots ] && fail "groups were left: $(find $group/slots -type d)"
pgrep -f 'celery[ ]app:app' >/dev/null && fail "processes were left: $(pgrep -af 'celery[ ]app:app')"
[ $failed = 0 ] && echo 'preload: forked children are limited, each by itself'
exit $failed
