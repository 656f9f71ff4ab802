#!/bin/bash
# Figures of the installed package in a booted system: how long `systemctl start` takes to READY with 1,000 waiting
# messages, and `taskd enqueue` as a process. Beside each, in the same rounds, what systemd and a process cost alone.
#
#   tests/systemd/boot.sh --deb target/package/taskd_*.deb --file tests/systemd/prologue.sh --script benches/booted.sh
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

rounds=15
now() { echo "${EPOCHREALTIME/[.,]/}"; }
# median NUMBER…: microseconds in, milliseconds out.
median() { printf '%s\n' "$@" | sort -n | awk '{ all[NR] = $1 } END { printf "%.1f", all[int((NR + 1) / 2)] / 1000 }'; }
# timed COMMAND…: its microseconds in $took.
timed() {
    local begun
    begun=$(now)
    "$@" >/dev/null || fail "$* ended with $?"
    took=$(($(now) - begun))
}
# verdict WHAT OURS BASELINE NAME LIMIT
verdict() {
    local word=holds
    awk "BEGIN { exit !($2 < $5) }" || { word=MISSED missed=1; }
    echo "$1: $2 ms beside $3 ms ($4); below $5 ms: $word"
}
missed=0

configure <<'TOML'
[tasks.true]
exec = ["/bin/true"]
TOML
ends 0 taskd pause default
for _ in $(seq 1000); do echo '{"task":"true"}'; done | taskd enqueue --batch - >/dev/null || fail 'enqueue --batch'
is "$(taskd queues --json | jq '.[0].waiting')" 1000 'waiting messages'

# What systemd takes for a service that is ready as soon as its program is.
cat >/run/systemd/system/bare.service <<'UNIT'
[Service]
Type=exec
ExecStart=/bin/sleep infinity
UNIT
mkdir -p /run/systemd/system/taskd.service.d
printf '[Unit]\nStartLimitIntervalSec=0\n' >/run/systemd/system/taskd.service.d/often.conf
systemctl daemon-reload

ours=() theirs=()
for _ in $(seq $rounds); do
    systemctl stop taskd bare 2>/dev/null
    timed systemctl start bare && theirs+=("$took")
    timed systemctl start taskd && ours+=("$took")
done
is "$(taskd queues --json | jq '.[0].waiting')" 1000 'waiting messages after the restarts'
verdict 'systemctl start to READY, 1,000 messages waiting' "$(median "${ours[@]}")" "$(median "${theirs[@]}")" 'a Type=exec sleep' 150

ours=() theirs=()
for _ in $(seq 200); do
    timed /bin/true && theirs+=("$took")
    timed taskd enqueue true && ours+=("$took")
done
verdict 'taskd enqueue, a process' "$(median "${ours[@]}")" "$(median "${theirs[@]}")" '/bin/true, a process' 6
exit $missed
