#!/bin/bash
# Builds the Debian packages: packaging/deb.sh [--profile dist|release] [--binary FILE] [--out DIR]
#
#   --profile   which program is built for it (default dist: slow to build, what is meant to be published)
#   --binary    package this program instead of building one
#   --out       where the packages go (default target/deb)
#
# Why debhelper and not a tool of Rust's: it makes what Debian's own packages have (units enabled and started through
# deb-systemd-helper, AppArmor profiles loaded, byte code of the Python module, md5sums, reproducible archives), lintian
# and dpkg-buildpackage judge it as they judge any other package.
#
# Reproducible: paths of the machine are mapped away, times are those of the changelog's last entry.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
profile=dist binary='' out=target/deb
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || { echo "deb.sh: $1 needs a value" >&2; exit 64; }
    case $1 in
        --profile) profile=$2 ;;
        --binary) binary=$(realpath -- "$2") ;;
        --out) out=$2 ;;
        *) echo "deb.sh: unknown option $1" >&2; exit 64 ;;
    esac
    shift 2
done
bash tests/needs.sh deb

SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l packaging/debian/changelog -S Timestamp)
export SOURCE_DATE_EPOCH
if [ -z "$binary" ]; then
    # Another RUSTFLAGS builds everything anew, so this has a target directory of its own.
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target/deb-build}
    cargo=${CARGO_HOME:-$HOME/.cargo}
    RUSTFLAGS="--remap-path-prefix=$cargo=/cargo --remap-path-prefix=$here=/taskd --remap-path-prefix=$CARGO_TARGET_DIR=/target" \
        "${CARGO:-cargo}" build --locked --profile "$profile" --bin taskd
    binary=$CARGO_TARGET_DIR/$profile/taskd
fi

mkdir -p "$out"
out=$(realpath "$out")
stage=$(mktemp -d "$out/.stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT
tree=$stage/taskd
mkdir "$tree"
# Copies, so that what debhelper changes is not the repository's.
cp -a --no-preserve=ownership CHANGELOG.md LICENSE LICENSE-APACHE LICENSE-MIT README.md config packaging systemd "$tree/"
mv "$tree/packaging/debian" "$tree/debian"
python3 packaging/third_party.py >"$tree/debian/THIRD-PARTY"
find "$tree" -name __pycache__ -prune -exec rm -rf {} +
chmod -R u+rwX,go+rX,go-w "$tree"
# Only what is built here counts: neither the user's umask nor the machine's language.
umask 022
(cd "$tree" && TASKD_BINARY=$binary LC_ALL=C.UTF-8 dpkg-buildpackage --build=binary --no-sign) >"$stage/log" 2>&1 || {
    cat "$stage/log" >&2
    exit 1
}
for deb in "$stage"/*.deb; do
    mv "$deb" "$out/"
    echo "$out/${deb##*/}"
done
