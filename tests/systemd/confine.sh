#!/bin/bash
# AppArmor: the daemon is under its profile from its first moment on and in every later life, nothing that it does is
# denied, nothing else is confined, and what it has no business with is out of its reach.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

profile=taskd-daemon
label() { tr -d '\0' <"/proc/$1/attr/current"; }
denials() { dmesg | grep 'apparmor="DENIED"' | sed 's/^\[[^]]*\] //'; }
# The daemon there is now, and how `taskd status` says it.
confined() {
    is "$(label "$(daemon)")" "$profile (enforce)" "the daemon, $1"
    has "$(taskd status)" "AppArmor profile $profile \(enforce\)" "taskd status, $1"
    is "$(label "$(launcher)")" unconfined "the launcher, $1"
}

check 'the kernel has AppArmor, and installing the package loaded the profile'
is "$(cat /sys/module/apparmor/parameters/enabled 2>&1)" Y 'AppArmor'
has "$(cat /sys/kernel/security/apparmor/profiles)" "^$profile \(enforce\)\$" 'the loaded profiles'
is "$(systemctl is-active apparmor)" active 'apparmor.service'
# The kernel is to leave out no denial, however many there are.
sysctl -q kernel.printk_ratelimit=0
confined 'as installed'

check 'what runs tasks is not confined, nor are they'
sed -i 's/^\[taskd\]$/&\nmax_memory_pressure = 90/; s/^\[pools.default\]$/&\nprocesses = 2/' $config
configure <<'TOML'
[tasks.label]
command = 'cat /proc/self/attr/current; cat /proc/$PPID/attr/current; id -un'
[tasks.of_root]
command = 'cat /proc/self/attr/current; id -un; head -c 0 /etc/shadow'
user = "root"
[tasks.much]
command = 'seq 500'
[tasks.fails]
command = 'exit 3'
TOML
configure < <(hold_task)
ends 0 taskd enqueue label --wait
is "$(tr -d '\0' <<<"$said")" "$(printf 'unconfined\nunconfined\ntaskd-run')" 'a task and what started it'
ends 0 taskd enqueue of_root --wait
is "$(tr -d '\0' <<<"$said")" "$(printf 'unconfined\nroot')" 'a task of root'

check 'an ordinary life: nothing of it is denied'
enqueue hold
held=$id
within 10 test -s "/tmp/held.$held.1"
ends 0 taskd enqueue much --wait
has "$said" '^500$' 'much output'
enqueue much
much=$id
within 20 in_state "$much" SUCCESS
ends 0 taskd logs "$much"
ends 0 taskd result "$much"
ends 0 taskd retry "$much"
enqueue fails
within 20 in_state "$id" FAILURE
enqueue label --in 1h
later=$id
ends 0 taskd why "$later"
ends 0 taskd cancel "$later"
ends 0 taskd pause default
ends 0 taskd queues
ends 0 taskd resume default
ends 0 taskd tasks
ends 0 taskd list --json
enqueue label --in 1h
mkdir -p /var/backups
ends 0 taskd store backup /var/backups/taskd.db
ends 0 taskd store verify
taskd store export >/tmp/exported 2>/dev/null || fail 'no export'
# Of what is exported the delayed message is one; taken over again it is already there.
has "$(cat /tmp/exported)" "$id" 'the export'
ends 0 taskd store import /tmp/exported
ends 0 systemctl reload taskd
within 20 in_state "$much" SUCCESS
useradd -m -G taskd-users alice
ends 0 runuser -u alice -- taskd enqueue label --wait
is "$(denials)" '' 'denials'

check 'killed: the next one is confined too'
old=$(daemon)
kill -9 "$old"
replaced() { local now; now=$(daemon) && [ "$now" != "$old" ] && taskd status >/dev/null; }
within 20 replaced
confined 'after a kill'
in_state "$held" RUNNING >/dev/null || fail "what ran is $(of "$held" .state)"

check 'reload --binary, restart'
old=$(daemon)
ends 0 taskd reload --binary
within 20 replaced
confined 'after reload --binary'
touch /tmp/go
within 20 in_state "$held" SUCCESS
ends 0 systemctl restart taskd
within 20 ready
confined 'after a restart'
ends 0 taskd enqueue label --wait
ends 0 taskd stop
within 20 no_process
ends 0 systemctl start taskd
within 20 ready
ends 0 taskd enqueue label --wait
ends 0 taskd drain
journalctl --sync
is "$(denials)" '' 'denials'
hasnt "$(journalctl -u taskd -o cat --no-pager)" 'ermission denied' 'the journal of taskd'

check 'the profile bites: other files, other programs, other processes'
# A shell that goes under the profile as the daemon does; what it is told to do afterwards is its own.
under() { bash -c "printf 'changeprofile $profile' >/proc/self/attr/current || exit 99; $1" 2>&1; }
refused() { # refused WHAT SCRIPT
    local before after seen
    before=$(denials | wc -l)
    bash -c "$2" >/dev/null 2>&1 || fail "$1 does not work without the profile either"
    seen=$(under "$2") && fail "$1 works under the profile"
    hasnt "$seen" changeprofile "$1"
    after=$(denials | wc -l)
    [ "$after" -gt "$before" ] || fail "$1 failed, but by no denial: $seen"
}
refused 'reading /etc/shadow' 'read -r x </etc/shadow'
refused 'reading the config' 'read -r x </etc/taskd.toml'
refused 'writing to /root' ': >/root/written'
refused 'writing to /etc' ': >/etc/written'
refused 'a program' '/bin/true'
refused 'a shell' '/bin/sh -c :'
refused 'a signal to another' 'kill -0 1; kill -CONT 1'
under 'read -r x </etc/nsswitch.conf' || fail 'what is allowed is denied as well'
