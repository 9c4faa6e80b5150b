#!/bin/bash
# Runs the product in a virtual machine whose kernel has all cgroup controllers in cgroup v2: what a usual machine has
# and the one that runs the tests may not. Emulated, so it needs no rights; nothing here is timed.
#
#   tests/vm/run.sh PATH-OF-COMPOSE
#
# Needs Debian's packages qemu-system-x86, cpio and busybox-static, and the kernel that tests/setup.sh fetches.
set -euo pipefail
compose=$(readlink -f "$1")
here=$(cd "$(dirname "$0")" && pwd)
cache=${COMPOSE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/compose-tests}/vm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for needed in "$cache/kernel" "$(command -v qemu-system-x86_64)" "$(command -v cpio)" /bin/busybox; do
  if [ ! -e "$needed" ]; then
    message="qemu, cpio, a static busybox or a kernel is missing: tests/setup.sh fetches them"
    if [ -n "${CI:-}" ]; then echo "$message, and CI must not skip" >&2; exit 1; fi
    echo "SKIPPED: the tests in a virtual machine: $message"
    exit 0
  fi
done
kernel=$(echo "$cache"/kernel/boot/vmlinuz-*)
modules=$(echo "$cache"/kernel/lib/modules/*)

# Everything the guest has: busybox, the binary, the modules in the order of their dependencies, and the script.
root=$work/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,etc,mnt,modules,var/lib}
cp /bin/busybox "$root/bin/busybox"
cp "$compose" "$root/bin/compose"
cp "$here/guest.sh" "$root/init"
chmod +x "$root/init"
python3 - "$modules" "$root/modules" <<'P'
import os, re, shutil, sys
source, target = sys.argv[1:]
paths = {}
for directory, _, files in os.walk(os.path.join(source, "kernel")):
    for name in files:
        if name.endswith(".ko"):
            paths[name[:-3].replace("-", "_")] = os.path.join(directory, name)

def needs(name):
    """What a module says of itself in its .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", open(paths[name], "rb").read())
    return [other.replace("-", "_") for other in found.group(1).decode().split(",") if other] if found else []

order = []
def add(name):
    if name in paths and name not in order:
        for other in needs(name):
            add(other)
        order.append(name)

for name in ["overlay", "veth", "bridge", "br_netfilter", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat",
             "brd", "nft_redir", "nft_ct", "nft_fib_inet", "nft_reject_inet", "nf_conntrack", "tun", "dummy", "xt_addrtype"]:
    add(name)
for number, name in enumerate(order):
    shutil.copy(paths[name], os.path.join(target, f"{number:03}-{name}.ko"))
P
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"

timeout -k 5 900 qemu-system-x86_64 -M q35 -cpu max -accel tcg,thread=multi -smp 2 -m 1536 -nic none -nographic \
  -no-reboot -kernel "$kernel" -initrd "$work/initramfs" \
  -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on systemd.unified_cgroup_hierarchy=1" \
  </dev/null >"$work/console" 2>&1 || true
tr -d '\r' <"$work/console" | sed -n '/== guest/,$p' | tee "$work/said"
grep -q '== passed' "$work/said" || { echo "the guest did not pass" >&2; tail -40 "$work/console" >&2; exit 1; }
