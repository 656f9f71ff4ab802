#!/bin/bash
# The package, built and judged, and then used in booted systems: tests/booted.sh. Only root can boot machines; for
# anybody else this says so and proves nothing.
set -u
cd "$(dirname "$0")/.." || exit 1
if [ "$(id -u)" != 0 ]; then
    echo 'not proved: the package in booted systems (only root can boot them)'
    exit 0
fi
bash tests/needs.sh deb && bash tests/needs.sh boot || exit 1
failed=0
bash tests/package.sh || failed=1
tests/systemd/prove.sh --deb "$(echo target/package/taskd_*.deb)" || failed=1
exit $failed
