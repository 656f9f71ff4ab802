#!/bin/bash
# The package's life: upgraded while a task runs and clients enqueue, removed, installed again, purged.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

configure < <(hold_task)
configure <<'TOML'
[tasks.quick]
command = "true"
TOML
enqueue hold
within 10 test -e "/tmp/held.$id.1"
long=$id main=$(launcher) process=$(held "$id" 1)
was=$(taskd status --json | jq -r .version)
new=$(apt-cache madison taskd | cut -d'|' -f2 | tr -d ' ' | sort -V | tail -n 1)
installed() { dpkg-query -W -f '${Version} ${db:Status-Abbrev}' taskd; }
dpkg --compare-versions "$new" gt "$(dpkg-query -W -f '${Version}' taskd)" || fail "there is nothing newer to upgrade to than $(installed)"

# Of the other taskd, or of anybody: with ours installed it is no reason to refuse.
mkdir /etc/taskd && echo mine >/etc/taskd/config
check "apt upgrades to $new while a task runs and a client enqueues"
: >/tmp/refused
while [ ! -e /tmp/enough ]; do taskd enqueue quick >>/tmp/ids 2>>/tmp/refused || echo "exit code $?" >>/tmp/refused; done &
feeder=$!
ends 0 apt-get -q -y -o Dpkg::Use-Pty=0 install taskd
is "$(installed)" "$new ii " 'dpkg'
touch /tmp/enough
wait $feeder
is "$(cat /tmp/refused)" '' 'refusals while it was upgraded'

check 'the same process runs the new program, and the task did not notice'
is "$(launcher) $(property NRestarts)" "$main 0" 'the unit'
now=$(taskd status --json | jq -r '"\(.version) \(.upgrades)"')
[ "$now" != "$was 1" ] || fail "taskd status still says $was"
has "$now" ' 1$' 'version and upgrades'
is "$(readlink "/proc/$main/exe")" /usr/bin/taskd 'the program of the launcher'
is "$(readlink "/proc/$(daemon)/exe")" /usr/bin/taskd 'the program of the daemon'
[ -e "/proc/$process" ] || fail 'the task is gone'
within 5 in_state "$long" RUNNING
touch /tmp/go
within 10 in_state "$long" SUCCESS
is "$(of "$long" .attempt)" 1 'attempts'
ends 0 taskd logs "$long"
is "$said" "$(printf 'begin\ndone')" 'its output'
all_done() { [ "$(taskd list --task quick --state success --limit 10000 --json | jq length)" = "$(wc -l </tmp/ids)" ]; }
within 30 all_done

check 'apt remove stops it, and keeps state and config'
enqueue quick --in 1h
later=$id
cp $config /tmp/config
ends 0 apt-get -q -y -o Dpkg::Use-Pty=0 remove taskd
within 5 no_process
[ ! -e /usr/bin/taskd ] || fail '/usr/bin/taskd is still there'
[ ! -e /run/taskd/taskd.sock ] || fail 'the socket is still there'
hasnt "$(systemctl list-units --all --no-legend 'taskd*')" ' active ' 'units'
cmp $config /tmp/config || fail "the config is not as it was"
is "$(stat -c '%U %a' /var/lib/taskd)" 'taskd 700' 'the state'

check 'installed again it has its messages, its config, and runs'
ends 0 apt-get -q -y -o Dpkg::Use-Pty=0 install taskd
hasnt "$said" 'Could not execute systemctl' 'apt'
within 10 ready
cmp $config /tmp/config || fail "the config is not as it was"
is "$(of "$later" .state)" SCHEDULED 'the delayed message'
is "$(of "$long" '[.state, .attempt] | map(tostring) | join(" ")')" 'SUCCESS 1' 'the old result'
is "$(systemctl is-enabled taskd.service taskd.socket | sort -u)" enabled 'the units'

check 'purge removes state and config'
ends 0 apt-get -q -y -o Dpkg::Use-Pty=0 purge taskd
within 5 no_process
for path in /var/lib/taskd $config /etc/taskd.d /usr/bin/taskd /run/taskd/taskd.sock /etc/systemd/system/multi-user.target.wants/taskd.service; do
    [ ! -e $path ] || fail "$path is still there: $(ls -la $path)"
done
is "$(dpkg -l taskd 2>/dev/null | grep -c '^[ir]')" 0 'dpkg'
is "$(systemctl --failed --no-legend --plain | grep taskd)" '' 'failed units'
