# Builds the pictures that Xen boots: hypervisor, kernel, and two initramfs trees (dom0 and guest) made of unpacked Debian files.
# Base images depend on the packages only and are cached; scripts and the daemon go into a small second cpio archive made for each run
# (the kernel unpacks archives that stand one after another).
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

dom0_modules=(xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc tun bridge)
dom0_programs=(bash ip bridge iperf3 ethtool busybox
    xenstore-read xenstore-write xenstore-ls xenstore-list xenstore-rm xenstore-chmod xenstore-exists xenstore-watch)
xen_programs=(xl xenstored xenconsoled xenconsole xen-init-dom0 libxl-save-helper lsevtchn)
guest_modules=(xen-netfront)
model_modules=(xen-evtchn xen-gntalloc) # what the model guest needs instead
guest_programs=(busybox iperf3 ethtool)

# Changes of this file change the base images.
image_recipe=$(sha256sum "${BASH_SOURCE[0]}" | cut -c 1-8)

# An empty tree with merged /usr, so that every file has one place to be.
new_tree() {
    local tree=$1 dir
    mkdir -p "$tree"/usr/{bin,sbin,lib/x86_64-linux-gnu,lib64} "$tree"/{dev,proc,sys,run,tmp,root,etc,modules}
    for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$tree/$dir"; done
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\n' >"$tree/etc/group"
    # glibc loads this one by name when a thread is cancelled (xl and iperf3 do that), so no program names it.
    cp -L "$(find_library libgcc_s.so.1)" "$tree/usr/lib/x86_64-linux-gnu/"
}

# The file in the unpacked packages with this base name. Links that lead out of the tree do not count.
find_library() {
    local found
    while IFS= read -r found; do
        case $(realpath -e "$found" 2>/dev/null) in
        "$sysroot"/*) printf '%s\n' "$found"; return ;;
        esac
    done < <(find "$sysroot" -name "$1" -path '*/lib*')
    die "no unpacked package has the library $1"
}

# Adds the shared libraries (and the loader) that a program names, and theirs in turn.
add_libraries() {
    local tree=$1 file=$2 name
    for name in $(readelf -dl "$file" 2>/dev/null |
        sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p; s/.*interpreter: .*\/(.*)\]/\1/p'); do
        if [[ $name == ld-linux* ]]; then
            [ -e "$tree/usr/lib64/$name" ] || cp -L "$(find_library "$name")" "$tree/usr/lib64/$name" || exit 1
            continue
        fi
        [ ! -e "$tree/usr/lib/x86_64-linux-gnu/$name" ] || continue
        cp -L "$(find_library "$name")" "$tree/usr/lib/x86_64-linux-gnu/$name" || exit 1
        add_libraries "$tree" "$tree/usr/lib/x86_64-linux-gnu/$name"
    done
}

add_program() {
    local tree=$1 name=$2 dir
    for dir in usr/bin usr/sbin bin sbin; do
        [ -f "$sysroot/$dir/$name" ] || continue
        cp -L "$sysroot/$dir/$name" "$tree/usr/bin/$name"
        add_libraries "$tree" "$tree/usr/bin/$name"
        return
    done
    die "no unpacked package has the program $name"
}

# add_binary TREE PATH NAME: a program that was built here, without what only a debugger wants of it.
add_binary() {
    strip -o "$1/usr/sbin/$3" "$2" || die "cannot strip $2"
    add_libraries "$1" "$1/usr/sbin/$3"
}

# Every busybox applet, except where a real program has the name already.
add_applets() {
    local tree=$1 applet
    for applet in $("$tree/usr/bin/busybox" --list); do
        [ -e "$tree/usr/bin/$applet" ] || [ -e "$tree/usr/sbin/$applet" ] || ln -s busybox "$tree/usr/bin/$applet"
    done
}

