#!/bin/bash
# Makes a package of a newer version out of one that was built: what an upgrade is tested with. The program in it says the
# newer version too: its own is overwritten where it stands, so that nothing has to be built.
#
#   tests/systemd/newer.sh OLD.deb NEW.deb
set -euo pipefail
old=$(realpath "$1") new=$(realpath -m "$2")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
dpkg-deb -R "$old" "$dir/deb"
was=$("$dir/deb/usr/bin/taskd" --version | cut -d' ' -f2)
# As long as it was, and higher: 0.1.0 becomes 0.9.0. Its beginning alone is looked for, because a compiler moves so short
# a text in two pieces.
now=$(sed -E 's/^([0-9]+)\.[0-8]\./\1.9./' <<<"$was")
[ "$now" != "$was" ] || { echo "newer.sh: cannot make a higher version of $was" >&2; exit 1; }
LC_ALL=C sed -i "s/${was%%.*}\.$(cut -d. -f2 <<<"$was")\./${was%%.*}.9./g" "$dir/deb/usr/bin/taskd"
[ "$("$dir/deb/usr/bin/taskd" --version)" = "taskd $now" ] || { echo "newer.sh: the program does not say $now" >&2; exit 1; }
sed -i "s/^Version: .*/&+newer/" "$dir/deb/DEBIAN/control"
# The sums of a package that changed are its own business; this is never published.
rm -f "$dir/deb/DEBIAN/md5sums"
dpkg-deb -Zgzip -z1 --root-owner-group -b "$dir/deb" "$new" >/dev/null
