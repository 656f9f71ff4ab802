#!/bin/bash
# Prints the path of a User Mode Linux kernel: the one that is installed, else Debian's package user-mode-linux,
# downloaded once into target/uml and unpacked there without installing it. Exit code 77: it is not to be had here.
set -u
home=${TASKD_UML_HOME:-$(dirname "$0")/../../target/uml}
mkdir -p "$home" && home=$(cd "$home" && pwd)
kernel=$home/usr/bin/linux.uml
exec 9>"$home/lock" && flock 9
if command -v linux.uml; then exit; fi
if [ ! -x "$kernel" ]; then
    if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get dpkg >/dev/null; then
        echo 'uml: no User Mode Linux here: it is a Debian package of amd64' >&2
        exit 77
    fi
    # In a folder of its own, so that a download that was cut short leaves nothing that looks whole.
    new=$(mktemp -d "$home/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    cd "$new" || exit 77
    if ! { apt-get download -q -o APT::Sandbox::User=root user-mode-linux || { apt-get update -q && apt-get download -q -o APT::Sandbox::User=root user-mode-linux; }; } >&2 ||
        ! dpkg -x user-mode-linux_*.deb . || ! { rm -rf "${home:?}/usr" && mv usr "$home/usr"; }; then
        echo 'uml: no User Mode Linux: install the Debian package user-mode-linux' >&2
        exit 77
    fi
fi
printf '%s\n' "$kernel"
