# A toolstack made by hand: writes a vif's xenstore nodes as libxl does (paths: Xen's docs/misc/xenstore-paths.pandoc; nodes: libxl_nic.c),
# with any of them wrong or left out, which xl itself would refuse to write. Sourced by the scenarios that need it.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

# toolstack_add DOMID DEVID MAC [KEY=VALUE|KEY=-...]: both directories; KEY=VALUE changes or adds a node of the backend's directory, KEY=- leaves it out.
# The two directories come first, empty, because the nodes inherit their permissions; then all nodes in one transaction (xenstore-write makes one).
toolstack_add() {
    local domid=$1 devid=$2 mac=$3 key pair
    shift 3
    local be=/local/domain/0/backend/vif/$domid/$devid fe=/local/domain/$domid/device/vif/$devid
    local -A nodes=(
        [frontend]=$fe [frontend-id]=$domid [online]=1 [state]=1 [script]=$scripts/vif-bridge
        [mac]=$mac [bridge]=$bridge [handle]=$devid [type]=vif [hotplug-status]=""
    )
    for pair in "$@"; do
        key=${pair%%=*}
        if [ "${pair#*=}" = - ]; then unset "nodes[$key]"; else nodes[$key]=${pair#*=}; fi
    done
    local words=("$fe/backend" "$be" "$fe/backend-id" 0 "$fe/state" 1 "$fe/handle" "$devid" "$fe/mac" "$mac" "$fe/mtu" 1500)
    for key in "${!nodes[@]}"; do words+=("$be/$key" "${nodes[$key]}"); done
    xenstore-write "$fe" "" "$be" ""
    xenstore-chmod "$fe" "n$domid" r0
    xenstore-chmod "$be" n0 "r$domid"
    xenstore-write "${words[@]}"
}

# toolstack_script DOMID DEVID online|offline: runs the vif's script with the environment that libxl gives it; its failure is for the caller to judge.
toolstack_script() {
    local be=backend/vif/$1/$2
    env script="$(xenstore-read "/local/domain/0/$be/script")" XENBUS_TYPE=vif XENBUS_PATH="$be" XENBUS_BASE_PATH=backend \
        netdev= vif="vif$1.$2" timeout 60 "$scripts/vif-bridge" "$3" type_if=vif
}

# toolstack_remove DOMID DEVID: asks the backend to go and waits for Closed, as libxl does 10 s with the frontend's directory and 10 s without it;
# then clears the nodes.
toolstack_remove() {
    local be=/local/domain/0/backend/vif/$1/$2 fe=/local/domain/$1/device/vif/$2 round end
    xenstore-write "$be/online" 0
    store_is "$be/state" 6 || xenstore-write "$be/state" 5
    for round in with-frontend without; do
        end=$((SECONDS + 10))
        while [ "$SECONDS" -lt "$end" ] && store_has "$be/state" && ! store_is "$be/state" 6; do sleep 0.2; done
        xenstore-rm "$fe" 2>/dev/null || true
    done
    toolstack_script "$1" "$2" offline || true
    xenstore-rm "$be" 2>/dev/null || true
}
