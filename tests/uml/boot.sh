#!/bin/bash
# Runs a command as root under a kernel of its own, User Mode Linux (Debian's 6.1 as an ordinary process), whose cgroup
# v2 has cpu, io, memory and pids: a container shares the host's kernel and cannot prove a limit there. The root file
# system is the host's own; /tmp, /run and /dev/shm are fresh. Up in 2 s; about 50 ms per process started inside.
#
#   tests/uml/boot.sh [-t SECONDS] [-m MEGABYTES] COMMAND [ARGUMENT…]
#
# The command runs in the current directory with the variables TASKD_TEST_* and RUST_*, in the control group
# /sys/fs/cgroup/taskd.service, delegated as systemd does with Delegate=yes, and with TASKD_TEST_CGROUP=1. Its output
# is this script's. Exit code: the command's; 124 out of time; 125 the kernel did not boot; 77 it is not to be had here.
set -u
limit=300 memory=1024
while getopts t:m: option; do
    case $option in
        t) limit=$OPTARG ;;
        m) memory=$OPTARG ;;
        *) exit 64 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 64; }

here=$(cd "$(dirname "$0")" && pwd)
home=${TASKD_UML_HOME:-$here/../../target/uml}
mkdir -p "$home" && home=$(cd "$home" && pwd)
kernel=$("$here/kernel.sh") || exit

run=$(mktemp -d "$home/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
export -p | grep -E '^declare -x (TASKD_TEST_|RUST_|PATH=|CYCLES=|SEED=)' >"$run/environment"
{ printf 'exec '; printf '%q ' "$@"; } >"$run/command"
cat >"$run/init" <<INIT
#!/bin/bash
mount -t proc proc /proc
mount -t sysfs sys /sys
for d in /run /tmp /var/tmp; do
    # A clone below one of them must stay in sight.
    case '$PWD/' in \$d/*) ;; *) mount -t tmpfs -o mode=1777 none \$d ;; esac
done
mkdir -p -m 1777 /run/tmp
[ -e /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs none /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up 2>/dev/null
echo '+cpu +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/taskd.service
. '$run/environment'
export TASKD_TEST_CGROUP=1 TMPDIR=/run/tmp
cd '$PWD' || exit
(echo 0 >/sys/fs/cgroup/taskd.service/cgroup.procs; . '$run/command') >'$run/output' 2>&1 </dev/null
echo \$? >'$run/code'
sync
echo o >/proc/sysrq-trigger
sleep 60
INIT
chmod +x "$run/init"
: >"$run/output"
# The pid namespace, where one can be had, takes along whatever the kernel leaves: its processes are ours.
hold=()
unshare --pid --fork --kill-child=KILL true 2>/dev/null && hold=(unshare --pid --fork --kill-child=KILL)
timeout -k 5 "$limit" "${hold[@]}" "$kernel" "mem=${memory}M" rootfstype=hostfs rootflags=/ rw con=null con0=null,fd:1 ssl=null \
    "uml_dir=$run" umid=uml quiet "init=$run/init" </dev/null >"$run/console" 2>&1
ended=$?
cat "$run/output"
[ -s "$run/code" ] && exit "$(cat "$run/code")"
echo "--- the console of the kernel:" >&2
tail -n 30 "$run/console" >&2
[ "$ended" = 124 ] || [ "$ended" = 137 ] && exit 124
exit 125
