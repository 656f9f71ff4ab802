#!/bin/bash
# Proves what only a kernel with control groups can: runs the launcher's tests of them, tests/uml/limits.sh and
# tests/uml/preload.sh, each in a kernel of its own. Part of `make test`. Where User Mode Linux is not to be had (other processors, no apt-get), says so
# and fails nobody.
set -u
cd "$(dirname "$0")/../.." || exit 1
launcher=$(cargo test --test launcher --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
[ -x "$launcher" ] || { echo "uml: the launcher's tests were not built" >&2; exit 1; }
boot() {
    tests/uml/boot.sh -t "${TASKD_UML_SECONDS:-400}" "$@"
    case $? in
        0) ;;
        77) echo 'uml: NOT PROVED here: limits by control groups' >&2; exit 0 ;;
        *) exit 1 ;;
    esac
}
boot "$PWD/$launcher" cgroup:: --test-threads=2
boot bash tests/uml/limits.sh target/debug/taskd
boot bash tests/uml/preload.sh target/debug/taskd
