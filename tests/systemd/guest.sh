# shellcheck shell=bash disable=SC2154  # settings and the script come from boot.sh
# Runs inside the machine, as root, once everything has started: installs the packages, runs the script, hands over what
# came of it, and turns the machine off.
export OUT=/test/out PHASE DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 HOME=/root
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PHASE=$(cat /test/in/phase)
. /test/in/settings
mkdir -p $OUT
rm -f $OUT/again $OUT/code
emulated=''
mountpoint -q /test || emulated=1
if [ -n "$emulated" ]; then
    for port in ttyS1 ttyS2; do stty -F /dev/$port raw -echo 115200; done
    # Through a pipe: no program is to think that it writes to a terminal.
    exec > >(cat >/dev/ttyS1) 2>&1
    control=/dev/ttyS2 journal=/dev/null
else
    exec >>$OUT/log 2>&1
    control=$OUT/control journal=$OUT/journal.txt
fi
cd /root || exit
# Followed, so that a machine that is killed leaves it too.
journalctl -b -f -n all -o short-precise --no-pager >>$journal 2>/dev/null &
follower=$!

state=$(systemctl is-system-running --wait)
if [ "$PHASE" = 1 ]; then
    . /etc/os-release
    echo "machine: $PRETTY_NAME, systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), kernel $(uname -r), $state, controllers: $(cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null || echo unknown)"
    [ "$state" = running ] || systemctl --failed --no-legend --plain
fi

code=0 marker=/var/lib/boot-test-installed
# Also where nothing is installed for it, the script finds the packages that were offered; and only those: there may be
# no network here.
if [ ! -e $marker ]; then
    rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
    echo 'deb [trusted=yes] file:/test/in/repository ./' >/etc/apt/sources.list.d/test.list
    if [ -s /test/in/repository/Packages ]; then apt-get -qq update || code=126; fi
    if [ "$code" = 0 ] && [ ${#install[@]} -gt 0 ]; then
        apt-get -q -y -o Dpkg::Use-Pty=0 -o Dpkg::Progress-Fancy=0 install "${install[@]}" >$OUT/apt.log 2>&1 || {
            cat $OUT/apt.log
            code=126
        }
    fi
    [ "$code" = 0 ] && : >$marker
fi
if [ "$code" = 0 ]; then
    bash /test/in/script "$@"
    code=$?
fi

if [ -s $OUT/again ]; then
    # After "hard" no sync and no farewell: the host kills this machine when it reads the word.
    cat $OUT/again >$control
    [ "$(cat $OUT/again)" = hard ] || { kill $follower && systemctl poweroff --no-block; }
    # Until the machine is gone.
    sleep infinity
fi
# Every boot of this machine, in order.
journalctl --sync
journalctl -o short-precise --no-pager >$OUT/journal.txt 2>/dev/null
kill $follower
echo $code >$OUT/code
[ -z "$emulated" ] || { exec >/dev/null 2>&1; tar -cf /dev/nvme2n1 -C $OUT --exclude=log --exclude=console .; }
sync
exec systemctl --force poweroff
