#!/bin/bash
# Proves what only a kernel with control groups can: runs the launcher's tests of them and tests/uml/limits.sh in one.
# Part of `make test`. Where User Mode Linux is not to be had (other processors, no apt-get), says so and fails nobody.
set -u
cd "$(dirname "$0")/../.."
launcher=$(cargo test --test launcher --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
[ -x "$launcher" ] || { echo "uml: the launcher's tests were not built" >&2; exit 1; }
tests/uml/boot.sh -t "${TASKD_UML_SECONDS:-600}" bash -c '"$0" cgroup:: --test-threads=2 && exec bash tests/uml/limits.sh target/debug/taskd' \
    "$PWD/$launcher"
code=$?
if [ $code = 77 ]; then
    echo 'uml: NOT PROVED here: limits by control groups' >&2
    exit 0
fi
exit $code
