#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the blocks that profile.c counted into tables: instructions by domain and function.

usage: profile.py table WORKDIR NAME CPUS, with WORKDIR/NAME.blocks, WORKDIR/report.log and the daemon, WORKDIR/netback; leaves WORKDIR/NAME.counts.
       profile.py compare WORKDIR NAME NAME, of two that a table was made of: what the first spends and the second does not.
Called by tests/xen/bench.

dom0 is pinned to the first CPUS processors and the guest to the next ones, so the processor tells on whose behalf the hypervisor worked.
Figures are instructions per packet that the guest's network driver sent or received, whichever is more, and calls per packet.
"""
import base64
import bisect
import collections
import gzip
import json
import os
import re
import subprocess
import sys
import time

XEN_BEGINS, XEN_ENDS = 0xFFFF82D000000000, 0xFFFF83FFFFFFFFFF  # Xen's image and what it makes up at run time (stubs)
KERNEL_BEGINS = 0xFFFF800000000000
ROWS = int(os.environ.get("PROFILE_ROWS", "45"))  # of each table


class Symbols:
    """Names of addresses: the nearest symbol at or below."""

    def __init__(self, pairs):
        self.pairs = sorted(pairs)
        self.addresses = [address for address, _ in self.pairs]

    def find(self, address):
        """(name, whether the address is the symbol's own)"""
        at = bisect.bisect_right(self.addresses, address) - 1
        if at < 0:
            return "?", False
        begin, name = self.pairs[at]
        return name, begin == address


def sent_files(report):
    """The files that dom0 sent between its other lines; of those with one name, the last."""
    files, lines = {}, None
    with open(report, encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("@file "):
                lines = files[line.split()[1]] = []
            elif line.startswith("= ") and lines is not None:
                lines.append(line[2:].strip())
    return {name: gzip.decompress(base64.b64decode("".join(lines))).decode() for name, lines in files.items()}


def symbols_of(text):
    return [(int(address, 16), name) for address, name in (line.split()[:2] for line in text.splitlines() if line)]


def daemon_symbols(maps, binary):
    """(begin, end, Symbols) of the daemon's own code."""
    for line in maps.splitlines():
        field = line.split()
        if len(field) > 5 and field[5].endswith("/netback") and "x" in field[1]:
            begin, end = (int(part, 16) for part in field[0].split("-"))
            base = begin - int(field[2], 16)
            break
    else:
        return 0, 0, Symbols([])
    # The file's own addresses: those of the segment that is mapped there.
    headers = subprocess.run(["readelf", "-lW", binary], check=True, capture_output=True, text=True).stdout
    for offset, address in re.findall(r"LOAD\s+(0x[0-9a-f]+)\s+(0x[0-9a-f]+).*R E", headers):
        base += int(offset, 16) - int(address, 16)
    names = subprocess.run(["nm", "-C", "--defined-only", binary], check=True, capture_output=True, text=True).stdout
    pairs = []
    for line in names.splitlines():
        address, kind, name = line.split(" ", 2)
        if kind in "tTwW":
            pairs.append((base + int(address, 16), re.sub(r"::h[0-9a-f]{16}$", "", name)))
    return begin, end, Symbols(pairs)


def wait_for(path):
    """The emulator writes it while dom0 goes on."""
    for _ in range(600):
        if os.path.exists(path):
            return
        time.sleep(0.1)


def count(work, name, cpus):
    """{(room, function): [instructions, calls]}"""
    files = sent_files(f"{work}/report.log")
    kernel = Symbols(symbols_of(files["kernel"]))
    dom0 = Symbols(kernel.pairs + symbols_of(files.get("modules", "")))
    guest = Symbols(symbols_of(files.get("guest", "")))
    guest_module = (guest.addresses[0], guest.addresses[-1] + 4096) if guest.addresses else (0, 0)
    xen = Symbols(symbols_of(files["xen"]))
    daemon_begin, daemon_end, daemon = (0, 0, Symbols([]))
    if name.startswith("netback") and "daemon" in files:
        daemon_begin, daemon_end, daemon = daemon_symbols(files["daemon"], f"{work}/netback")

    def place(cpu, address):
        domain = "dom0" if cpu < int(cpus) else "guest"
        if XEN_BEGINS <= address <= XEN_ENDS:
            return f"Xen for {domain}", xen.find(address)
        if address >= KERNEL_BEGINS:
            if domain == "guest" and guest_module[0] <= address < guest_module[1]:
                return "guest kernel", guest.find(address)
            return f"{domain} kernel", (dom0 if domain == "dom0" else kernel).find(address)
        if domain == "dom0" and daemon_begin <= address < daemon_end:
            return "netback", daemon.find(address)
        return f"{domain} processes", ("other than netback" if domain == "dom0" else "all", False)

    wait_for(f"{work}/{name}.blocks")
    counts = collections.defaultdict(lambda: [0, 0])
    with open(f"{work}/{name}.blocks", encoding="ascii") as stream:
        for line in stream:
            address, instructions, *runs = line.split()
            for cpu, times in enumerate(map(int, runs)):
                if times == 0:
                    continue
                room, (function, is_entry) = place(cpu, int(address, 16))
                counts[room, function][0] += times * int(instructions)
                counts[room, function][1] += times * is_entry
    return counts


class Profile:
    """What was counted, for each packet."""

    def __init__(self, name, counts):
        calls = [counts.get(("guest kernel", function), [0, 0])[1] for function in ("xennet_start_xmit", "eth_type_trans")]
        self.name, self.packets = name, max(*calls, 1)
        self.functions = {key: (instructions / self.packets, calls / self.packets) for key, (instructions, calls) in counts.items()}
        self.rooms = collections.Counter()
        for (room, _), (instructions, _) in self.functions.items():
            self.rooms[room] += instructions

    def instructions(self, key):
        return self.functions.get(key, (0, 0))[0]


def print_table(profile):
    total = sum(profile.rooms.values())
    print(f"{profile.name}: {profile.packets} packets, {total * profile.packets:.0f} instructions, {total:.0f} per packet\n")
    for room, count in profile.rooms.most_common():
        print(f"{count:12.0f}  {100 * count / total:5.1f} %  {room}")
    for room, _ in profile.rooms.most_common():
        print(f"\n{room}: instructions per packet, calls per packet, function")
        mine = sorted(((cost, function) for (of, function), cost in profile.functions.items() if of == room), reverse=True)
        for (instructions, calls), function in mine[:ROWS]:
            print(f"{instructions:12.1f} {calls:9.3f}  {function}")


def print_comparison(one, other):
    def row(mine, others, what):
        print(f"{mine:12.0f} {others:12.0f} {mine - others:+12.0f}  {what}")

    print(f"Instructions per packet: {one.name}, {other.name}, the difference\n")
    row(sum(one.rooms.values()), sum(other.rooms.values()), "all")
    for room, _ in (one.rooms | other.rooms).most_common():
        row(one.rooms[room], other.rooms[room], room)
    print("\nBy function, the largest differences first\n")
    keys = sorted(one.functions.keys() | other.functions.keys(), key=lambda key: -abs(one.instructions(key) - other.instructions(key)))
    for key in keys[:ROWS]:
        row(one.instructions(key), other.instructions(key), f"{key[0]}: {key[1]}")


def table(work, name, cpus):
    counts = count(work, name, cpus)
    with open(f"{work}/{name}.counts", "w", encoding="ascii") as stream:
        json.dump([[*key, *value] for key, value in counts.items()], stream)
    print_table(Profile(name, counts))


def compare(work, *names):
    def load(name):
        with open(f"{work}/{name}.counts", encoding="ascii") as stream:
            rows = json.load(stream)
        return Profile(name, {(room, function): value for room, function, *value in rows})

    print_comparison(*map(load, names))


{"table": table, "compare": compare}[sys.argv[1]](*sys.argv[2:])
