#!/bin/bash
# A config with faults: the reload fails where people look, and taskd goes on with the old one.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

configure <<'TOML'
[tasks.old]
command = "echo old"
TOML
main=$(launcher) generation=$(taskd status --json | jq .generation)
good=$(cat $config)
cat >>$config <<'TOML'
[tasks.new]
command = "echo new"
time_limt = "40s"
TOML
place="$config:$(wc -l <$config):1"

check 'systemctl reload fails, and says where to look'
ends 1 systemctl reload taskd
has "$said" 'Job for taskd.service failed|Reload failed' 'systemctl'

check 'systemctl status and the journal show the fault with file, line and column'
journalctl --sync
has "$(systemctl status taskd --no-pager -l)" "$place" 'systemctl status'
has "$(journalctl -u taskd -o cat --no-pager)" "$place" 'the journal'
has "$(journalctl -u taskd -o cat --no-pager)" 'time_limt' 'the journal'

check 'taskd reload prints it'
ends 78 taskd reload
has "$said" "$place" 'taskd reload'
has "$said" 'did you mean .time_limit' 'taskd reload'

check 'the daemon goes on with the old config'
is "$(property ActiveState) $(launcher)" "active $main" 'the unit'
is "$(taskd status --json | jq .generation)" "$generation" 'the generation of the settings'
ends 0 taskd enqueue old --wait
ends 69 taskd enqueue new

check 'a restart with the broken config fails at once instead of again and again'
ends 1 systemctl restart taskd
is "$(property Result) $(property ExecMainStatus) $(property NRestarts)" 'exit-code 78 0' 'the unit'

check 'the good config brings it back'
printf '%s\n' "$good" >$config
systemctl reset-failed taskd.service taskd.socket
ends 0 systemctl start taskd
ends 0 taskd enqueue old --wait
is "$said" old 'the task'
