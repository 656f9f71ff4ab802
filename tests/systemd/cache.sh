# shellcheck shell=bash disable=SC2154  # sourced by boot.sh, which sets what is used here
# What is built or fetched once and kept in the cache: the root file system, its image, the kernels, and packages.

cache=${TASKD_BOOT_CACHE:-$here/../../target/systemd}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
chmod 755 "$cache"

# Where the host gets Debian from; another system than Debian leaves it to mmdebstrap.
mirror=${TASKD_BOOT_MIRROR:-} security_mirror=${TASKD_BOOT_SECURITY_MIRROR:-}
if [ -z "$mirror" ] && grep -qx 'ID=debian' /etc/os-release; then
    # shellcheck disable=SC2016  # apt's own variable
    uris=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sort -u) || uris=''
    mirror=$(grep -v security <<<"$uris" | head -n 1) || mirror=''
    security_mirror=$(grep security <<<"$uris" | head -n 1) || security_mirror=''
fi
sources() { # sources SUITE
    [ -n "$mirror" ] || return 0
    printf 'deb %s %s main\n' "$mirror" "$1" "$mirror" "$1-updates"
    [ -z "$security_mirror" ] || printf 'deb %s %s main\n' "$security_mirror" "$1-security"
}

apt_host() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@" >&2; }

# Inside, after everything else has started: what the machine was booted for. The disk knows only how to reach /test.
root_unit() {
    cat <<'UNIT'
[Unit]
Description=The test of this boot
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/bash /usr/local/lib/boot-test
TimeoutStopSec=5
UNIT
}
root_entry() {
    cat <<'ENTRY'
mkdir -p /test
shared=$(sed -n 's/.*\btest_shared=\([^ ]*\).*/\1/p' /proc/cmdline)
if [ -e /test/in/guest ] && mountpoint -q /test; then :
elif [ -n "$shared" ]; then mount -t hostfs none /test -o "$shared"
else tar -xf /dev/nvme1n1 -C /test; fi
exec bash /test/in/guest
ENTRY
}

base=systemd,systemd-sysv,dbus,libpam-systemd,passwd,procps,iproute2,jq
key=$({ echo "1 $suite $base $packages"; sources "$suite"; root_unit; root_entry; } | sha256sum | cut -c1-12)
root=$cache/root-$suite-$key image=$cache/root-$suite-$key.ext4

make_root() {
    [ ! -e "$root/.complete" ] || return 0
    say "building the root file system of $suite, once"
    rm -rf --one-file-system "$root"
    local list=()
    mapfile -t list < <(sources "$suite")
    mmdebstrap --quiet --mode=root --variant=apt --include="$base${packages:+,${packages// /,}}" \
        --aptopt='APT::Install-Recommends "false"' "$suite" "$root" "${list[@]}" >&2
    # Inside, apt is to behave as on anybody's machine.
    rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
    echo machine >"$root/etc/hostname"
    printf '127.0.0.1 localhost machine\n::1 localhost\n' >"$root/etc/hosts"
    # Empty: systemd makes one up and keeps it, and this is no "first boot".
    : >"$root/etc/machine-id"
    root_unit >"$root/etc/systemd/system/boot-test.service"
    mkdir -p "$root/usr/local/lib" "$root/test"
    root_entry >"$root/usr/local/lib/boot-test"
    # Without udev a getty waits 90 s for its terminal; the rest would only be in the way.
    local unit
    for unit in console-getty.service getty@tty1.service serial-getty@ttyS0.service serial-getty@tty0.service \
        apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    chmod 755 "$root"
    touch "$root/.complete"
}

make_image() { # the same as a disk, for a kernel that has one
    [ ! -e "$image" ] || [ ! "$image" -nt "$root/.complete" ] || return 0
    say 'building the disk image, once'
    truncate -s 8G "$image.new"
    mkfs.ext4 -q -F -d "$root" -E lazy_itable_init=1,lazy_journal_init=1 "$image.new"
    mv "$image.new" "$image"
}

