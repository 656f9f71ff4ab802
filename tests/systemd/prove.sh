#!/bin/bash
# Proves in booted machines what only a real systemd can show: installs the package in each and runs a scenario there.
# Two machines at a time, a line for each scenario, and at the end a code that is not 0 if any failed.
#
#   tests/systemd/prove.sh [SET…] [--deb FILE] [--jobs N] [--only NAME] [--artifacts DIR]
#
#   nspawn   everything that a container can prove (about a minute when the cache is there)
#   uml      limits, kills, AppArmor, schedules, and reboots with real power cuts, in a kernel of its own with control groups
#   qemu     the same and the everyday in Debian's own kernel: before a release
# Without a SET: nspawn and uml. Without --deb: the newest taskd_*.deb below target/. What a machine printed, its journal
# and its console are in target/systemd/proof/NAME, and of a scenario that failed on the screen.
set -u
here=$(cd "$(dirname "$0")" && pwd)
sets=() deb='' jobs=2 only='' artifacts=$here/../../target/systemd/proof
while [ $# -gt 0 ]; do
    case $1 in
        nspawn | uml | qemu) sets+=("$1") ;;
        --deb) deb=$2; shift ;;
        --jobs) jobs=$2; shift ;;
        --only) only=$2; shift ;;
        --artifacts) artifacts=$2; shift ;;
        *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 64 ;;
    esac
    shift
done
[ ${#sets[@]} -gt 0 ] || sets=(nspawn uml)
if [ -z "$deb" ]; then
    deb=$(find "$here/../../target" -maxdepth 2 -name 'taskd_*.deb' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    [ -n "$deb" ] || { echo 'there is no package: `make deb` builds it' >&2; exit 64; }
fi
[ "$(id -u)" = 0 ] || { echo 'only root can boot machines' >&2; exit 77; }
echo "package: $(basename "$deb")"

begun=$SECONDS
mkdir -p "$artifacts"
artifacts=$(cd "$artifacts" && pwd)
newer=$artifacts/newer.deb
smoke=$here/../../packaging/debian/tests/smoke
"$here/newer.sh" "$deb" "$newer" || exit 1

# SET METHOD SUITE SECONDS SCENARIO OPTION…: longest first, so that two machines are busy to the end.
plan() {
    cat <<PLAN
uml     uml     bookworm  300  reboot
uml     uml     bookworm  300  schedules
uml     uml     bookworm  300  kills
uml     uml     bookworm  300  limits
uml     uml     bookworm  300  confine      --packages apparmor --kernel apparmor=1 --kernel security=apparmor
uml     uml     bookworm  300  drop-ins
nspawn  nspawn  trixie    120  everyday     --file $smoke
nspawn  nspawn  bookworm  120  kills
nspawn  nspawn  bookworm  120  restart
nspawn  nspawn  bookworm  120  everyday     --file $smoke
nspawn  nspawn  bookworm  120  secrets
nspawn  nspawn  trixie    120  secrets
nspawn  nspawn  bookworm  120  drop-ins
nspawn  nspawn  trixie    120  drop-ins
nspawn  nspawn  bookworm  120  upgrade      --offer $newer
nspawn  nspawn  trixie    120  upgrade      --offer $newer
nspawn  nspawn  bookworm  120  other-taskd  --offer taskd
nspawn  nspawn  bookworm  120  reboot
nspawn  nspawn  bookworm  120  homes
nspawn  nspawn  bookworm  120  broker       --offer redis-server
nspawn  nspawn  bookworm  120  journald
nspawn  nspawn  bookworm  120  reload
qemu    qemu    bookworm  600  reboot
qemu    qemu    bookworm  600  schedules
qemu    qemu    bookworm  600  kills
qemu    qemu    bookworm  600  limits
qemu    qemu    bookworm  600  everyday     --file $smoke
qemu    qemu    bookworm  600  secrets
qemu    qemu    bookworm  600  drop-ins
qemu    qemu    bookworm  600  confine      --packages apparmor --kernel apparmor=1 --kernel security=apparmor
qemu    qemu    bookworm  600  upgrade      --offer $newer
PLAN
}

# One scenario, to its end; its line comes out whole.
prove() {
    local method=$1 suite=$2 limit=$3 scenario=$4 name code=0 start=${EPOCHREALTIME/./} verdict
    shift 4
    name=$method-$suite-$scenario
    # Ours is not to be there before theirs.
    if [ "$scenario" = other-taskd ]; then set -- --offer "$deb" "$@"; else set -- --deb "$deb" "$@"; fi
    rm -rf "${artifacts:?}/$name"
    mkdir -p "$artifacts/$name"
    "$here/boot.sh" --quiet --method "$method" --suite "$suite" --timeout "$limit" --artifacts "$artifacts/$name" \
        --script "$here/$scenario.sh" "$@" >"$artifacts/$name/said" 2>&1 || code=$?
    case $code in
        0) verdict=ok ;;
        77) verdict='NOT PROVED' ;;
        *) verdict="FAILED ($code)" ;;
    esac
    local tenths=$(((${EPOCHREALTIME/./} - start) / 100000))
    printf '%-24s %-9s %5d.%d s  %s\n' "$scenario" "$method" $((tenths / 10)) $((tenths % 10)) "$verdict, $suite"
    if [ "$code" != 0 ]; then
        sed 's/^/    /' "$artifacts/$name/said"
        [ ! -e "$artifacts/$name/at-failure" ] || cat "$artifacts/$name/at-failure"
        [ "$code" = 77 ] || return 1
    fi
}

# Prepared once, before the clocks of the scenarios run; each set of packages by itself.
prepared=' '
while read -r of method suite _ scenario options; do
    [[ " ${sets[*]} " = *" $of "* ]] || continue
    [ -z "$only" ] || [ "$only" = "$scenario" ] || continue
    packages=''
    [[ $options != *'--packages '* ]] || { packages=${options#*--packages }; packages=${packages%% *}; }
    case $prepared in *" $method-$suite-$packages "*) continue ;; esac
    prepared+="$method-$suite-$packages "
    "$here/boot.sh" --prepare --method "$method" --suite "$suite" --packages "$packages" || { [ $? = 77 ] || exit 1; }
done < <(plan)

failed=0 running=0 count=0
while read -r of method suite limit scenario options; do
    [[ " ${sets[*]} " = *" $of "* ]] || continue
    [ -z "$only" ] || [ "$only" = "$scenario" ] || continue
    if [ "$running" -ge "$jobs" ]; then
        wait -n || failed=$((failed + 1))
        running=$((running - 1))
    fi
    # shellcheck disable=SC2086  # words
    prove "$method" "$suite" "$limit" "$scenario" $options </dev/null &
    running=$((running + 1)) count=$((count + 1))
done < <(plan)
while [ "$running" -gt 0 ]; do
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
done
echo "$count scenarios, $failed failed, $((SECONDS - begun)) s"
[ "$failed" = 0 ] && [ "$count" -gt 0 ]
