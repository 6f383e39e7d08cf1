# What a Linux guest has to offload, as its own ethtool says; and with one after another switched off, what goes both ways over IPv4 and IPv6
# arrives as it was sent.
# backends: netback kernel
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
. /tests/lib.sh

guest=pv14
www=$rig/www14
part=1000000                          # bytes of random data, which are sent again and again
rounds=$(((bytes + part - 1) / part)) # how often, for all that is asked for
dom0_address6=fd00:14::1
guest_address6=fd00:14::2
GUEST_TIMEOUT=$((660 + bytes / 500000)) # a guest answers when it has fetched all; slower than any does

# offers NAME on|off...: the guest's driver says so.
offers() {
    local said
    said=$(guest_check "ethtool -k failed" "$guest" ethtool -k eth0) || exit 1
    while [ $# -gt 0 ]; do
        grep -qE "^[[:space:]]*$1: $2( |\$)" <<<"$said" || fail "$1 is not $2 in the guest: $(grep "$1" <<<"$said" || echo "not known")"
        shift 2
    done
}

# offer NAME on|off...: from now on.
offer() {
    guest_check "ethtool -K $* failed" "$guest" ethtool -K eth0 "$@"
    offers "$@"
}

# exchange WHAT: compared by checksum, what the guest fetches from dom0, and what dom0 fetches from the guest.
exchange() {
    local address got
    step "$1: $((rounds * part)) bytes each way"
    for address in "$dom0_address" "[$dom0_address6]"; do
        got=$(guest_check "$1: the guest cannot fetch from $address" "$guest" "wget -q -O - http://$address:8080/cgi-bin/stream | md5sum") || exit 1
        [ "$got" = "$sum" ] || fail "$1: other bytes arrived in the guest from $address than were sent"
    done
    for address in "$(address 24)" "[$guest_address6]"; do
        got=$(wget -q -O - "http://$address:8080/cgi-bin/stream" | md5sum) || fail "$1: dom0 cannot fetch from $address"
        [ "$got" = "$sum" ] || fail "$1: other bytes arrived in dom0 from $address than were sent"
    done
}

take_snapshot empty
mkdir -p "$www/cgi-bin"
head -c "$part" /dev/urandom >"$www/part"
cat >"$www/stream" <<END
#!/bin/sh
printf 'Content-Type: application/octet-stream\r\n\r\n'
for round in \$(seq $rounds); do cat $www/part; done
END
cp "$www/stream" "$www/cgi-bin/stream"
chmod +x "$www/cgi-bin/stream"
sum=$("$www/cgi-bin/stream" | tail -n +3 | md5sum) # without the header's two lines
ip addr add "$dom0_address6/64" dev "$bridge" nodad
httpd -f -p 8080 -h "$www" &
server=$!
wait_for 30 "dom0 does not serve files" port_listens 8080

guest_create "$guest" pv 24
check_vif "$guest"
guest_check "the guest cannot serve files" "$guest" \
    "mkdir -p $www/cgi-bin && cd $www && wget -q http://$dom0_address:8080/part && wget -q -O cgi-bin/stream http://$dom0_address:8080/stream && chmod +x cgi-bin/stream && ip addr add $guest_address6/64 dev eth0 && httpd -p 8080 -h $www"
wait_for 60 "the guest does not answer over IPv6" wget -q -O /dev/null "http://[$guest_address6]:8080/part"

offers rx-checksumming on tx-checksumming on scatter-gather on tcp-segmentation-offload on tx-tcp-segmentation on tx-tcp6-segmentation on
exchange "all offloads"
offer tcp-segmentation-offload off
exchange "no segmentation"
offer scatter-gather off
exchange "no scatter-gather"
offer tx-checksum-ipv6 off # netfront does not let go of the one for IPv4
exchange "no checksums of IPv6"
offer tx-checksum-ipv6 on scatter-gather on tcp-segmentation-offload on
exchange "all offloads again"

kill "$server"
ip addr del "$dom0_address6/64" dev "$bridge"
guest_power_off "$guest"
nothing_left empty
