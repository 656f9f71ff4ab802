#!/bin/bash
# An orderly reboot, then a power cut: what was accepted is there, what ran runs again, and the service came by itself.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

notes=/root/notes
as_before() {
    check "$1: the service came up by itself"
    within 30 ready
    is "$(systemctl is-active taskd.socket)" active 'the socket'
    check "$1: what waited, what was delayed, and what had ended is there"
    done_one='' waiting='' delayed='' running='' eta=''
    # shellcheck source=/dev/null
    . $notes
    is "$(of "$done_one" '[.state, .attempt] | map(tostring) | join(" ")')" 'SUCCESS 1' 'a message that had ended'
    is "$(taskd result "$done_one")" hello 'its result'
    is "$(taskd logs "$done_one")" hello 'its output'
    is "$(of "$delayed" .state)" SCHEDULED 'a delayed message'
    is "$(of "$delayed" .eta)" "$eta" 'when it is due'
    is "$(of "$waiting" .state)" WAITING 'a message of a paused queue'
    is "$(taskd queues --json | jq -r '.[] | select(.name == "later") | .paused')" true 'the queue is paused'
    check "$1: what ran runs again"
    id=$running
    within 30 in_state "$running" RUNNING
    is "$(of "$running" .attempt)" "$PHASE" 'the attempt'
    within 10 test -s "/tmp/held.$running.$PHASE"
    within 5 only_ours
}

case $PHASE in
    1)
        sed -i "s/^\\[taskd\\]\$/[taskd]\nshutdown_grace = \"2s\"/" $config
        configure <<'TOML'
[queues.later]
[tasks.hello]
command = "echo hello"
TOML
        configure < <(hold_task)
        check 'one message each that ended, waits, is delayed, runs'
        enqueue hello; done_one=$id
        within 20 in_state "$id" SUCCESS
        ends 0 taskd pause later
        enqueue hello --queue later; waiting=$id
        enqueue hello --in 1h; delayed=$id
        enqueue hold; running=$id
        within 20 test -s "/tmp/held.$id.1"
        printf '%s\n' "done_one=$done_one waiting=$waiting delayed=$delayed running=$running eta=$(of "$delayed" .eta)" >$notes
        # The notes and the config are this script's business; what taskd accepted is its own.
        sync $notes $config /root
        reboots orderly ;;
    2)
        as_before 'after an orderly reboot'
        is "$(of "$running" '[.retries, .losses] | map(tostring) | join(" ")')" '0 0' 'retries and losses'
        check 'accepted at the last moment before a power cut'
        for _ in 1 2 3 4 5; do enqueue hello --queue later; echo "$id"; done >/root/last
        sync /root/last
        enqueue hello --queue later
        # Through a channel that no power cut of the machine reaches.
        echo "$id" >>"$OUT/last"
        [ "$METHOD" != qemu ] || { echo "$id" >>/root/last; sync /root/last; }
        reboots hard ;;
    3)
        as_before 'after a power cut'
        check 'what had been accepted last is there'
        for id in $(cat /root/last "$OUT/last" 2>/dev/null); do is "$(of "$id" .state)" WAITING "message $id"; done
        check 'and all of it runs to its end'
        touch /tmp/go
        within 20 in_state "$running" SUCCESS
        ends 0 taskd resume later
        none_left() { [ "$(taskd list --state waiting,running,retry --json | jq length)" = 0 ] || { taskd list; return 1; }; }
        within 60 none_left
        is "$(taskd list --limit 1000 --json | jq -r 'map(select(.state == "SUCCESS")) | length')" 9 'messages that succeeded' ;;
esac
