# Fetches the Debian packages that the emulated machine is made of and unpacks them, without installing anything on the host.
# Apt is asked for its candidates, so the same code gives Xen 4.17 with Linux 6.1 on Debian 12, Xen 4.20 with Linux 6.12 on Debian 13,
# and whatever comes after.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

# The direct dependencies of some packages, one name per line (virtual packages left out).
package_dependencies() {
    apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
        awk '$1 ~ /^\|?(Pre)?Depends:$/ && $2 !~ /^</ { print $2 }' | sort -u
}

# The one dependency of package $1 whose name matches $2.
dependency_like() {
    local found
    found=$(package_dependencies "$1" | grep -E "$2" | sort -V | tail -n 1)
    [ -n "$found" ] || die "apt knows no dependency of $1 like '$2': are the package lists fetched (tests/xen/install does it)?"
    printf '%s\n' "$found"
}

# The packages themselves, then the shared libraries they need, level by level. Maintainer-script helpers (debconf, adduser) are left out.
package_closure() {
    local known fresh
    known=$(printf '%s\n' "$@" | sort -u)
    fresh=$known
    while [ -n "$fresh" ]; do
        # shellcheck disable=SC2086 # a list of package names, split on purpose
        fresh=$(package_dependencies $fresh | sed -nE '/^(lib|zlib)/p' | comm -13 <(printf '%s\n' "$known") -)
        known=$(printf '%s\n%s\n' "$known" "$fresh" | sed '/^$/d' | sort -u)
    done
    printf '%s\n' "$known"
}

# The names of everything that goes into the emulated machine.
rig_packages() {
    local hypervisor utils kernel
    command -v apt-cache >/dev/null || die "apt-cache is not here: the rig is made of Debian packages"
    hypervisor=$(dependency_like xen-system-amd64 '^xen-hypervisor-[0-9.]+-amd64$') || exit 1
    utils=$(dependency_like xen-system-amd64 '^xen-utils-[0-9.]+$') || exit 1
    kernel=$(dependency_like linux-image-amd64 '^linux-image-[0-9].*-amd64$') || exit 1
    printf '%s\n' "$hypervisor" "$kernel"
    # From Debian 14 on the kernel and its modules are packages of their own.
    package_dependencies "$kernel" | sed -nE '/^linux-(binary|modules)-[0-9]/p'
    package_closure "$utils" xen-utils-common xenstore-utils bash systemd busybox-static iproute2 iperf3 ethtool libgcc-s1
}

# Downloads and unpacks; sets sysroot to the unpacked tree. A tree that is complete and up to date is used as it stands.
fetch_packages() {
    local names versions key debs
    names=$(rig_packages) || exit 1
    # shellcheck disable=SC2086 # a list of package names
    versions=$(apt-cache show --no-all-versions $names | awk '/^Package:/ { p = $2 } /^Version:/ { print p "=" $2 }' | sort)
    key=$(printf '%s\n' "$versions" | sha256sum | cut -c 1-16)
    sysroot=$cache_dir/sysroot-$key
    [ -e "$sysroot/.complete" ] && return

    debs=$cache_dir/debs-$key
    note "fetching $(printf '%s\n' "$names" | wc -l) packages into $debs"
    mkdir -p "$debs"
    # shellcheck disable=SC2086 # a list of package names
    (cd "$debs" && apt-get download -q -o APT::Sandbox::User="$(id -un)" $names >"$debs/apt.log" 2>&1) ||
        { tail -n 5 "$debs/apt.log" >&2; die "apt-get download failed (log: $debs/apt.log)"; }
    rm -rf "$sysroot"
    mkdir -p "$sysroot"
    local deb
    for deb in "$debs"/*.deb; do
        dpkg -x "$deb" "$sysroot" || die "cannot unpack $deb"
    done
    rm -rf "$debs"
    printf '%s\n' "$versions" >"$sysroot/.complete"
}