# The packaged kernel: in /boot, or from Debian 14 on among its modules.
kernel_image() {
    local image
    for image in "$sysroot"/boot/vmlinuz-* "$sysroot"/usr/lib/modules/*/vmlinuz; do
        if [ -e "$image" ]; then
            printf '%s\n' "$image"
            return
        fi
    done
    die "no kernel in the packages ($sysroot)"
}

kernel_version() {
    local image
    image=$(kernel_image) || exit 1
    case $image in
    */boot/*) printf '%s\n' "${image##*/vmlinuz-}" ;;
    *) basename "${image%/vmlinuz}" ;;
    esac
}

# Puts a module and what it depends on into the tree, decompressed, and appends their names in loading order to the list file.
# A driver that is built into the kernel needs no file.
add_module() {
    local tree=$1 list=$2 name=$3 lib file target dependency
    for lib in "$sysroot/lib/modules" "$sysroot/usr/lib/modules"; do
        [ -d "$lib/$(kernel_version)" ] && lib=$lib/$(kernel_version) && break
    done
    grep -qxF "$name" "$list" 2>/dev/null && return
    file=$(find "$lib" -name "$name.ko*" -o -name "${name//-/_}.ko*" -o -name "${name//_/-}.ko*" | head -n 1)
    if [ -z "$file" ]; then
        grep -qE "/(${name//_/-}|${name//-/_})\.ko\$" "$lib/modules.builtin" ||
            die "the kernel package has no module $name, and it is not built in"
        return
    fi
    target=$tree/modules/$name.ko
    case $file in
    *.ko) cp "$file" "$target" ;;
    *.xz) xz -dc "$file" >"$target" ;;
    *.zst) zstd -qdc "$file" >"$target" ;;
    *) die "do not know how to decompress $file" ;;
    esac || die "cannot unpack $file"
    for dependency in $(tr '\0' '\n' <"$target" | sed -nE 's/^depends=//p' | tr , ' '); do
        add_module "$tree" "$list" "$dependency"
    done
    printf '%s\n' "$name" >>"$list"
}

pack() {
    (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) || die "cpio failed on $1"
}

# Writes the ELF kernel inside a bzImage (offsets as in the x86 boot protocol): unpacking it here spares each emulated boot half a minute.
extract_kernel() {
    local image=$1 setup_sectors offset length magic
    field() { od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
    setup_sectors=$(field "$image" $((0x1f1)) 1)
    offset=$(($(field "$image" $((0x248)) 4) + (setup_sectors + 1) * 512))
    length=$(($(field "$image" $((0x24c)) 4) - 4)) # the last word is the unpacked size
    magic=$(od -An -t x1 -j "$offset" -N 4 "$image" | tr -d ' ')
    case $magic in
    fd377a58) set -- xz -dc ;;
    28b52ffd) set -- zstd -qdc ;;
    1f8b*) set -- gzip -dc ;;
    *) die "the kernel in $image is compressed in a way unknown here (it begins with $magic)" ;;
    esac
    dd if="$image" bs=1M iflag=skip_bytes,count_bytes skip="$offset" count="$length" status=none | "$@" || die "cannot unpack the kernel in $image"
}

build_guest_base() {
    local tree=$1 program module
    new_tree "$tree"
    for program in "${guest_programs[@]}"; do add_program "$tree" "$program"; done
    add_applets "$tree"
    for module in "${guest_modules[@]}"; do add_module "$tree" "$tree/modules/order" "$module"; done
    for module in "${model_modules[@]}"; do add_module "$tree" "$tree/modules/order-model" "$module"; done
}

