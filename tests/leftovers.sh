#!/bin/bash
# Lists what containers could leave on this machine: processes of ours, mounts, links, cgroups, firewall tables,
# namespaces that something holds, sockets. Run before and after the tests; the two lists must be equal.
set -u
# Processes by what they run: containers' own commands come and go, ours have a name.
for dir in /proc/[0-9]*; do
  exe=$(readlink "$dir/exe" 2>/dev/null) || continue
  case $exe in
    */compose | */compose\ \(deleted\) | /memfd:compose*) echo "process $exe" ;;
  esac
done | sort
sed 's/^/mount /' /proc/self/mounts | grep -E 'compose|overlay|/c[ps][A-Za-z0-9]{6}' | sort
ls /sys/class/net | grep -E '^(br-|v[0-9a-f]{4})' | sed 's/^/link /'
find /sys/fs/cgroup -maxdepth 3 -type d -name 'compose-*' 2>/dev/null | sed 's/^/cgroup /' | sort
if command -v nft >/dev/null; then nft list tables 2>/dev/null | grep compose | sed 's/^/nft /'; fi
find /run/compose /var/lib/compose -maxdepth 1 -name '*.sock' 2>/dev/null | sed 's/^/socket /'
exit 0
