#!/bin/bash
# Boots a machine with a real systemd, installs packages in it with apt, runs a script there as root, and brings out its
# exit code, its output and the journal. Needs root; the first run builds a root file system (a minute), later ones boot it.
#
#   tests/systemd/boot.sh [OPTION…] --script TEST.sh [-- ARGUMENT…]
#
#   --method nspawn|uml|qemu  nspawn (default): a container, up in a second; the host's kernel, so no limits by control
#                             groups unless the host gives them
#                             uml: User Mode Linux, Debian's kernel as an ordinary process; cgroup v2 with cpu, io, memory
#                             and pids; one CPU, no network but lo, about 50 ms for each process started
#                             qemu: Debian's cloud kernel in full emulation; the slowest and the most like a server
#   --suite NAME              the Debian release inside (default bookworm)
#   --packages "A B"          Debian packages that the root file system has beside the few it needs
#   --deb FILE                a package to install before the script runs; may be repeated
#   --offer FILE|NAME         a package (a file, or one of Debian's by name) that apt finds inside and nobody installs
#   --file PATH               a file or folder that is to be in /test/in; may be repeated
#   --timeout SECONDS         for everything from the first boot on (default 170)
#   --memory MIB, --cpus N    of uml (one CPU always) and qemu (default 1024 and 2)
#   --kernel WORD             a word for the kernel's command line, of uml and qemu; may be repeated
#   --artifacts DIR           where the log, the journal, the console and what the script left in $OUT go
#   --keep DIR                keep the machine's disk there, and go on with the one that is there already
#   --prepare                 only fill the cache, then stop
#   --quiet                   print what the script prints, and nothing else unless the machine fails
#
# The script finds /test/in (its inputs; prologue.sh from its own folder goes along), $OUT (/test/out), $METHOD, $SUITE
# and $PHASE, which is 1. It can write a word into $OUT/again and end:
#   orderly   the machine shuts down, is booted again with the same disk, and the script runs with the next $PHASE
#   hard      the same, but the machine is killed as it stands: what it had not written to its disk is gone
# (In a container the disk is the host's page cache: only uml and qemu lose what was not synced.)
#
# Exit code: the script's; 124 out of time; 125 the machine failed; 126 apt could not install; 77 not to be had here.
# The cache is target/systemd (TASKD_BOOT_CACHE). Debian is fetched from the host's mirror or from TASKD_BOOT_MIRROR.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
method=nspawn suite=bookworm packages='' seconds=170 memory=1024 cpus=2
append='' artifacts='' keep='' prepare='' quiet='' script=''
debs=() offers=() files=() arguments=()

say() { [ -n "$quiet" ] || printf 'boot: %s\n' "$*" >&2; }
die() { printf 'boot: %s\n' "$*" >&2; exit 125; }
readable() { [ -r "$1" ] || die "$1 is not there to be read"; realpath -- "$1"; }

words=("$@")
while [ $# -gt 0 ]; do
    case $1 in
        --method | --suite | --packages | --deb | --offer | --file | --script | --timeout | --memory | --cpus | --kernel | --artifacts | --keep)
            [ $# -gt 1 ] || die "$1 needs a value" ;;
    esac
    case $1 in
        --method) method=$2; shift ;;
        --suite) suite=$2; shift ;;
        --packages) packages=$2; shift ;;
        --deb) debs+=("$(readable "$2")"); shift ;;
        --offer) case $2 in *.deb) offers+=("$(readable "$2")") ;; *) offers+=("$2") ;; esac; shift ;;
        --file) files+=("$(readable "$2")"); shift ;;
        --script) script=$(readable "$2"); shift ;;
        --timeout) seconds=$2; shift ;;
        --memory) memory=$2; shift ;;
        --cpus) cpus=$2; shift ;;
        --kernel) append+=" $2"; shift ;;
        --artifacts) artifacts=$2; shift ;;
        --keep) keep=$2; shift ;;
        --prepare) prepare=1 ;;
        --quiet) quiet=1 ;;
        --) shift; arguments=("$@"); break ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) die "unknown argument $1 (see --help)" ;;
    esac
    shift
done
case $method in nspawn | uml | qemu) ;; *) die "no such method: $method" ;; esac
[ -n "$prepare$script" ] || die 'what is to run there? --script is missing'
[ "$(id -u)" = 0 ] || die 'only root can boot a machine'
[ "$(uname -m)" = x86_64 ] || { echo 'boot: only on amd64' >&2; exit 77; }
# Mounts made here are seen by nobody else and end with this process, however it ends.
[ -n "${BOOT_UNSHARED:-}" ] || BOOT_UNSHARED=1 exec unshare --mount --propagation private "$0" "${words[@]}"
unset BOOT_UNSHARED