build_dom0_base() {
    local tree=$1 program module bin
    new_tree "$tree"
    for program in "${dom0_programs[@]}"; do add_program "$tree" "$program"; done
    bin=$(cd "$sysroot" && echo usr/lib/xen-*.*/bin)
    mkdir -p "$tree/$bin"
    for program in "${xen_programs[@]}"; do
        cp "$sysroot/$bin/$program" "$tree/$bin/" || die "xen-utils has no $program"
        add_libraries "$tree" "$tree/$bin/$program"
        [ "$program" = libxl-save-helper ] || ln -s "/$bin/$program" "$tree/usr/sbin/$program"
    done
    cp -a "$sysroot/etc/xen" "$tree/etc/"
    add_systemd "$tree"
    add_applets "$tree"
    for module in "${dom0_modules[@]}"; do add_module "$tree" "$tree/modules/order" "$module"; done
    add_module "$tree" "$tree/modules/order-netback" xen-netback
}

# systemd itself with its targets, none of its other services: what runs netback's unit in dom0 (systemd.sh there).
add_systemd() {
    local tree=$1 from program
    from=$(find "$sysroot" -type f -path '*/lib/systemd/systemd' -printf '%h\n' -quit)
    [ -n "$from" ] || die "no unpacked package has systemd"
    mkdir -p "$tree/usr/lib/systemd/system"
    cp "$from"/system/*.target "$from"/system/modprobe@.service "$tree/usr/lib/systemd/system/"
    # The second is there from systemd 254 on.
    for program in "$from/systemd" "$from/systemd-executor"; do
        [ -e "$program" ] || continue
        cp "$program" "$tree/usr/lib/systemd/"
        add_libraries "$tree" "$program"
    done
    add_program "$tree" systemctl
}

# Builds (once per set of packages) and sets image_dir: xen, vmlinux, dom0.cpio, guest.cpio.
build_base_images() {
    image_dir=$cache_dir/images-${sysroot##*-}-$image_recipe
    [ -e "$image_dir/.complete" ] && return
    note "building base images in $image_dir"
    local stage=$image_dir.stage kernel
    rm -rf "$image_dir" "$stage"
    mkdir -p "$image_dir"
    gzip -dc "$sysroot"/boot/xen-*-amd64.gz >"$image_dir/xen" || die "cannot unpack the hypervisor"
    kernel=$(kernel_image) || exit 1
    extract_kernel "$kernel" >"$image_dir/vmlinux" || exit 1
    build_guest_base "$stage/guest"
    build_dom0_base "$stage/dom0"
    pack "$stage/guest" >"$image_dir/guest.cpio"
    pack "$stage/dom0" >"$image_dir/dom0.cpio"
    rm -rf "$stage"
    touch "$image_dir/.complete"
}

# run_image OUTPUT DOM0_FILES GUEST_FILES [BINARY [MODEL]]: the dom0 initramfs of one run, with what stands in the two directories laid over the base.
# MODEL is the model guest's program, for dom0 and for guests.
run_image() {
    local output=$1 dom0_files=$2 guest_files=$3 binary=${4:-} model=${5:-} stage
    stage=$(mktemp -d "$cache_dir/stage.XXXXXX")
    mkdir -p "$stage"/{guest,dom0}/usr/{sbin,lib/x86_64-linux-gnu,lib64} "$stage"/dom0/{guest,tests}
    cp -a "$guest_files/." "$stage/guest/"
    if [ -n "$model" ]; then
        add_binary "$stage/guest" "$model" netback-model
        add_binary "$stage/dom0" "$model" netback-model
    fi
    { cat "$image_dir/guest.cpio"; pack "$stage/guest"; } >"$stage/dom0/guest/initrd"
    cp -a "$guest_files/init" "$stage/dom0/guest/init" # a driver domain is made of dom0's files and this (scenario 16)
    cp "$image_dir/vmlinux" "$stage/dom0/guest/vmlinux"
    cp -a "$dom0_files/." "$stage/dom0/tests/"
    mv "$stage/dom0/tests/init" "$stage/dom0/init"
    cp "$dom0_files/../../../netback/netback.service" "$stage/dom0/tests/"
    if [ -n "$binary" ]; then add_binary "$stage/dom0" "$binary" netback; fi
    { cat "$image_dir/dom0.cpio"; pack "$stage/dom0"; } >"$output"
    rm -rf "$stage"
}
