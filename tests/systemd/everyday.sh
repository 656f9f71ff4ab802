#!/bin/bash
# The first day with taskd: installed, configured, used, looked at, by root and by others.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

check 'apt enabled and started the service and its socket'
is "$(systemctl is-enabled taskd.service taskd.socket | sort -u)" enabled 'units'
is "$(systemctl is-active taskd.service taskd.socket | sort -u)" active 'units'
is "$(property Type) $(property SubState)" 'notify running' 'the service said READY'
is "$(stat -c '%U:%G %a' $config)" 'root:taskd 640' 'the config'
is "$(stat -c '%U %a' /var/lib/taskd)" 'taskd 700' 'the state directory'
is "$(runuser -u taskd-run -- cat $config 2>&1 | grep -c 'Permission denied')" 1 'tasks cannot read the config'

check 'as shipped it declares and runs nothing'
is "$(taskd tasks --json | jq length)" 0 'declared tasks'
is "$(taskd list --json | jq length)" 0 'messages'
ends 0 taskd check

check 'edit, reload, enqueue'
mkdir -p /var/log/shop && touch -d '10 days ago' /var/log/shop/old.log && touch /var/log/shop/new.log && chown -R taskd-run /var/log/shop
configure <<'TOML'
[tasks.clean_logs]
command = "find /var/log/shop -name '*.log' -mtime +7 -print -delete"
[tasks.talk]
command = 'echo plain; echo "<3>grave"; echo aside >&2; echo "<7>detail" >&2; exit 3'
TOML
configure < <(hold_task)
ends 0 taskd enqueue clean_logs --wait
is "$said" /var/log/shop/old.log 'what the task printed'
is "$(ls /var/log/shop)" new.log 'what the task left'

check 'journalctl -u taskd, journalctl TASKD_TASK=clean_logs'
journalctl --sync
has "$(journalctl -u taskd -o cat --no-pager)" '^/var/log/shop/old.log$' 'journalctl -u taskd'
has "$(journalctl TASKD_TASK=clean_logs -o verbose --no-pager)" 'TASKD_QUEUE=default' 'journalctl -o verbose'

check 'every field of a line and of an event is in the journal'
id=$(taskd enqueue talk)
within 10 in_state "$id" FAILURE
journalctl --sync
entries=$(journalctl TASKD_ID="$id" -o json --no-pager | jq -cs 'sort_by(.__REALTIME_TIMESTAMP)')
line() { jq -c --arg m "$1" '[.[] | select(.TASKD_STREAM and .MESSAGE == $m)]' <<<"$entries"; }
one() { # one MESSAGE STREAM PRIORITY
    local found
    found=$(line "$1")
    is "$(jq length <<<"$found")" 1 "entries '$1' in $(jq -c 'map(.MESSAGE)' <<<"$entries")"
    is "$(jq -r '.[0] | [.TASKD_STREAM, .PRIORITY, .TASKD_ID, .TASKD_TASK, .TASKD_QUEUE, .TASKD_ATTEMPT, .SYSLOG_IDENTIFIER, ._SYSTEMD_UNIT] | join(" ")' <<<"$found")" \
        "$2 $3 $id talk default 1 taskd taskd.service" "the fields of '$1'"
    has "$(jq -r '.[0].TASKD_PID' <<<"$found")" '^[0-9]+$' "TASKD_PID of '$1'"
}
one plain stdout 6
one grave stdout 3
one aside stderr 4
one detail stderr 7
events=$(jq -c '[.[] | select(.MESSAGE_ID)]' <<<"$entries")
is "$(jq 'map(.MESSAGE_ID) | unique | length' <<<"$events")" 3 "events (received, started, failed) in $(jq -c 'map(.MESSAGE)' <<<"$events")"
is "$(jq -c 'map(.TASKD_TASK + " " + .TASKD_QUEUE + " " + .TASKD_ID) | unique' <<<"$events")" "[\"talk default $id\"]" 'the fields of events'
has "$(jq -r '.[-1] | [.TASKD_ATTEMPT, .TASKD_CAUSE, .TASKD_EXIT, .TASKD_STATE] | join(" ")' <<<"$events")" '^1 exit 3 FAILURE$' 'the event of the end'

