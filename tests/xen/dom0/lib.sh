# What scenarios are written with: failing with a reason, bounded waits, guests and commands inside them, traffic.
# Sourced inside dom0, by the job and by each scenario; $backend and $scenario are set by the job.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
set -Eeuo pipefail

rig=/run/rig
bridge=xenbr0
dom0_address=192.0.2.1
scripts=/etc/xen/scripts

# shellcheck source=backend.sh
. /tests/backend.sh
# shellcheck source=snapshot.sh
. /tests/snapshot.sh

# ---- failing -------------------------------------------------------------------------------------------------------------------

# Ends the scenario; the first reason given is the one reported.
fail() {
    [ -e "$rig/$scenario.reason" ] || printf '%s\n' "$*" >"$rig/$scenario.reason"
    echo "FAILED: $*" >&2
    exit 1
}

# Whatever a scenario left running in the background ends with it.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# What nobody foresaw also gives a reason.
trap '[ -e "$rig/$scenario.reason" ] || echo "line $LINENO of $(basename "${BASH_SOURCE[0]}"): $BASH_COMMAND" >"$rig/$scenario.reason"' ERR

# Said beside the scenario's "ok".
remark() {
    printf '%s; ' "$*" >>"$rig/$scenario.remark"
}

step() {
    echo "--- $(cut -d' ' -f1 /proc/uptime) $*"
}

# check SENTENCE COMMAND...: the command must succeed, else the sentence is the reason.
check() {
    local sentence=$1
    shift
    "$@" || fail "$sentence"
}

# wait_for SECONDS SENTENCE COMMAND...: the command must succeed sooner or later.
wait_for() {
    local deadline=$((SECONDS + $1)) limit=$1 sentence=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$sentence (waited $limit s)"
        sleep 0.2
    done
}

not() {
    ! "$@"
}

# ---- guests --------------------------------------------------------------------------------------------------------------------

# guest_config NAME TYPE NUMBER [MORE_VIF_KEYS]: writes the xl configuration; the guest gets 192.0.2.NUMBER, a MAC that ends in NUMBER, and one vCPU
# (or $guest_vcpus). $guest_extra are further arguments for its kernel.
guest_config() {
    local name=$1 type=$2 number=$3 keys=${4:-}
    cat >"$rig/$name.cfg" <<END
name = "$name"
type = "$type"
kernel = "/guest/vmlinux"
ramdisk = "/guest/initrd"
memory = 256
vcpus = ${guest_vcpus:-1}
vif = ["mac=$(mac "$number"),bridge=$bridge${keys:+,$keys}"]
extra = "console=hvc0 quiet addr=$(address "$number")/25${guest_extra:+ $guest_extra}"
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "destroy"
END
}

mac() { printf '00:16:3e:00:00:%02x' "$1"; }
address() { printf '192.0.2.%d' "$1"; }

xl_create() {
    timeout -k 10 300 xl create "$rig/$1.cfg"
}

guest_exists() {
    xl domid "$1" >/dev/null 2>&1
}

guest_console() {
    printf '/var/log/xen/console/guest-%s.log' "$1"
}

guest_wait_ready() {
    wait_for 300 "guest $1 did not come up with its network device" guest_says "$1" ready
}

# guest_says NAME WORD: its init has said so; see guest/init.
guest_says() {
    grep -q "^@$2" "$(guest_console "$1")"
}

# guest_boot NAME: from its configuration to a guest that answers on its console.
# The emulated processor runs a PVH guest's kernel into a triple fault now and then. That is borne, twice, if the guest had not loaded its netfront by
# then: without a frontend no backend can have had a part in it. (Of a kernel that has netfront built in, as Debian's has not, that could not be told.)
guest_boot() {
    local attempt domid
    for attempt in 1 2 3; do
        check "xl create $1 failed" xl_create "$1"
        domid=$(xl domid "$1") || true
        wait_for 300 "guest $1 did not come up with its network device" guest_settled "$1"
        if guest_says "$1" ready; then return; fi
        if guest_says "$1" frontend || ! xl dmesg | grep "d${domid:-?}v[0-9]* Triple fault"; then break; fi
        remark "guest $1 ran into a triple fault before it had a frontend: attempt $attempt"
        rm -f "$(guest_console "$1")"
    done
    fail "guest $1 is gone before it came up with its network device"
}

guest_settled() {
    guest_says "$1" ready || not guest_exists "$1"
}

# guest_create NAME TYPE NUMBER [MORE_VIF_KEYS]: from nothing to a guest that answers on its console.
# Names are used once: the console log is named after the guest.
guest_create() {
    step "create guest $1 ($2)"
    guest_config "$@"
    guest_boot "$1"
}

# guest_write NAME COMMAND...: one request on the guest's console, without waiting for the answer. Sets request_id.
guest_write() {
    local name=$1 tty
    shift
    request_id=${EPOCHREALTIME/./}
    tty=$(xenstore-read "/local/domain/$(xl domid "$name")/console/tty")
    printf '@ %s %s\n' "$request_id" "$*" >"$tty"
}

# guest_run NAME COMMAND...: runs a shell command in the guest, prints its output, returns its status. See guest/init for the protocol.
guest_run() {
    local log status
    guest_write "$@"
    log=$(guest_console "$1")
    wait_for "${GUEST_TIMEOUT:-660}" "guest $1 did not answer '${*:2}'" grep -q "^@end $request_id " "$log"
    tr -d '\r' <"$log" | sed -n "/^@begin $request_id\$/,/^@end $request_id /s/^| //p"
    status=$(tr -d '\r' <"$log" | sed -n "s/^@end $request_id //p")
    return "$status"
}

