#!/bin/bash
# The hardening of the shipped unit, and the two drop-ins that move its line, each as its own comment says: what tasks can
# do under it, and what they cannot.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

drop_ins=/usr/share/doc/taskd/examples/drop-ins
target=/etc/systemd/system/taskd.service.d
# The two commands that a drop-in's comment gives, as they stand there.
as_its_comment_says() { # as_its_comment_says FILE
    local commands
    commands=$(sed -n 's/^#   \(install\|systemctl\)/\1/p' "$drop_ins/$1")
    is "$(wc -l <<<"$commands")" 2 "commands in $1"
    (cd $drop_ins && bash -ec "$commands") || fail "what $1 says does not work: $commands"
    within 10 ready
}
refused() { # refused REGEX: a reload, and the journal says why
    local mark
    mark=$(date '+%Y-%m-%d %H:%M:%S.%N')
    ends 1 systemctl reload taskd
    journalctl --sync
    has "$(journalctl -u taskd --since "$mark" -o cat --no-pager)" "$1" 'the reason in the journal'
    ready || fail 'it does not go on'
}
does() { # does TASK WANTED: what it prints
    ends 0 taskd enqueue "$1" --wait
    is "$said" "$2" "task $1"
}
install -m 4755 /usr/bin/id /usr/local/bin/id-of-root
useradd -m alice

check 'the shipped unit: set-uid programs work, the umask is an ordinary one'
configure <<'TOML'
[tasks.who]
command = 'id -un; /usr/local/bin/id-of-root -un; grep NoNewPrivs /proc/self/status; umask'
[tasks.write]
command = 'for d in /etc /usr /boot /usr/local /srv /home /home/alice /var/lib /tmp; do if touch $d/x; then echo "$d yes"; else echo "$d no"; fi; done 2>&1'
user = "root"
[tasks.write_self]
command = '! touch /srv/y /etc/y 2>&1'
TOML
does who "$(printf 'taskd-run\nroot\nNoNewPrivs:\t0\n0022')"

check 'root may write, but not to /etc, /usr and /boot; and hears why'
ends 0 taskd enqueue write --wait
for dir in /etc /usr /boot; do
    has "$said" "$dir/x'?: Read-only file system" "$dir"
    has "$said" "^$dir no" "$dir"
done
for dir in /usr/local /srv /home /home/alice /var/lib /tmp; do
    has "$said" "^$dir yes" "$dir"
    is "$(stat -c '%U %a' $dir/x)" 'root 644' "$dir/x"
    rm $dir/x
done
ends 0 taskd enqueue write_self --wait
has "$said" '/srv/y.*Permission denied' 'an ordinary task'

check 'the sandbox keys are refused, by key, with the drop-in that they need'
cat >/etc/taskd.d/sandbox.toml <<'TOML'
[tasks.boxed]
command = '''
id -un; ls -A /tmp /var/tmp; touch /tmp/in /var/tmp/in && echo written
touch /srv/box/in && echo kept; touch /usr/local/in 2>&1; touch /var/lib/in 2>&1; grep -c : /proc/net/dev'''
private_tmp = true
protect_system = "strict"
read_write_paths = ["/srv/box"]
private_network = true
[tasks.boxed_root]
command = 'id -un; ls -A /tmp; touch /srv/in 2>&1; grep -c : /proc/net/dev'
user = "root"
private_tmp = true
protect_system = "strict"
private_network = true
TOML
install -d -o taskd-run /srv/box
refused '\[tasks.boxed\]: protect_system: .*sandbox\.conf in /usr/share/doc/taskd/examples/drop-ins'
refused '\[tasks.boxed_root\]: protect_system: .*sandbox\.conf in /usr/share/doc/taskd/examples/drop-ins'
does who "$(printf 'taskd-run\nroot\nNoNewPrivs:\t0\n0022')"

