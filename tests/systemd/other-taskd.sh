#!/bin/bash
# Debian 12 has another package of this name, Taskwarrior's server. Ours says so and keeps off.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

theirs=$(apt-cache madison taskd | cut -d'|' -f2 | tr -d ' ' | grep -v ^1: | head -n 1)
ours=$(apt-cache madison taskd | cut -d'|' -f2 | tr -d ' ' | grep ^1: | head -n 1)
[ -n "$theirs" ] && [ -n "$ours" ] || fail "no two packages taskd: $(apt-cache madison taskd)"
apt() { apt-get -q -y -o Dpkg::Use-Pty=0 "$@"; }

check "theirs ($theirs) is installed and runs"
ends 0 apt install "taskd=$theirs"
# It does not run without certificates.
cd /var/lib/taskd || exit
certtool --generate-privkey --bits 2048 --outfile server.key.pem >/dev/null 2>&1
printf 'cn = localhost\nca\ncert_signing_key\ncrl_signing_key\ntls_www_server\nexpiration_days = 9\ncrl_next_update = 9\ncrl_number = 1\n' >template
certtool --generate-self-signed --load-privkey server.key.pem --template template --outfile server.cert.pem >/dev/null 2>&1
certtool --generate-crl --load-ca-privkey server.key.pem --load-ca-certificate server.cert.pem --template template --outfile server.crl.pem >/dev/null 2>&1
cat >>/etc/taskd/config <<'SETTINGS'
server=localhost:53589
server.cert=/var/lib/taskd/server.cert.pem
server.key=/var/lib/taskd/server.key.pem
server.crl=/var/lib/taskd/server.crl.pem
ca.cert=/var/lib/taskd/server.cert.pem
SETTINGS
chown "$(property User)" ./*.pem
cd /
systemctl restart taskd
active || fail "$(systemctl status taskd --no-pager)"
# Everything of it, with contents, owners and modes; not what a running server writes by itself.
files() {
    { dpkg -L taskd; find /var/lib/taskd /etc/taskd /etc/systemd /etc/init.d /lib/systemd/system -name 'taskd*'; find /var/lib/taskd /etc/taskd; } | sort -u |
        while read -r f; do
            [ -e "$f" ] || continue
            printf '%s %s ' "$f" "$(stat -c '%F %U:%G %a' "$f")"
            if [ -f "$f" ] && [[ $f != *.log ]]; then sha256sum <"$f"; else echo; fi
        done
    getent passwd taskd
    getent group taskd
    getent passwd taskd-run
    getent group taskd-users
}
files >/tmp/before
has "$(cat /tmp/before)" '^/usr/bin/taskdctl .*[0-9a-f]{64}' 'its files'
binary=$(readlink "/proc/$(launcher)/exe")

check "ours ($ours) refuses to be installed over it, and says why and what to do"
ends 100 apt install "taskd=$ours"
has "$said" '[Tt]askwarrior' 'apt'
has "$said" 'purge' 'apt'

check 'nothing of theirs was touched, and it runs'
files >/tmp/after
is "$(diff /tmp/before /tmp/after)" '' 'its files'
is "$(dpkg-query -W -f '${Version} ${db:Status-Abbrev}' taskd)" "$theirs ii " 'dpkg'
within 10 active
is "$(readlink "/proc/$(launcher)/exe")" "$binary" 'what runs'
ends 0 dpkg --audit
is "$said" '' 'dpkg --audit'

check 'removed without purge: its config is there, so ours still refuses'
ends 0 apt remove taskd
[ -e /etc/taskd/config ] || fail '/etc/taskd/config is gone'
cp -a /etc/taskd/config /tmp/config
ends 100 apt install "taskd=$ours"
has "$said" 'without its configuration|/etc/taskd/config' 'apt'
cmp /etc/taskd/config /tmp/config || fail '/etc/taskd/config was changed'
[ ! -e /usr/bin/taskd ] && [ ! -e $config ] || fail 'something of ours is there'

check 'purged: ours is installed and works'
ends 0 apt purge taskd
[ ! -e /etc/taskd/config ] || fail 'their purge left /etc/taskd/config'
ends 0 apt install "taskd=$ours"
within 10 ready
configure <<'TOML'
[tasks.hello]
command = "echo hello"
TOML
ends 0 taskd enqueue hello --wait
is "$said" hello 'a task'
is "$(stat -c '%U %a' /var/lib/taskd)" 'taskd 700' 'the state directory'
