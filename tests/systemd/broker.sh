#!/bin/bash
# A broker that is away at boot: the unit is started and says what it waits for, and goes on by itself when Redis comes;
# likewise when Redis is restarted, stopped and started, and when the machine is booted again with it.
# shellcheck source=tests/systemd/prologue.sh
. /test/in/prologue.sh

status_text() { property StatusText; }
says() { grep -q -- "$1" <<<"$(status_text)"; }
works() {
    enqueue hello
    within 20 in_state "$id" SUCCESS
}

case $PHASE in
    1)
        check 'a broker is configured that does not run'
        ends 0 apt-get -q -y install redis-server
        ends 0 systemctl disable --now redis-server
        sed -i "s,^\\[taskd\\]\$,[taskd]\nbroker = \"redis://127.0.0.1:6379/0\"\nnode = \"web1\"," $config
        cat >>$config <<'TOML'
[tasks.hello]
command = "echo hello"
TOML
        # Another broker is no reload.
        ends 0 systemctl restart taskd
        within 10 says '^paused: .*Redis cannot be reached'
        reboots orderly
        ;;
    2)
        check 'after the boot the unit is up and says what it waits for'
        within 30 active
        within 10 says '^paused: .*Redis cannot be reached'
        is "$(property NRestarts)" 0 'restarts'
        has "$(taskd status)" 'Redis cannot be reached' 'status'
        ends 75 taskd enqueue hello
        has "$said" 'Redis' 'why nothing can be enqueued'
        main=$(launcher) old=$(daemon)

        check 'Redis comes, and it goes on by itself'
        ends 0 systemctl start redis-server
        within 10 says '^running'
        works
        has "$(taskd status)" 'web1 \(this\)' 'the nodes'

        check 'Redis is restarted, and stopped for a while'
        ends 0 systemctl restart redis-server
        works_again() { taskd enqueue hello; }
        within 10 works_again
        ends 0 systemctl stop redis-server
        within 10 says '^paused: '
        pause 2
        ends 0 systemctl start redis-server
        within 10 says '^running'
        works
        is "$(launcher) $(daemon) $(property NRestarts)" "$main $old 0" 'launcher, daemon, restarts'

        check 'a second node of the same name is refused'
        mkdir -p /tmp/second/state && chown taskd: /tmp/second/state
        sed 's,^broker.*,&\nstate_dir = "/tmp/second/state"\nsocket = "/tmp/second/sock",' $config >/tmp/second/taskd.toml
        ends 78 timeout 60 taskd run --config /tmp/second/taskd.toml
        has "$said" 'web1' 'why it is refused'
        works
        ends 0 systemctl enable redis-server
        reboots orderly
        ;;
    3)
        check 'both are started by the boot, whichever comes first'
        within 30 active
        within 20 says '^running'
        works
        ;;
esac
