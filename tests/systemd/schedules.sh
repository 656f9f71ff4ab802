#!/bin/bash
# Schedules over a power cut and a reboot, an hour long each: no planned time fires twice, what was missed is caught up as
# declared, a pause stays. The clock of the machine is set, so a container, which has that of its host, proves nothing.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

# Since before the power cut: two minutes past an hour, so what is planned each ten minutes has long passed or is not near.
begun=/root/begun
[ "$PHASE" != 1 ] || echo $(($(date +%s) / 3600 * 3600 + 7320)) >$begun
start=$(cat $begun)
hour() { echo $((start - 120 + ($1 - 1) * 3600)); } # The full hour before a phase.
turned() { echo "@$((start + PHASE * 3600))" >/root/clock; }

# Processes are dear under UML: one look serves many questions.
look() { taskd list --limit 10000 --json >/root/messages && taskd schedules --json >/root/schedules; }
fired() { # fired NAME .JQ: of all of its messages that the schedule itself fired
    jq -r "[.[] | select(.schedule == \"$1\" and .planned != null)] | $2" /root/messages
}
of_schedule() { jq -r ".[] | select(.name == \"$1\") | $2" /root/schedules; } # of_schedule NAME .JQ
more_than() { # more_than COUNT NAME
    local count
    look
    count=$(fired "$2" length)
    [ "$count" -gt "$1" ] || { echo "$2 fired $count times"; taskd schedules; return 1; }
}
none_twice() { is "$(fired "$1" 'group_by(.planned)[] | select(length > 1) | map(.id) | join(" and ")')" '' "$1, twice for one time"; }
told() { journalctl --sync; journalctl -b -u taskd -o cat --no-pager; }
as_it_was() {
    check "$1: the machine was off for an hour, and the service came up by itself"
    within 60 ready
    [ "$(date +%s)" -ge "$(tr -d @ </root/clock)" ] || fail "the clock was not set: $(date)"
    check "$1: what had fired is there, and no time fires twice"
    within 20 more_than "$(cat /root/count)" tick
    local n all='' last='' lost
    lost=$(cat /root/last "$OUT/last" 2>/dev/null | sort | comm -23 - <(fired tick '.[].id' | sort))
    is "$lost" '' 'messages that are not there any more'
    none_twice tick
    check "$1: catch_up = \"none\", \"last\" and \"all\" did what they say"
    within 20 more_than $(((PHASE - 1) * 6 - 1)) all
    for n in $(seq 2 "$PHASE"); do
        all+=" $(seq -s ' ' $(($(hour "$n") - 3000)) 600 "$(hour "$n")")"
        last+=" $(hour "$n")"
    done
    is "$(fired all 'map(.planned / 1000) | sort | join(" ")')" "${all# }" 'the times of all'
    is "$(fired last 'map(.planned / 1000) | sort | join(" ")')" "${last# }" 'the times of last'
    is "$(fired none length)" 0 'the times of none'
    check "$1: the pause by hand is there, and nothing of it was caught up"
    is "$(of_schedule paused .paused)" asked 'the schedule'
    is "$(fired paused length)" 0 'its messages'
    check "$1: the journal tells of it"
    local said
    said=$(told)
    has "$said" "schedule last fired hello .* for $(date -u -d "@$(hour "$PHASE")" +%FT%TZ), .* late" 'the journal'
    has "$said" 'schedule none missed 6 planned times' 'the journal'
    has "$said" 'schedule tick fired hello' 'the journal'
    hasnt "$said" 'schedule paused (fired|missed)' 'the journal'
}

case $PHASE in
    1)
        if ! date -s "@$start" >/dev/null; then echo 'the clock cannot be set here'; exit 77; fi
        # As if the machine had been off until then: before anything of taskd starts.
        cat >/etc/systemd/system/later.service <<'UNIT'
[Unit]
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'date -s "$(cat /root/clock)"'
[Install]
WantedBy=sysinit.target
UNIT
        ends 0 systemctl enable later.service
        turned
        configure <<'TOML'
[tasks.hello]
command = "echo hello"
[schedules.tick]
task = "hello"
every = "2s"
[schedules.none]
task = "hello"
every = "10m"
[schedules.last]
task = "hello"
every = "10m"
catch_up = "last"
[schedules.all]
task = "hello"
cron = "*/10 * * * *"
catch_up = "all"
[schedules.paused]
task = "hello"
every = "10m"
catch_up = "all"
TOML
        ends 0 taskd schedules pause paused
        echo 0 >/root/count
        # The config is this script's business; what fired is taskd's own.
        sync
        check 'a schedule in /etc/taskd.toml fires after a reload, and the journal tells of it'
        within 20 more_than 1 tick
        has "$(told)" 'schedule tick fired hello' 'the journal'
        check 'a power cut'
        # Through a channel that no power cut of the machine reaches.
        fired tick '.[].id' >"$OUT/last"
        [ "$METHOD" != qemu ] || { fired tick '.[].id' >/root/last; sync /root/last; }
        reboots hard ;;
    2)
        as_it_was 'after a power cut'
        fired tick length >/root/count
        turned
        reboots orderly ;;
    3)
        as_it_was 'after an orderly reboot'
        check 'a reload with other schedules takes effect'
        sed -i 's/^every = "2s"/every = "1h"/; s/^catch_up = "last"/enabled = false/' $config
        configure <<'TOML'
[schedules.tock]
task = "hello"
cron = "* * * * * *"
TOML
        within 20 more_than 1 tock
        is "$(of_schedule tick '[.when, .next / 1000] | map(tostring) | join(", ")')" "every 1h, $(($(hour 3) + 3600))" 'the schedule'
        is "$(of_schedule last .enabled)" false 'the schedule'
        last_tick=$(fired tick 'map(.planned) | max')
        within 20 more_than "$(($(fired tock length) + 2))" tock
        is "$(fired tick 'map(.planned) | max')" "$last_tick" 'the last time of what comes each hour now'
        none_twice tock
        check 'what was paused goes on with what is planned from now on'
        ends 0 taskd schedules resume paused
        look
        is "$(of_schedule paused '[.paused, .next / 1000] | map(tostring) | join(" ")')" "null $(($(hour 3) + 600))" 'the schedule'
        is "$(fired paused length)" 0 'its messages'
        check 'and all of it ended well'
        is "$(jq -r '[.[] | select(.state | IN("FAILURE", "DEAD", "EXPIRED", "REVOKED"))] | length' /root/messages)" 0 'messages that failed' ;;
esac
