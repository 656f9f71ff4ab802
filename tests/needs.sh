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
    [redis-server]=redis-server
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
if [ "${1:-test}" = test ]; then
    package[redis-server]=redis-server
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

# What the tests hold taskd against beside Debian's packages.
extras() {
    if [ "$1" = test ]; then
        bash "$(dirname "$0")/celery/venv.sh"
    fi
}

missing=()
for program in "${!package[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
if [ "${1:-test}" = test ] && command -v python3 >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then
    missing+=(python3-venv)
fi
if [ ${#missing[@]} -eq 0 ]; then
    extras "${1:-test}"
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
extras "${1:-test}"
