#!/bin/bash
# Makes sure that the programs the tests (or the benches) call are there: installs the Debian packages that
# are missing when it may, else names them and stops. Usage: tests/needs.sh test|deb|bench|boot
set -u

# What is called, and the Debian package that has it.
declare -A package=(
    [cc]=gcc
    [unshare]=util-linux
    [prlimit]=util-linux
    [setpriv]=util-linux
    [mount]=mount
    [/lib/systemd/systemd-journald]=systemd
    [journalctl]=systemd
    [python3]=python3
    [openssl]=openssl
    [zsh]=zsh
    [fish]=fish
    [groff]=groff-base
    [mandoc]=mandoc
)
if [ "${1:-test}" = deb ] || [ "${1:-test}" = test ]; then
    package[dpkg-buildpackage]=dpkg-dev
    package[dh]=debhelper
    package[dh_apparmor]=dh-apparmor
    package[dh_python3]=dh-python
    package[fakeroot]=fakeroot
    package[lintian]=lintian
    package[apparmor_parser]=apparmor
fi
if [ "${1:-test}" = bench ]; then
    package[strace]=strace
    package[redis-server]=redis-server
    package[redis-cli]=redis-tools
fi

if [ "${1:-test}" = boot ]; then
    # A machine for each test: what builds its root file system, and what starts it.
    package=(
        [unshare]=util-linux
        [findmnt]=util-linux
        [mount]=mount
        [mmdebstrap]=mmdebstrap
        [systemd-nspawn]=systemd-container
        [mkfs.ext4]=e2fsprogs
        [dpkg-deb]=dpkg
    )
fi

# Celery in a virtualenv of its own, made anew when the list of its packages changed. Beside the tests, not in the
# target directory that CARGO_TARGET_DIR may name: they look for it here.
celery() {
    local here venv
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || return 1
    venv=$here/target/venv-celery
    cmp -s "$here/tests/celery.txt" "$venv/made-of" && return 0
    echo "making $venv"
    rm -rf "$venv" && mkdir -p "$here/target" && python3 -m venv "$venv" &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/tests/celery.txt" &&
        cp "$here/tests/celery.txt" "$venv/made-of" || {
        echo "cannot install Celery into $venv: without it the tests of Celery apps fail" >&2
        return 1
    }
}

missing=()
for program in "${!package[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
# Debian has what a virtualenv is made with in a package of its own.
if [ "${1:-test}" = test ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3-venv)
fi
if [ ${#missing[@]} -eq 0 ]; then
    [ "${1:-test}" != test ] || celery
    exit
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "missing Debian packages: ${missing[*]}" >&2
        echo "install them (apt-get install ${missing[*]}) or run this as root" >&2
        exit 1
    fi
fi
if ! command -v apt-get >/dev/null; then
    echo "missing, and there is no apt-get here to install them with: ${missing[*]}" >&2
    exit 1
fi

echo "installing: ${missing[*]}"
# A package must not start services here, whatever it ships.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null && "${as_root[@]}" chmod 755 "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
}
# Lists may be absent or too old: fetch them and try once more before giving up.
install || { "${as_root[@]}" apt-get update -q && install; } || {
    echo "apt-get could not install: ${missing[*]}" >&2
    exit 1
}
[ "${1:-test}" != test ] || celery