# A command's seconds, from the fraction of the clock that bash has.
begun=${EPOCHREALTIME/./}
since() { local us=$((${EPOCHREALTIME/./} - $1)); printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10)); }

run='' main='' tailer='' groups=()
clean_up() {
    trap - EXIT ERR
    set +e
    local pid group
    for pid in $main $tailer; do kill -KILL "$pid" && wait "$pid"; done 2>/dev/null
    for group in "${groups[@]}"; do remove_group "$group" || say "left behind: $group"; done
    [ -z "$run" ] || discard "$run"
}
failed() { printf 'boot: failed (%s) at line %s: %s\n' "$1" "$2" "${3%%$'\n'*}" >&2; exit 125; }
trap clean_up EXIT
trap 'failed $? $LINENO "$BASH_COMMAND"' ERR
trap 'exit 130' INT
trap 'exit 143' TERM HUP

bash "$here/../needs.sh" boot >&2 || exit 125
# shellcheck source=tests/systemd/cache.sh
. "$here/cache.sh"
# shellcheck source=tests/systemd/machine.sh
. "$here/machine.sh"

# One preparation at a time; the boots themselves go on beside each other.
exec 9>"$cache/lock"
flock 9
make_root
make_tools
[ "$method" = nspawn ] || make_image
if [ -n "$prepare" ]; then
    say "the cache is ready after $(since "$begun") s"
    exit 0
fi
sweep
run=$(mktemp -d "$cache/run-XXXXXX")
chmod 755 "$run"
echo $$ >"$run/pid"
fetch_packages
flock -u 9

# What the machine gets: the script and its files, and a flat repository with all packages.
in=$run/test/in out=$run/test/out
mkdir -p "$in/repository" "$out"
cp -- "$script" "$in/script"
cp -- "$here/guest.sh" "$in/guest"
prologue=$(dirname "$script")/prologue.sh
[ ! -e "$prologue" ] || cp -- "$prologue" "$in/"
for f in "${files[@]}"; do cp -a -- "$f" "$in/"; done
names=()
for f in "${debs[@]}"; do names+=("$(dpkg-deb -f "$f" Package)=$(dpkg-deb -f "$f" Version)"); done
for f in "${debs[@]}" "${offers[@]}"; do case $f in *.deb) cp -- "$f" "$in/repository/" ;; esac; done
[ -z "$fetched" ] || find "$fetched" -maxdepth 1 -name '*.deb' -exec cp -t "$in/repository" {} +
for f in "$in"/repository/*.deb; do
    [ -e "$f" ] || continue
    dpkg-deb -f "$f"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${f##*/}" "$(stat -c %s "$f")" "$(sha256sum "$f" | cut -d' ' -f1)"
done >"$in/repository/Packages"
{
    printf 'export METHOD=%q SUITE=%q\n' "$method" "$suite"
    printf 'install=('; [ ${#names[@]} = 0 ] || printf '%q ' "${names[@]}"; printf ')\n'
    printf 'set --'; [ ${#arguments[@]} = 0 ] || printf ' %q' "${arguments[@]}"; printf '\n'
} >"$in/settings"
chmod -R a+rX "$run/test"

log=$out/log console=$out/console
: >"$log"
make_disk
if [ -z "$quiet" ]; then
    tail -n +1 -s 0.2 -f --pid=$$ "$log" 9>&- &
    tailer=$!
fi

say "$method, $suite: prepared in $(since "$begun") s"
booted=${EPOCHREALTIME/./} late=$((SECONDS + seconds)) phase=0 ended=125
while :; do
    phase=$((phase + 1))
    echo "$phase" >"$in/phase"
    rm -f "$out/again" "$out/code" "$out/control"
    run_machine "$late"
    [ ! -e "$run/late" ] || { ended=124; break; }
    if [ -s "$out/code" ]; then ended=$(cat "$out/code"); break; fi
    [ -s "$out/again" ] || break
    say "the machine went down ($(cat "$out/again")) after $(since "$booted") s: booting again"
done
[ -z "$tailer" ] || { read -rt 0.4 <>"$run/never" || :; kill "$tailer" 2>/dev/null || :; tailer=''; }
[ -z "$quiet" ] || cat "$log"
if [ -n "$artifacts" ]; then
    mkdir -p "$artifacts"
    cp -a "$out/." "$artifacts/"
fi
case $ended in
    124) echo "boot: $method: out of time ($seconds s)" >&2 ;;
    125) echo "boot: $method: the machine ended without a result" >&2 ;;
esac
[ "$ended" -ne 124 ] && [ "$ended" -ne 125 ] || tail -n 25 "$console" >&2
say "$method, $suite: exit $ended; $phase boot(s), $(since "$booted") s, in all $(since "$begun") s"
exit "$ended"
