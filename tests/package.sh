#!/bin/bash
# Builds the Debian packages and judges them: tests/package.sh [DIR]. They stay in DIR (default target/package) for the
# tests in a booted system. The program is built with the profile `release`; what is published has `dist`.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/package}
passed=0 failed=0

# check WORDS COMMAND...: runs it; what it prints is shown where it fails.
check() {
    local words=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok      $words${said:+: ${said%%$'\n'*}}"
        passed=$((passed + 1))
    else
        printf 'FAILED  %s\n%s\n' "$words" "$said"
        failed=$((failed + 1))
    fi
}

rm -rf "$out"
mkdir -p "$out/again"
packaging/deb.sh --profile release --out "$out"
packaging/deb.sh --binary target/deb-build/release/taskd --out "$out/again" >/dev/null
deb=$(echo "$out"/taskd_*.deb)
tree=$out/tree
dpkg-deb -x "$deb" "$tree"

same() { for one in "$out"/*.deb; do cmp "$one" "$out/again/${one##*/}" || return 1; done; }

no_lint() {
    # It warns about root, which is not about the package.
    lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$out"/*.deb
}

small() {
    local kib
    kib=$(dpkg-deb -f "$deb" Installed-Size)
    echo "$kib KiB"
    # What is published (`dist`, optimized as a whole) was an eighth smaller than this quick build whenever both were
    # measured; its own bound is 15 MiB.
    [ "$kib" -lt $((17 * 1024)) ]
}

base_only() {
    local needs
    needs=$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/(.*//; s/ //g')
    echo "$needs" | paste -sd' '
    ! grep -vxE 'systemd\|systemd-sysusers|libc6|libgcc-s1' <<<"$needs"
}

files() {
    local missing='' file
    for file in usr/bin/taskd etc/taskd.toml etc/taskd.d {usr/,}lib/systemd/system/taskd.{service,socket} \
        usr/lib/systemd/user/taskd.{service,socket} usr/lib/sysusers.d/taskd.conf usr/lib/tmpfiles.d/taskd.conf \
        etc/apparmor.d/taskd-daemon usr/share/man/man1/taskd.1.gz usr/share/man/man5/taskd.toml.5.gz \
        usr/share/man/man7/taskd-worker.7.gz usr/share/bash-completion/completions/taskd \
        usr/share/zsh/vendor-completions/_taskd usr/share/fish/vendor_completions.d/taskd.fish \
        usr/share/doc/taskd/examples/drop-ins/{tight,sandbox,administer}.conf; do
        # Units are in /lib up to Debian 12, in /usr/lib after it.
        case $file in
            usr/lib/systemd/system/*) [ -e "$tree/$file" ] || [ -e "$tree/${file#usr/}" ] || missing+=" $file" ;;
            lib/*) ;;
            *) [ -e "$tree/$file" ] || missing+=" $file" ;;
        esac
    done
    [ -z "$missing" ] || { echo "missing:$missing"; return 1; }
    [ "$(stat -c %a "$tree/etc/taskd.toml")" = 640 ] || { echo 'etc/taskd.toml is for all to read'; return 1; }
    [ "$(dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./conffiles | sort | paste -sd' ')" = \
        '/etc/apparmor.d/taskd-daemon /etc/taskd.toml' ] || { echo 'other conffiles'; return 1; }
}

versions() {
    local package crate
    package=$(dpkg-deb -f "$deb" Version)
    crate=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    echo "$package"
    [ "$package" = "1:$crate" ] && [ "$("$tree/usr/bin/taskd" --version)" = "taskd $crate" ]
}

paths() {
    # A path of the machine that built it makes other bytes on the next one.
    ! grep -aoE -m 3 "(${PWD}|${CARGO_HOME:-$HOME/.cargo})/[^[:cntrl:]]{0,60}" "$tree/usr/bin/taskd"
}

profile() { apparmor_parser --skip-kernel-load --skip-cache --quiet --base "$tree/etc/apparmor.d" --Include /etc/apparmor.d "$tree/etc/apparmor.d/taskd-daemon"; }

scripts() {
    local script
    for script in preinst postinst prerm postrm; do
        dpkg-deb --ctrl-tarfile "$deb" | tar -xO "./$script" | sh -n || return 1
    done
}

check 'packed twice, the same bytes' same
check 'lintian has nothing to say' no_lint
check 'installed, the quick build is below 17 MiB' small
check 'it needs nothing beyond the base system' base_only
check 'every file is where it belongs' files
check 'the package and the program have one version' versions
check 'no path of this machine is in the program' paths
check 'the AppArmor profile is valid' profile
check 'the maintainer scripts are POSIX shell' scripts
echo "package: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
