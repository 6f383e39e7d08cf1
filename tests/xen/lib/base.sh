# What every part of the real-Xen rig shares: messages, the cache directory, the list of tools that the host must have.
# Sourced by tests/xen/run and whatever else boots the rig; it does nothing by itself.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

# Where packages and base images are kept between runs; never inside the git tree.
cache_dir=${NETBACK_XEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netback-xen}

# command -> Debian package that brings it. What runs inside the emulator is unpacked from packages, not taken from the host.
host_tools=(
    qemu-system-x86_64:qemu-system-x86
    cpio:cpio
    ip:iproute2
    readelf:binutils
    xz:xz-utils
    zstd:zstd
    flock:util-linux
    shellcheck:shellcheck
    systemd-analyze:systemd
    # Not the rig's: libFuzzer is compiled from its source (tests/fuzz).
    c++:g++
)

die() {
    printf 'tests/xen: %s\n' "$*" >&2
    exit 1
}

note() {
    printf 'tests/xen: %s\n' "$*" >&2
}

# Prints the Debian packages whose tools are missing on this machine, one per line.
missing_host_packages() {
    local entry
    for entry in "${host_tools[@]}"; do
        command -v "${entry%%:*}" >/dev/null || printf '%s\n' "${entry##*:}"
    done
}

require_host_tools() {
    local missing
    missing=$(missing_host_packages | tr '\n' ' ')
    [ -z "$missing" ] || die "this machine lacks: ${missing% } (run tests/xen/install as root)"
}
