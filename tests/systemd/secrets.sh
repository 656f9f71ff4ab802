#!/bin/bash
# Credentials of the unit, from systemd to the one task that asks for them: what it sees, who does not, and that nothing
# is left of them, whatever ends.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

marker=hunter2-0123456789abcdef
drop=/etc/systemd/system/taskd.service.d/secrets.conf
# Bytes that are no text among them.
printf '%s-smtp\n\0\377 end\n\n' $marker >/root/smtp
sum=$(md5sum </root/smtp)
mkdir -p "${drop%/*}"
cat >$drop <<UNIT
[Service]
LoadCredential=smtp:/root/smtp
SetCredential=token:$marker-token
UNIT

check 'systemd-creds encrypts with the key of the host'
printf '%s-sealed' $marker >/root/plain
ends 0 systemd-creds setup
ends 0 systemd-creds encrypt --with-key=host --name=sealed /root/plain /root/sealed
echo 'LoadCredentialEncrypted=sealed:/root/sealed' >>$drop
rm /root/plain

check 'a config that names a credential which the unit does not have yet is refused, and says so'
cp $config /tmp/without
cat >>$config <<'TOML'
[tasks.holds]
command = '''
cd $CREDENTIALS_DIRECTORY && md5sum <smtp && stat -c '%a %U %F' smtp . && ls && echo $PWD >/tmp/where.$TASKD_ID
touch /tmp/begun.$TASKD_ID; until [ -e /tmp/go ]; do sleep 0.1; done; md5sum <smtp; stat -f -c %T .'''
credentials = ["smtp"]
[tasks.both]
command = 'ls $CREDENTIALS_DIRECTORY; md5sum <$CREDENTIALS_DIRECTORY/sealed; echo ${KEY+set}'
credentials = ["sealed", "token"]
[tasks.keyed]
command = 'printf %s "$KEY" | md5sum; echo ${CREDENTIALS_DIRECTORY-unset}'
environment = { KEY = "for ${credential:token}." }
[tasks.without]
command = 'echo ${CREDENTIALS_DIRECTORY-unset} ${KEY-unset}; env | grep -c hunter2 || :'
[tasks.root_without]
command = 'echo ${CREDENTIALS_DIRECTORY-unset}'
user = "root"
TOML
sed -i 's/^\[taskd\]$/&\nshutdown_grace = "2s"/' $config
ends 1 systemctl reload taskd
journalctl --sync
has "$(journalctl -u taskd -o cat --no-pager)" 'credential `(smtp|sealed|token)` cannot be had.*CREDENTIALS_DIRECTORY is not set' 'the reason'
ready || fail 'it does not go on with the old config'

check 'after a restart the unit hands them over'
systemctl daemon-reload
ends 0 systemctl restart taskd
within 10 ready
given=/run/credentials/taskd.service
is "$(find $given -type f -printf '%f\n' | sort | paste -sd' ')" 'sealed smtp token' 'what systemd made'

begin() { # a task that holds its credential, in $id, its directory in $where
    rm -f /tmp/go
    enqueue holds
    within 10 test -e "/tmp/begun.$id"
    where=$(cat "/tmp/where.$id")
    # Else "gone" would mean nothing.
    has "$(secret_files)" "^$where/smtp\$" 'files of credentials while it runs'
}
secret_files() { find /run /dev/shm -path '*taskd-credentials*' -type f 2>/dev/null; }
gone() { [ -z "$(secret_files)" ] && [ ! -e "$where" ] || { echo "left: $where $(secret_files)"; return 1; }; }

check 'a task with one sees it, byte for byte, closed to others; a task without sees none'
begin
first=$id
ends 0 taskd enqueue without --wait
is "$said" "$(printf 'unset unset\n0')" 'a task without'
ends 0 taskd enqueue root_without --wait
is "$said" unset 'a task of root without'
ends 0 taskd enqueue keyed --wait
is "$said" "$(printf 'for %s-token.' $marker | md5sum; echo unset)" '${credential:token} in environment'
ends 0 taskd enqueue both --wait
is "$said" "$(printf 'sealed\ntoken\n'; printf '%s-sealed' $marker | md5sum)" 'an encrypted one'

