# A driver domain: a guest made of dom0's own files, in which `xl devd` and the daemon serve other guests. Sourced by the scenario that needs it.
# What is to be done inside is in driver-domain.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

# driver_create NAME TYPE: from nothing to a driver domain whose daemon answers, with a bridge like dom0's. Sets driver.
driver_create() {
    driver=$1
    local initrd=$rig/$driver.initrd
    step "create driver domain $driver ($2)"
    {
        (cd / && { find bin etc lib lib64 modules sbin tests usr && printf '%s\n' dev proc root run sys tmp var; } | cpio -o -H newc) &&
            (cd /guest && echo init | cpio -o -H newc)
    } >"$initrd" 2>"$rig/cpio.log" || fail "no initrd for the driver domain: $(tail -n 1 "$rig/cpio.log")"
    cat >"$rig/$driver.cfg" <<END
name = "$driver"
type = "$2"
kernel = "/guest/vmlinux"
ramdisk = "$initrd"
memory = 512
vcpus = 1
driver_domain = 1
extra = "console=hvc0 quiet driver"
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "destroy"
END
    guest_boot "$driver"
    rm -f "$initrd"
    trap 'driver_log; kill $(jobs -p) 2>/dev/null || true' EXIT
    driver_do prepare
    driver_do daemon_start
}

# What a scenario that failed is judged by.
driver_log() {
    [ -e "$rig/$scenario.reason" ] && guest_exists "$driver" || return 0
    # It may be what hangs.
    (GUEST_TIMEOUT=30 && guest_run "$driver" tail -n 40 /var/log/netback.log /var/log/syslog /var/log/xen/xldevd.log /var/log/xen/xen-hotplug.log) || true
}

# driver_do FUNCTION [ARGUMENT...]: in the driver domain, a function of driver-domain or of lib.sh.
driver_do() {
    guest_check "$* failed in $driver" "$driver" /tests/driver-domain "$@"
}

# driver_vif NAME [DEVID]: a guest's vif is connected, and plugged in, in the driver domain.
driver_vif() {
    local path vif
    path=/local/domain/$(xl domid "$driver")/backend/vif/$(xl domid "$1")/${2:-0}
    vif=$(vif_of "$@")
    wait_for 60 "$vif: the backend did not reach Connected" store_is "$path/state" 4
    driver_do in_bridge "$vif"
}

# What vifs are made of in the driver domain: for take_snapshot and nothing_left.
driver_snapshot() {
    local domid
    domid=$(xl domid "$driver")
    driver_do counts
    echo "domains: $(xl list | awk 'NR > 1 { print $1 }' | tr '\n' ' ')"
    echo "event channels of the driver domain: $(interdomain_ports "$domid")"
    echo "grants mapped by the driver domain: $(grant_mappings "$domid")"
}