# guest_check SENTENCE NAME COMMAND...: a command in the guest that must succeed.
guest_check() {
    local sentence=$1 output
    shift
    output=$(guest_run "$@") || fail "$sentence: ${output//$'\n'/ | }"
    printf '%s\n' "$output"
}

guest_power_off() {
    step "power off inside $1"
    guest_write "$1" poweroff -f
    wait_for 120 "guest $1 is still there after its power off" not guest_exists "$1"
}

destroy_all_guests() {
    local name
    xl list | awk 'NR > 1 && $2 != 0 { print $1 }' | while read -r name; do
        timeout -k 5 120 xl destroy "$name" || true
    done
}

# ---- a vif as dom0 sees it -------------------------------------------------------------------------------------------------------

# vif_of NAME [DEVID]
vif_of() {
    printf 'vif%s.%s' "$(xl domid "$1")" "${2:-0}"
}

# backend_path NAME [DEVID]
backend_path() {
    printf '/local/domain/0/backend/vif/%s/%s' "$(xl domid "$1")" "${2:-0}"
}

store_is() {
    [ "$(xenstore-read "$1" 2>/dev/null)" = "$2" ]
}

store_has() {
    xenstore-exists "$1"
}

in_bridge() {
    [ "$(basename "$(readlink "/sys/class/net/$1/master")")" = "$bridge" ]
}

check_vif() {
    local name=$1 devid=${2:-0} vif
    vif=$(vif_of "$name" "$devid")
    wait_for 60 "$vif: the backend did not reach Connected" store_is "$(backend_path "$name" "$devid")/state" 4
    check "$vif is not in $bridge" in_bridge "$vif"
}

# ---- traffic -------------------------------------------------------------------------------------------------------------------

# ping_all ADDRESS COUNT: after a first answer, COUNT pings of which none may be lost.
ping_all() {
    local output
    wait_for 120 "$1 does not answer a first ping" ping -c 1 -W 5 "$1"
    output=$(ping -c "$2" -i 0.05 -W 10 "$1" | tail -n 2) || true
    echo "$output"
    grep -q "^$2 packets transmitted, $2 packets received" <<<"$output" || fail "pings to $1 were lost: ${output//$'\n'/ | }"
}

port_listens() {
    netstat -ltn | grep -q ":$1 "
}

# iperf_serve PORT: an iperf3 server in dom0 for as long as the scenario lives. Sets iperf_pid.
iperf_serve() {
    iperf3 -s -p "$1" >"$rig/iperf-$1.log" 2>&1 &
    iperf_pid=$!
    wait_for 60 "iperf3 does not listen in dom0" port_listens "$1"
}

# file_serve BYTES: random bytes at http://$dom0_address:8080/data for as long as the scenario lives. Sets file_sum and file_pid.
file_serve() {
    local www=$rig/www
    mkdir -p "$www"
    head -c "$1" /dev/urandom >"$www/data"
    file_sum=$(md5sum <"$www/data")
    httpd -f -p 8080 -h "$www" &
    file_pid=$!
    wait_for 30 "dom0 does not serve files" port_listens 8080
}

# Fetches from URL time and again until FILE.stop is there; a checksum for each in FILE.sums. For dom0's shell and the guest's.
# shellcheck disable=SC2016 # for whichever shell defines it
fetch_on='fetch_on() { while [ ! -e "$2.stop" ]; do wget -q -O - "$1" | md5sum >>"$2.sums"; done; touch "$2.ended"; }'
eval "$fetch_on"

# guest_fetch NAME: the guest fetches http://$dom0_address:8080/data time and again; returns when it has done so once.
guest_fetch() {
    guest_check "$1 fetches nothing" "$1" "rm -f /tmp/fetch.*; $fetch_on; fetch_on http://$dom0_address:8080/data /tmp/fetch >/dev/null 2>&1 &"
    wait_for 120 "nothing arrives in $1" guest_run "$1" "test -s /tmp/fetch.sums"
}

# guest_fetched NAME SUM: it stops, and each transfer has arrived as it was sent.
guest_fetched() {
    guest_check "$1 does not stop fetching" "$1" "touch /tmp/fetch.stop"
    wait_for 300 "the last transfer of $1 does not end" guest_run "$1" "test -e /tmp/fetch.ended"
    arrived "in $1" "$(guest_run "$1" cat /tmp/fetch.sums)" "$2"
}

# arrived WHERE SUMS SUM: at least one transfer, and each as it was sent.
arrived() {
    echo "$1: $(wc -l <<<"$2") transfers"
    [ -n "$2" ] || fail "$1: no transfer arrived"
    [ "$(sort -u <<<"$2")" = "$3" ] || fail "$1: other bytes arrived than were sent: $2"
}

# tcp_both_ways NAME VOLUME PORT: iperf3 moves the volume (as "32M") from the guest, then to it. What is judged is that it arrives; speed is a remark.
tcp_both_ways() {
    local name=$1 volume=$2 port=$3 way output
    for way in "" "-R"; do
        output=$(guest_check "iperf3 $way failed in $name" "$name" \
            "timeout 600 iperf3 -c $dom0_address -p $port -n $volume -f m $way") || exit 1
        remark "TCP $([ -n "$way" ] && echo to || echo from) $name $(awk '/receiver/ { print $(NF-2), $(NF-1) }' <<<"$output")"
    done
}
