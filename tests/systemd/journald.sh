#!/bin/bash
# journald restarted, and gone for a while, while tasks print: results and kept output are whole, and lines come again.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

configure <<'TOML'
[tasks.print]
command = 'i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo "line $i of $TASKD_ID"; echo >/tmp/line.$TASKD_ID.$i; sleep 0.02; done'
[tasks.flood]
command = 'seq -f "flood %g" 2000'
[tasks.hello]
command = "echo hello from $TASKD_ID"
TOML
main=$(launcher) old=$(daemon)
reaches() { test -e "/tmp/line.$id.$1"; }
whole() { # the message ended, and its kept output has every line
    within 30 in_state "$id" SUCCESS
    ends 0 taskd logs "$id"
    is "$(grep -v '^taskd: ' <<<"$said")" "$(seq -f "line %g of $id" 60)" 'the kept output'
    printed=$(grep '^taskd: ' <<<"$said")
}
arrives() {
    ends 0 taskd enqueue hello
    id=$said
    seen() { journalctl --sync && journalctl TASKD_ID="$id" -o cat --no-pager | grep -qx "hello from $id"; }
    within 20 seen
}

check 'journald is restarted while a task prints'
enqueue print
within 10 reaches 10
ends 0 systemctl restart systemd-journald
whole
arrives

check 'journald is stopped, with its sockets, while a task prints'
sockets='systemd-journald.socket systemd-journald-dev-log.socket'
[ "$(systemctl show -P LoadState systemd-journald-audit.socket)" = masked ] || sockets+=' systemd-journald-audit.socket'
enqueue print
within 10 reaches 10
# shellcheck disable=SC2086  # words
ends 0 systemctl stop $sockets systemd-journald
is "$(systemctl is-active systemd-journald)" inactive 'journald'
whole
has "$printed" '[0-9]+ bytes of output were dropped.*journal' 'what the journal did not take is counted'
is "$(of "$id" '.outcome.usage.dropped_output > 0')" true 'what the journal did not take is counted'
check 'tasks start, print much, and end while it is gone; taskd answers'
enqueue flood
within 30 in_state "$id" SUCCESS
is "$(taskd logs "$id" | grep -cE '^flood [0-9]+$')" 2000 'lines kept of a flood'
is "$(launcher) $(daemon)" "$main $old" 'launcher and daemon'

check 'when it is back, lines arrive again'
# shellcheck disable=SC2086  # words
ends 0 systemctl start $sockets systemd-journald
arrives
check 'nobody was restarted, and no message was lost'
is "$(launcher) $(daemon) $(property NRestarts)" "$main $old 0" 'launcher, daemon, restarts'
is "$(taskd list --json | jq -r 'map(select(.state != "SUCCESS")) | length')" 0 'messages that did not succeed'
