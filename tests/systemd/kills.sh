#!/bin/bash
# The daemon and the launcher, stopped and killed: somebody notices, and no task is lost or left over.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

watchdog=$((4 * slower))
mkdir -p /etc/systemd/system/taskd.service.d
printf '[Service]\nWatchdogSec=%s\nStartLimitIntervalSec=0\n' "$watchdog" >/etc/systemd/system/taskd.service.d/test.conf
sed -i '/^StartLimit/d' /etc/systemd/system/taskd.service.d/test.conf
printf '[Unit]\nStartLimitIntervalSec=0\n' >>/etc/systemd/system/taskd.service.d/test.conf
systemctl daemon-reload
configure < <(hold_task)
ends 0 systemctl restart taskd
is "$(property WatchdogUSec)" "${watchdog}s" 'the watchdog'

runs() { # runs ATTEMPT: a held task, as that attempt
    within 20 test -s "/tmp/held.$id.$1"
    within 10 in_state "$id" RUNNING
}
replaced() { # by another daemon of the same launcher
    local now
    now=$(daemon) || { echo 'no daemon'; return 1; }
    [ "$now" != "$old" ] && ! [ -e "/proc/$old" ] && taskd status >/dev/null
}
restarted() { # the unit, by systemd
    [ "$(property NRestarts)" = "$1" ] && [ "$(launcher)" != "$old" ] && ! [ -e "/proc/$old" ] && ready
}

for signal in STOP KILL; do
    check "SIG$signal to the daemon: the launcher replaces it, and what runs does not notice"
    rm -f /tmp/go
    enqueue hold
    runs 1
    main=$(launcher) old=$(daemon) process=$(held "$id" 1)
    kill -$signal "$old"
    within $((watchdog + 10)) replaced
    is "$(launcher) $(property NRestarts)" "$main 0" 'the unit'
    within 10 in_state "$id" RUNNING
    [ -e "/proc/$process" ] || fail "process $process of the task is gone"
    touch /tmp/go
    within 10 in_state "$id" SUCCESS
    is "$(of "$id" .attempt)" 1 'attempts'
    ends 0 taskd logs "$id"
    is "$said" "$(printf 'begin\ndone')" 'its output'
    within 5 only_ours
done

count=0
for signal in KILL STOP; do
    check "SIG$signal to the launcher: systemd restarts the unit, and what ran runs again"
    rm -f /tmp/go
    enqueue hold
    runs 1
    enqueue hold --in 1h
    later=$id
    id=$(taskd list --state running --json | jq -r '.[0].id')
    old=$(launcher) process=$(held "$id" 1) count=$((count + 1))
    kill -$signal "$old"
    within $((watchdog + 20)) restarted $count
    runs 2
    [ ! -e "/proc/$process" ] || fail "process $process of attempt 1 is still there: $(tr '\0' ' ' <"/proc/$process/cmdline")"
    in_state "$later" SCHEDULED >/dev/null || fail "the delayed message is $(of "$later" .state)"
    touch /tmp/go
    within 10 in_state "$id" SUCCESS
    is "$(of "$id" .attempt)" 2 'attempts'
    within 5 only_ours
done
journalctl --sync
has "$(journalctl -u taskd -o cat --no-pager)" 'watchdog' 'the journal says that the watchdog struck'

check 'what was delayed meanwhile is still there, and nothing else'
is "$(taskd list --json | jq -r 'map(.state) | group_by(.) | map("\(length) \(.[0])") | join(", ")')" '2 SCHEDULED, 4 SUCCESS' 'messages'
