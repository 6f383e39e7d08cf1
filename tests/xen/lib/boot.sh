# Boots Xen under QEMU's software emulation and waits for dom0's report on the second serial port.
# Machine settings are variables with defaults, so that a benchmark can ask for another clock or more processors.
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash

: "${XEN_ACCEL:=tcg,thread=multi}" # a benchmark: tcg,thread=single
: "${XEN_CPUS:=2}"
: "${XEN_MEMORY:=4096}"       # MiB of the machine
: "${XEN_DOM0_MEMORY:=1536}"  # MiB of dom0
: "${XEN_DOM0_CPUS:=1}"
: "${XEN_BOOT_TIMEOUT:=600}" # seconds until dom0 must have reported that it is up
: "${XEN_QEMU_OPTIONS:=}"     # more options for QEMU, as "-icount shift=0,sleep=off"
: "${XEN_OPTIONS:=}"          # more options for Xen, as "dom0_vcpus_pin"

# Flags that Xen or a PV kernel under TCG cannot live with are taken away (smap, smep, pku: dom0 faults at once; rdtscp: PVH guests do not boot
# under the emulated SVM); erms makes the emulator count copies byte by byte. With xsave, and so with AVX, QEMU 7.2 loses vector registers when Xen
# puts another vCPU on a CPU: with more vCPUs than CPUs, programs of dom0 and of guests crash at random, or go on with wrong data.
xen_cpu=max,-smap,-smep,-pku,-rdtscp,-erms,-xsave

# boot_xen IMAGE_DIR DOM0_INITRD WORKDIR [DOM0_ARGUMENT...]: starts the machine in the background and sets qemu_pid.
# The arguments for the dom0 kernel must not contain commas (QEMU would split them). WORKDIR/console.log gets the Xen and dom0 console, WORKDIR/report.log the marked lines of the job.
boot_xen() {
    local images=$1 initrd=$2 work=$3
    shift 3
    : >"$work/console.log"
    : >"$work/report.log"
    # shellcheck disable=SC2086 # QEMU options are several words
    qemu-system-x86_64 -machine q35 -accel "$XEN_ACCEL" -cpu "$xen_cpu" -smp "$XEN_CPUS" -m "$XEN_MEMORY" $XEN_QEMU_OPTIONS \
        -display none -monitor none -nic none -no-reboot \
        -serial "file:$work/console.log" -serial "file:$work/report.log" \
        -kernel "$images/xen" \
        -append "dom0_mem=${XEN_DOM0_MEMORY}M,max:${XEN_DOM0_MEMORY}M dom0_max_vcpus=$XEN_DOM0_CPUS com1=115200,8n1 console=com1 noreboot=no $XEN_OPTIONS" \
        -initrd "$images/vmlinux console=hvc0 quiet $*,$initrd" \
        </dev/null >"$work/qemu.log" 2>&1 &
    qemu_pid=$!
}

qemu_runs() {
    kill -0 "$qemu_pid" 2>/dev/null
}

stop_xen() {
    [ -n "${qemu_pid:-}" ] || return 0
    kill -KILL "$qemu_pid" 2>/dev/null || true
    wait "$qemu_pid" 2>/dev/null || true
    qemu_pid=
}

# wait_report WORKDIR REGEX SECONDS: until a line of the report matches. 1: time is over; 2: the machine stopped before that.
wait_report() {
    local work=$1 pattern=$2 deadline=$((SECONDS + $3)) running
    while :; do
        running=yes
        qemu_runs || running=
        grep -qE "$pattern" "$work/report.log" && return 0
        [ -n "$running" ] || return 2
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.3
    done
}