make_tools() {
    case $method in
        uml)
            local code=0
            # shellcheck disable=SC2034  # machine.sh boots it
            kernel=$("$here/../uml/kernel.sh") || code=$?
            [ "$code" = 0 ] || exit "$code" ;;
        qemu)
            # A root file system of its own, also for the kernel: installing qemu could remove what the host has of it.
            [ ! -e "$cache/qemu/.complete" ] || return 0
            say 'building the root file system with qemu and the kernel, once'
            rm -rf --one-file-system "$cache/qemu"
            local list=()
            mapfile -t list < <(sources bookworm)
            # shellcheck disable=SC2016  # for the shell inside
            mmdebstrap --quiet --mode=root --variant=apt --include=qemu-system-x86 --aptopt='APT::Install-Recommends "false"' \
                --customize-hook='chroot "$1" sh -ec "cd /tmp
                    apt-get -q -o APT::Sandbox::User=root download \$(apt-cache depends linux-image-cloud-amd64 | sed -n \"s/.*Depends: \(linux-image.*\)/\1/p\" | head -n 1)
                    dpkg-deb --fsys-tarfile linux-image-*.deb | tar -xO --wildcards \"./boot/vmlinuz-*\" >/vmlinuz
                    rm linux-image-*.deb"' \
                bookworm "$cache/qemu" "${list[@]}" >&2
            mkdir "$cache/qemu/w"
            touch "$cache/qemu/.complete" ;;
    esac
}

# What the packages need and the root file system lacks, and the packages that are offered by name, are fetched once.
# Found out by asking apt in a throw-away copy of the root file system.
fetched=''
fetch_packages() {
    local f named=() local_debs=() meta
    for f in "${offers[@]}"; do case $f in *.deb) ;; *) named+=("$f") ;; esac; done
    for f in "${debs[@]}" "${offers[@]}"; do case $f in *.deb) local_debs+=("$f") ;; esac; done
    [ $((${#named[@]} + ${#local_debs[@]})) -gt 0 ] || return 0
    meta=$({
        echo "$key ${named[*]}"
        for f in "${local_debs[@]}"; do dpkg-deb -f "$f" Package Depends Pre-Depends; done
    } | sha256sum | cut -c1-12)
    fetched=$cache/debs-$suite-$meta
    [ ! -e "$fetched/.complete" ] || return 0
    rm -rf "$fetched"
    mkdir -p "$fetched/partial"
    ROOT=$root FETCHED=$fetched TMP=$run NAMED="${named[*]}" DEBS="${#debs[@]}" \
        unshare --mount --propagation private bash -eu -s -- "${local_debs[@]}" >&2 <<'INSIDE' || die 'apt cannot find what the packages need'
copy=$TMP/copy
mkdir "$copy" && mount -t tmpfs none "$copy" && mkdir "$copy/upper" "$copy/work" "$copy/root"
mount -t overlay none -o "lowerdir=$ROOT,upperdir=$copy/upper,workdir=$copy/work" "$copy/root"
cd "$copy/root"
mkdir x
for f; do cp -- "$f" x/; done
cp -L /etc/resolv.conf etc/resolv.conf
mount -t proc proc proc
mount --rbind /dev dev
inside() { chroot . env DEBIAN_FRONTEND=noninteractive apt-get -o APT::Install-Recommends=false -o APT::Sandbox::User=root "$@"; }
updated=''
update() {
    [ -z "$updated" ] || return 0
    updated=1
    # The host's proxy, where it has one.
    apt-config dump | grep -E '^Acquire::https?::Proxy ' >etc/apt/apt.conf.d/99host || :
    inside -qq update
}
download() { inside -q -y -o APT::Keep-Downloaded-Packages=true -o Dir::Cache::archives=/fetched --download-only install "$@"; }
mkdir fetched
mount --bind "$FETCHED" fetched
for f in x/*.deb; do
    [ -e "$f" ] || continue
    inside -qq -s install "/$f" >/dev/null 2>&1 || { update; download "/$f"; }
done
for name in $NAMED; do update; download "$name"; done
INSIDE
    rm -rf "$fetched/partial" "$fetched/lock"
    touch "$fetched/.complete"
}

remove_group() { # its processes may need a moment to be gone
    local _
    for _ in $(seq 50); do
        find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null || :
        [ -d "$1" ] || return 0
        sleep 0.1
    done
    return 1
}
discard() {
    umount -R "$1/root" "$1/over" 2>/dev/null || :
    rmdir "/run/systemd/nspawn/propagate/${1##*/}" 2>/dev/null || :
    rm -rf --one-file-system "$1"
}
# What a run that was killed could not clean up itself.
sweep() {
    local old group
    for old in "$cache"/run-*; do
        [ -s "$old/pid" ] && ! kill -0 "$(cat "$old/pid")" 2>/dev/null || continue
        while read -r group; do remove_group "$group" || :; done < <([ ! -e "$old/groups" ] || cat "$old/groups")
        discard "$old"
    done
}
