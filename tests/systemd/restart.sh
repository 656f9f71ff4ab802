#!/bin/bash
# systemctl restart under load: nobody who enqueues notices, and every message ends once. Then stop, and start by socket.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

sed -i 's/^\[taskd\]$/&\nshutdown_grace = "2s"/; s/^\[pools.default\]$/&\nprocesses = 4/' $config
configure <<'TOML'
[tasks.quick]
command = 'sleep 0.01; echo $TASKD_ID >>/tmp/ran'
TOML
install -m 666 /dev/null /tmp/ran
configure < <(hold_task)
enqueue hold
long=$id
within 10 test -e "/tmp/held.$long.1"

check 'restarts while four clients enqueue and tasks run'
feed() {
    while [ ! -e /tmp/enough ]; do
        taskd enqueue quick >>"/tmp/ids.$1" 2>>/tmp/refused || echo "exit code $?" >>/tmp/refused
        pause 0.05
    done
}
feeders=()
for n in 1 2 3 4; do
    feed $n &
    feeders+=($!)
done
accepted() { [ "$(cat /tmp/ids.* 2>/dev/null | wc -l)" -ge "$1" ] || { cat /tmp/refused; return 1; }; }
for n in 1 2 3; do
    within 20 accepted $(($(cat /tmp/ids.* 2>/dev/null | wc -l) + 20))
    before=$(launcher)
    ends 0 systemctl restart taskd
    [ "$(launcher)" != "$before" ] || fail "restart $n: still process $before"
done
within 20 accepted $(($(cat /tmp/ids.* | wc -l) + 20))
touch /tmp/enough
wait "${feeders[@]}"
is "$(cat /tmp/refused)" '' 'refusals'

check 'nothing is lost: each accepted message ended, and in one way'
sort /tmp/ids.* >/tmp/accepted
is "$(sort -u /tmp/accepted | wc -l)" "$(wc -l </tmp/accepted)" 'different ids'
settled() {
    taskd list --task quick --limit 10000 --json >/tmp/list.json
    [ "$(jq -r 'map(select(.state == "SUCCESS")) | length' /tmp/list.json)" = "$(wc -l </tmp/accepted)" ] ||
        { jq -r 'group_by(.state)[] | "\(.[0].state) \(length)"' /tmp/list.json; return 1; }
}
within 60 settled
is "$(jq -r '.[].id' /tmp/list.json | sort | diff - /tmp/accepted)" '' 'accepted and ended'
is "$(sort -u /tmp/ran | diff - /tmp/accepted)" '' 'accepted and run'
echo "         $(wc -l </tmp/accepted) messages"

check 'what did not end within shutdown_grace went back and runs again, without costing a retry'
within 20 in_state "$long" RUNNING
touch /tmp/go
within 20 in_state "$long" SUCCESS
is "$(of "$long" '[.attempt, .retries, .losses] | map(tostring) | join(" ")')" '4 0 0' 'attempt, retries, losses'
rm /tmp/go

check 'systemctl stop taskd.socket taskd really stops'
enqueue hold
within 20 in_state "$id" RUNNING
ends 0 systemctl stop taskd.socket taskd
within 5 no_process
is "$(property Result) $(property ActiveState)" 'success inactive' 'the unit'
ends 69 taskd enqueue quick
has "$said" 'not running' 'enqueue without taskd'
# Neither it nor the socket comes back by itself.
ends 69 taskd status
is "$(systemctl is-active taskd.service taskd.socket | sort -u)" inactive 'the units'

check 'the socket brings the service along, so what is due runs without a client'
touch /tmp/go
ends 0 systemctl start taskd.socket
within 20 active
within 20 in_state "$id" SUCCESS

check 'with the service stopped alone, enqueue starts it'
systemctl stop taskd.service 2>/dev/null
is "$(systemctl is-active taskd.service)" inactive 'the service'
ends 0 taskd enqueue quick --wait
active || fail "the service is $(systemctl is-active taskd.service)"