check 'sandbox.conf: they work'
as_its_comment_says sandbox.conf
touch /tmp/outside
ends 0 taskd enqueue boxed --wait
hasnt "$said" outside 'a boxed task sees the /tmp of others'
has "$(tr '\n' ' ' <<<"$said")" "^taskd-run /tmp: +/var/tmp: written kept touch: .*'/usr/local/in': Read-only file system touch: .*'/var/lib/in': Read-only file system 1 \$" 'a boxed task'
has "$(ls -l /srv/box/in)" ' taskd-run ' 'what it was allowed to write'
[ ! -e /tmp/in ] || fail 'it wrote to the /tmp of others'
ends 0 taskd enqueue boxed_root --wait
is "$(tr '\n' ' ' <<<"$said")" "root touch: cannot touch '/srv/in': Read-only file system 1 " 'a boxed task of root'
does who "$(printf 'taskd-run\nroot\nNoNewPrivs:\t0\n0022')"
rm $target/sandbox.conf /etc/taskd.d/sandbox.toml
ends 0 systemctl daemon-reload

check 'tight.conf: a config with other users is refused by the restart, which says where'
# As the comment says it, the config must be put right first.
(cd $drop_ins && bash -ec "$(sed -n 's/^#   \(install\)/\1/p' tight.conf)")
systemctl daemon-reload
ends 1 systemctl restart taskd
is "$(property ExecMainStatus)" 78 'its exit code'
journalctl --sync
has "$(journalctl -u taskd -o cat --no-pager)" 'cannot run tasks as `root`' 'the reason in the journal'
has "$(journalctl -u taskd -o cat --no-pager)" '/etc/taskd.toml:[0-9]+:' 'the place in the journal'
rm $target/tight.conf
sed -i '/^\[tasks.write\]$/,/^user/d' $config
ends 0 systemctl daemon-reload
ends 0 systemctl restart taskd

check 'tight.conf: no process of taskd is root'
mkdir -p /home/alice/secrets
as_its_comment_says tight.conf
configure < <(hold_task | sed 's:/tmp/:/var/lib/taskd/:g')
enqueue hold
within 10 test -e "/var/lib/taskd/held.$id.1"
all=$(find $group -name cgroup.procs -exec cat {} + 2>/dev/null; pgrep -f '^taskd: '; pgrep -P "$(launcher)")
uid=$(id -u taskd) gid=$(id -g taskd) seen=0
for process in $(sort -u <<<"$all"); do
    # A task's own may have ended meanwhile.
    status=$(cat "/proc/$process/status" 2>/dev/null) || continue
    seen=$((seen + 1))
    is "$(sed -n 's/^\(Uid\|Gid\|NoNewPrivs\|CapEff\|CapBnd\):\s*/\1 /p' <<<"$status" | tr '\t\n' '  ')" \
        "Uid $uid $uid $uid $uid Gid $gid $gid $gid $gid CapEff 0000000000000000 CapBnd 0000000000000000 NoNewPrivs 1 " \
        "process $process, $(sed -n 's/^Name:\s*//p' <<<"$status")"
done
[ "$seen" -ge 4 ] || fail 'not even launcher, daemon, runner and task are there' "$all"
touch /var/lib/taskd/go
within 10 in_state "$id" SUCCESS

check 'tight.conf: tasks run as taskd, without a way up, in what is theirs'
configure <<'TOML'
[tasks.tight]
command = '''
/usr/local/bin/id-of-root -un; grep NoNewPrivs /proc/self/status; ls -A /tmp; touch /tmp/in /var/lib/taskd/in && echo written
touch /srv/y /usr/local/y 2>&1; ls -A /home 2>&1; ps ax | grep -c syste[m]d-journald || :'''
TOML
ends 0 taskd enqueue tight --wait
is "$said" "$(
    printf 'taskd\nNoNewPrivs:\t1\nwritten\n'
    printf "touch: cannot touch '%s': Read-only file system\n" /srv/y /usr/local/y
    printf "ls: cannot open directory '/home': Permission denied\n0"
)" 'a task'
[ ! -e /tmp/in ] || fail 'it wrote to the /tmp of others'
is "$(stat -c %U /var/lib/taskd/in)" taskd 'what it wrote'
usermod -a -G taskd-users alice
useradd -m bob
ends 0 runuser -u alice -- taskd enqueue who --wait
is "$said" "$(printf 'taskd\ntaskd\nNoNewPrivs:\t1\n0022')" 'a task of alice'
ends 77 runuser -u bob -- taskd enqueue who
ends 0 taskd store verify
printf '[tasks.other]\ncommand = "id"\nuser = "taskd-run"\n' >/etc/taskd.d/other.toml
refused 'cannot run tasks as `taskd-run`'
rm /etc/taskd.d/other.toml
ends 0 systemctl reload taskd
