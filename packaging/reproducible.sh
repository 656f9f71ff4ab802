#!/bin/bash
# Builds the packages twice from nothing, in two directories with names of different length, and compares every byte:
# packaging/reproducible.sh [dist|release]. Takes two full builds of the program.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-dist}
mkdir -p target
base=$(mktemp -d "$PWD/target/reproducible.XXXXXX")
trap 'rm -rf "$base"' EXIT
for name in one another-place; do
    mkdir "$base/$name"
    tar -c --exclude=./target --exclude=./.git . | tar -x -C "$base/$name"
    # The build's own umask and language must not show.
    (cd "$base/$name" && umask 027 && CARGO_TARGET_DIR=$PWD/build LANG=C packaging/deb.sh --profile "$profile" --out "$base/$name.out")
    rm -rf "${base:?}/$name"
    umask 022
done
differ=0
for deb in "$base"/one.out/*.deb; do
    if cmp "$deb" "$base/another-place.out/${deb##*/}"; then
        echo "the same bytes: ${deb##*/} $(sha256sum "$deb" | cut -d' ' -f1)"
    else
        differ=1
    fi
done
exit $differ