check 'systemctl status is readable: a STATUS line and a process tree'
enqueue hold
within 10 test -e "/tmp/held.$id.1"
# A drawn status line may be a moment old.
readable() {
    systemctl status taskd --no-pager -l >"$OUT/systemctl-status"
    grep -Eq 'Status: ".*1 of [0-9]+ slots busy' "$OUT/systemctl-status" || { cat "$OUT/systemctl-status"; return 1; }
}
within 10 readable
shown=$(cat "$OUT/systemctl-status")
has "$shown" '[├└]─ *[0-9]+ "?taskd: launcher' 'the launcher'
has "$shown" '[├└]─ *[0-9]+ "?taskd: daemon' 'the daemon'
has "$shown" '[├└]─ *[0-9]+ "?taskd: runner default/0' 'a runner'
has "$shown" '[├└]─ *[0-9]+ .*/tmp/held' 'the task itself'
is "$(stat -c %U "/proc/$(held "$id" 1)")" taskd-run 'who the task runs as'
is "$(stat -c %U "/proc/$(daemon)/environ")" root 'the daemon is not dumpable: root owns what the kernel tells of it'
is "$(ps -o user= -p "$(daemon)")" taskd 'who the daemon runs as'
touch /tmp/go
within 10 in_state "$id" SUCCESS

check 'a member of taskd-users may enqueue and read, without any right to the journal'
useradd -m -G taskd-users alice
useradd -m bob
ends 0 runuser -u alice -- taskd enqueue clean_logs
mine=$said
within 10 in_state "$mine" SUCCESS
ends 0 runuser -u alice -- taskd logs "$id"
is "$said" "$(printf 'begin\ndone')" 'taskd logs of a message of root'
hasnt "$(runuser -u alice -- journalctl -u taskd -o cat --no-pager 2>&1)" 'old.log' 'alice cannot read the journal'
ends 77 runuser -u alice -- taskd pause default
check 'anybody else may not'
ends 77 runuser -u bob -- taskd enqueue clean_logs
ends 77 runuser -u bob -- taskd logs "$id"
ends 77 runuser -u bob -- taskd list

check 'bash offers what the running daemon knows'
completes() { # completes WORD…: what a key press after them offers
    env -i HOME=/root PATH="$PATH" bash -c '
        . /usr/share/bash-completion/completions/taskd
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9 COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE}
        _taskd
        printf "%s\n" "${COMPREPLY[@]}"' - "$@" | sed 's/ *$//'
}
is "$(completes taskd enqueue '' | grep -v ^- | sort | paste -sd' ')" 'clean_logs hold talk' 'names of tasks'
is "$(completes taskd enqueue cl)" clean_logs 'one of them'
has "$(completes taskd logs "${id:0:4}")" "$id" 'ids of messages'
has "$(completes taskd pause '')" '^default$' 'names of queues'

check 'the manual is where man looks for it'
for page in man1/taskd.1 man5/taskd.toml.5 man7/taskd-worker.7; do
    has "$(zcat "/usr/share/man/$page.gz" 2>&1 | head -n 2)" "^\.TH TASKD[^ ]* ${page:3:1} " "$page"
done

check 'root backs up into a directory of root, though the daemon is nobody in particular'
mkdir -p /var/backups
chmod 755 /var/backups
ends 0 taskd store backup /var/backups/taskd.db
is "$(stat -c '%a' /var/backups/taskd.db)" 600 'the backup'
is "$(head -c 15 /var/backups/taskd.db)" 'SQLite format 3' 'the backup'
ends 0 taskd store verify
ends 77 runuser -u alice -- taskd store backup /home/alice/taskd.db
[ ! -e /home/alice/taskd.db ] || fail 'a refused backup left a file'

check 'the smoke test of the Debian package'
ends 0 sh -eu /test/in/smoke
[ ! -e /etc/taskd.d/smoke.toml ] || fail 'it left its config'

check 'what systemd says of the unit'
# There is no man(1) here; its pages were looked at above, and these are among them.
is "$(systemctl show -P Documentation taskd.service taskd.socket | tr -d '"' | grep . | sort -u)" 'man:taskd(1) man:taskd.toml(5)' 'its documentation'
is "$(systemd-analyze verify --man=no /lib/systemd/system/taskd.service /lib/systemd/system/taskd.socket 2>&1)" '' 'systemd-analyze verify'
is "$(property NRestarts)" 0 'restarts'
hasnt "$(journalctl -u taskd -p err -o cat --no-pager | grep -vx grave)" . 'errors in the journal'
