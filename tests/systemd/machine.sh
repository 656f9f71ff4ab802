# shellcheck shell=bash disable=SC2154  # sourced by boot.sh, which sets what is used here
# The machine itself: its disk, which outlives a boot, and one boot of it by each of the three methods.

# Each machine is the child of an unshare(1) that holds a pid namespace: killing that one ends everything in it at once.
# (nspawn alone, killed, would leave its container running.)
hold=(unshare --mount --propagation private --pid --fork --kill-child=KILL --mount-proc)

make_disk() {
    mkfifo "$run/never"
    disk=$run/over
    if [ -n "$keep" ]; then
        mkdir -p "$keep"
        disk=$(cd "$keep" && pwd -P)
        # A layer above another root file system than its own is no disk.
        if [ -e "$disk/of" ] && [ "$(cat "$disk/of")" != "$method $key" ]; then
            die "$keep is the disk of another machine ($(cat "$disk/of"), not $method $key)"
        fi
        echo "$method $key" >"$disk/of"
    elif [ "$method" = nspawn ]; then
        mkdir "$disk"
        # In memory, also where the cache itself lies on an overlay, which could not be an upper layer.
        mount -t tmpfs -o mode=755 none "$disk"
    else
        mkdir "$disk"
    fi
    case $method in
        nspawn)
            mkdir -p "$disk/upper" "$disk/work" "$run/root"
            mount -t overlay none -o "lowerdir=$root,upperdir=$disk/upper,workdir=$disk/work" "$run/root" ;;
        qemu) [ -e "$disk/disk" ] || cp --sparse=always "$image" "$disk/disk" ;;
    esac
}

# nspawn makes its groups below the one it is in: ours, so that two runs do not meet and ours can be removed.
own_groups() {
    local id controllers path top
    groups=()
    while IFS=: read -r id controllers path; do
        case $id:$controllers in
            0:) top=$(findmnt -rn -t cgroup2 -o TARGET | head -n 1) ;;
            *:name=systemd) top=/sys/fs/cgroup/systemd ;;
            *) continue ;;
        esac
        [ -n "$top" ] && [ -d "$top" ] || continue
        groups+=("${top%/}${path%/}/taskd-boot-${run##*-}-$phase")
    done </proc/self/cgroup
    mkdir -p "${groups[@]}"
    printf '%s\n' "${groups[@]}" >>"$run/groups"
}

boot_nspawn() {
    own_groups
    (
        for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
        # systemd from 256 on refuses control groups v1.
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
        # --keep-unit, --register=no: neither systemd nor machined of the host is asked for anything.
        exec "${hold[@]}" systemd-nspawn --quiet --boot --register=no --keep-unit --machine="${run##*/}" \
            --directory="$run/root" --private-network --link-journal=no --bind="$run/test:/test" --console=read-only \
            systemd.wants=boot-test.service systemd.show_status=true
    ) </dev/null >>"$console" 2>&1 9>&- &
    main=$!
}

boot_uml() {
    # shellcheck disable=SC2086  # words
    "${hold[@]}" "$kernel" "mem=${memory}M" root=/dev/ubda rw "ubd0=$disk/cow,$image" con=null con0=null,fd:1 ssl=null \
        "uml_dir=$run" umid=uml quiet init=/lib/systemd/systemd systemd.wants=boot-test.service systemd.getty_auto=no \
        "test_shared=$run/test" $append </dev/null >>"$console" 2>&1 9>&- &
    main=$!
}

# Nothing is shared with an emulated machine: the inputs are a tar file on a second disk, what comes out one on a third,
# and the output and requests come over serial ports. ext4 and NVMe are built into Debian's cloud kernel: no initramfs.
boot_qemu() {
    tar -cf "$run/in.tar" -C "$run/test" in
    truncate -s %1M "$run/in.tar"
    rm -f "$run/out.img"
    truncate -s 64M "$run/out.img"
    # shellcheck disable=SC2016  # for the shell that is started
    RUN=$run DISK=$disk QEMU=$cache/qemu "${hold[@]}" bash -c '
        mount -t tmpfs none "$QEMU/w" && mkdir "$QEMU/w/run" "$QEMU/w/disk"
        mount --bind "$RUN" "$QEMU/w/run" && mount --bind "$DISK" "$QEMU/w/disk"
        mount --rbind /dev "$QEMU/dev" && mount -t proc proc "$QEMU/proc"
        exec chroot "$QEMU" env TMPDIR=/w/run qemu-system-x86_64 "$@"' - \
        -M q35 -accel tcg,thread=multi -cpu max -smp "$cpus" -m "$memory" -nodefaults -no-reboot -display none -monitor none -nic none \
        -kernel /vmlinuz -append "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 init=/lib/systemd/systemd systemd.wants=boot-test.service systemd.getty_auto=no $append" \
        -drive file=/w/disk/disk,format=raw,if=none,id=d0 -device nvme,serial=d0,drive=d0 \
        -drive file=/w/run/in.tar,format=raw,if=none,id=d1,readonly=on -device nvme,serial=d1,drive=d1 \
        -drive file=/w/run/out.img,format=raw,if=none,id=d2 -device nvme,serial=d2,drive=d2 \
        -chardev file,id=console,path=/w/run/test/out/console,append=on -serial chardev:console \
        -chardev file,id=log,path=/w/run/test/out/log,append=on -serial chardev:log \
        -chardev file,id=control,path=/w/run/test/out/control -serial chardev:control \
        </dev/null >>"$console" 2>&1 9>&- &
    main=$!
}

# Boots, and waits until the machine is down, by itself or because it is to be cut off, or until it is too late.
run_machine() { # run_machine SECONDS-OF-THIS-SHELL
    "boot_$method"
    while kill -0 "$main" 2>/dev/null; do
        if [ "$SECONDS" -ge "$1" ]; then
            : >"$run/late"
            break
        fi
        # Asked for only when the script is over, by the machine that waits for it.
        if grep -qs hard "$out/control"; then break; fi
        # A wait that leaves no process behind.
        read -rt 0.1 <>"$run/never" || :
    done
    { kill -KILL "$main" && wait "$main"; } 2>/dev/null || wait "$main" 2>/dev/null || :
    main=''
    # Of an emulated machine only the word itself came out.
    [ ! -s "$out/control" ] || cp "$out/control" "$out/again"
    local group
    for group in "${groups[@]}"; do remove_group "$group" || say "left behind: $group"; done
    groups=()
    [ "$method" != qemu ] || [ -e "$out/again" ] || tar -xf "$run/out.img" -C "$out" 2>/dev/null || :
}