check 'another user cannot read it while it is there'
is "$(stat -c '%U %a' "$where/smtp")" 'taskd-run 400' 'the file'
useradd -m bob
for user in bob taskd nobody; do
    ends 1 runuser -u $user -- cat "$where/smtp"
    has "$said" 'Permission denied' "as $user"
    ends 1 runuser -u $user -- cat $given/smtp
done
ends 1 runuser -u taskd-run -- cat $given/smtp

check 'it stands nowhere else: unit, processes, journal, answers, store'
hidden() {
    local file place
    # What SetCredential= sets, systemd shows to all.
    hasnt "$(systemctl show taskd | grep -v '^SetCredential=')" $marker "systemctl show, $1"
    for file in /proc/[0-9]*/cmdline; do
        if grep -aq $marker "$file" 2>/dev/null; then fail "$1: $(tr '\0' ' ' <"$file")"; fi
    done
    journalctl --sync
    hasnt "$(journalctl -o json -a --no-pager)" "$marker|$(printf $marker | base64 | cut -c1-24)" "the journal, $1"
    for place in status tasks list queues config 'config --show-origin' "status $first" "logs $first" 'list --json' 'status --json' 'config --json' 'tasks --json' "status $first --json" "logs $first --json" 'store export' check; do
        # shellcheck disable=SC2086  # words
        hasnt "$(taskd $place 2>&1)" $marker "taskd $place, $1"
    done
    for place in /var/lib/taskd /var/log /etc/taskd.toml /tmp /var/tmp; do
        if said=$(grep -arl $marker $place); then fail "$1: in $said"; fi
    done
}
hidden 'while it runs'
for file in /proc/[0-9]*/environ; do
    if grep -aq $marker "$file" 2>/dev/null; then fail "it is in the environment of $(tr '\0' ' ' <"${file%environ}cmdline")"; fi
done

check 'gone after the attempt, which saw it to its end'
touch /tmp/go
within 10 in_state "$first" SUCCESS
ends 0 taskd logs "$first"
is "$said" "$(echo "$sum"; printf '400 taskd-run regular file\n500 taskd-run directory\nsmtp\n'; echo "$sum"; echo tmpfs)" 'what the task saw, in memory'
within 5 gone

check 'gone when it is canceled, restarted, killed'
# What was interrupted runs again, with a directory of its own; the one it had is gone.
again() { # again DIRECTORY
    within 20 elsewhere "$1"
    touch /tmp/go
    within 20 in_state "$id" SUCCESS
    within 5 gone
}
elsewhere() {
    local now
    now=$(cat "/tmp/where.$id")
    [ "$now" != "$1" ] && [ -e "$now/smtp" ] && [ ! -e "$1" ] || { echo "was in $1, is in $now; $(secret_files)"; return 1; }
}
begin
ends 0 taskd cancel "$id"
within 10 in_state "$id" REVOKED
within 5 gone
begin
ends 0 systemctl restart taskd
again "$where"
begin
old=$(launcher)
kill -9 "$old"
another() { [ "$(launcher)" != "$old" ] && [ "$(launcher)" != 0 ] && ready; }
within 20 another
again "$where"
hidden 'after all'

check 'a new secret: what systemd handed over stays until the next restart of the unit'
printf '%s-renewed' $marker >/root/smtp
ends 0 systemctl reload taskd
ends 0 taskd enqueue holds --wait
has "$said" "${sum%% *}" 'after a reload'
ends 0 systemctl restart taskd
within 10 ready
ends 0 taskd enqueue holds --wait
has "$said" "$(md5sum </root/smtp | cut -d' ' -f1)" 'after a restart'
