#!/bin/bash
# A user's own taskd: an instance of systemctl --user that lives without a login, beside that of the system.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

useradd -m -s /bin/bash carol
useradd -m -G taskd-users dave
uid=$(id -u carol)
# As in a session of hers.
as_carol() { runuser -u carol -- env -C /home/carol XDG_RUNTIME_DIR="/run/user/$uid" HOME=/home/carol "$@"; }
manager_up() { as_carol systemctl --user is-system-running 2>&1 | grep -Eq 'running|degraded'; }
hers_ready() { [ "$(as_carol systemctl --user is-active taskd)" = active ] && as_carol taskd --user status; }

check 'a lingering user has a manager, and starts taskd in it'
ends 0 loginctl enable-linger carol
within 20 manager_up
as_carol mkdir -p .config
cat >/home/carol/.config/taskd.toml <<'TOML'
[tasks.whoami]
command = 'id -un; pwd'
[tasks.slow]
command = 'echo $$ >/tmp/slow.pid; until [ -e /tmp/go ]; do sleep 0.1; done; echo done'
TOML
chown carol: /home/carol/.config/taskd.toml
ends 0 as_carol systemctl --user enable --now taskd
within 20 hers_ready
is "$(as_carol systemctl --user show -P Type -P SubState taskd | tr '\n' ' ')" 'notify running ' 'the unit'

check 'tasks run as the user'
ends 0 as_carol taskd --user enqueue whoami --wait
has "$said" '^carol$' 'the task'
is "$(stat -c '%U %a' /home/carol/.local/state/taskd)" 'carol 700' 'the state'
journalctl --sync
has "$(as_carol journalctl --user -u taskd -o cat --no-pager; journalctl _UID="$uid" -o cat --no-pager)" '^carol$' 'the journal'

check 'nobody else gets at it, and it is not the instance of the system'
ready || fail 'the instance of the system does not answer'
is "$(taskd list --json | jq length)" 0 'messages of the instance of the system'
ends 1 runuser -u dave -- test -r "/run/user/$uid/taskd/taskd.sock"
code=0
said=$(runuser -u dave -- taskd --socket "/run/user/$uid/taskd/taskd.sock" list 2>&1) || code=$?
[ "$code" != 0 ] || fail 'another user reads what it has:' "$said"

check 'reload, and a broken config'
ends 0 as_carol systemctl --user reload taskd
echo 'nonsense = 1' >>/home/carol/.config/taskd.toml
ends 1 as_carol systemctl --user reload taskd
ends 78 as_carol taskd --user reload
has "$said" '/home/carol/.config/taskd.toml:[0-9]+:[0-9]+' 'taskd reload'
sed -i '$d' /home/carol/.config/taskd.toml

check 'restarted while a task runs: it runs again, and socket activation covers the gap'
enqueued=$(as_carol taskd --user enqueue slow) || fail "enqueue: $enqueued"
within 20 test -s /tmp/slow.pid
before=$(as_carol systemctl --user show -P MainPID taskd)
kill -KILL "$before"
back() { [ "$(as_carol systemctl --user show -P MainPID taskd)" != "$before" ] && hers_ready; }
within 20 back
touch /tmp/go
again() { [ "$(as_carol taskd --user status "$enqueued" --json | jq -r .state)" = SUCCESS ]; }
within 20 again

check 'the end of the manager ends it, with all processes'
ends 0 loginctl disable-linger carol
ends 0 systemctl stop "user@$uid.service"
gone() { ! pgrep -a -u carol; }
within 20 gone
ready || fail 'the instance of the system went along'
