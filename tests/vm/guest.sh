#!/bin/busybox sh
# The first process of the virtual machine: makes a usual machine of it, then tests limits under cgroup v2.
/bin/busybox mkdir -p /new
/bin/busybox mount -t tmpfs -o size=1g root /new
# pivot_root does not work on the initial file system: move to one where it does.
if [ ! -e /moved ]; then
  /bin/busybox cp -a /bin /modules /init /etc /new/
  /bin/busybox mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/var/lib /new/root
  /bin/busybox touch /new/moved
  exec /bin/busybox switch_root /new /init
fi
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
ip link set lo up
hostname guest
echo "== guest $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"

fail() { echo "FAILED: $*"; cat /var/lib/compose/engine.log 2>/dev/null | tail -30; poweroff -f; sleep 10; }
same() { [ "$2" = "$3" ] && echo "ok $1" || fail "$1: expected '$3', got '$2'"; }
holds() { name=$1; shift; "$@" && echo "ok $name" || fail "$name"; }
cgroup_of() { find /sys/fs/cgroup -type d -name "*$(compose ps -aq "$1")*" | head -1; }
value() { sed -n "s/^$2 //p" "$1"; }

mkdir -p /project/image && cd /project
cp /bin/busybox image/
printf 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nRUN mkdir -m 1777 /tmp\nCMD ["sh"]\n' >image/Dockerfile
cat >compose.yaml <<'Y'
services:
  limited:
    build: image
    image: busybox:latest
    init: true
    command: [sleep, "1000"]
    mem_limit: 64m
    memswap_limit: 96m
    mem_reservation: 32m
    pids_limit: 50
    cpus: 0.2
    cpu_shares: 512
    cpuset: "1"
    devices: ["/dev/ram0:/dev/ram0"]
    blkio_config:
      device_read_bps: [{path: /dev/ram0, rate: 1mb}]
      device_write_iops: [{path: /dev/ram0, rate: 100}]
    ports: ["8080:80"]
    networks: [n]
  hungry:
    image: busybox:latest
    mem_limit: 16m
    # Fills a tmpfs, which counts as the container's memory.
    tmpfs: /fill
    command: [dd, if=/dev/zero, of=/fill/x, bs=1M, count=64]
    networks: [n]
  bomb:
    image: busybox:latest
    init: true
    pids_limit: 20
    command: [sh, -c, "b() { b | b & }; b 2>/dev/null; sleep 1000"]
    networks: [n]
  web:
    image: busybox:latest
    init: true
    command: [sh, -c, "echo here > /tmp/index.html && httpd -f -h /tmp -p 80"]
    ports: ["127.0.0.1:9090:80"]
    networks: [n]
networks:
  n:
Y
export COMPOSE_PROGRESS=plain
timeout 400 compose up -d --build || fail "up"
cgroup=$(cgroup_of limited)
[ -n "$cgroup" ] || fail "the container's cgroup is not to be found"
same "memory.max" "$(cat "$cgroup/memory.max")" 67108864
same "memory.swap.max" "$(cat "$cgroup/memory.swap.max")" 33554432
same "memory.low" "$(cat "$cgroup/memory.low")" 33554432
same "pids.max" "$(cat "$cgroup/pids.max")" 50
same "cpu.max" "$(cat "$cgroup/cpu.max")" "20000 100000"
same "cpu.weight" "$(cat "$cgroup/cpu.weight")" 20
same "cpuset.cpus" "$(cat "$cgroup/cpuset.cpus.effective")" 1
same "cpuset inside" "$(compose exec -T limited sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)" 1
same "io.max" "$(cat "$cgroup/io.max")" "1:0 rbps=1048576 wbps=max riops=max wiops=100"
same "device refused" "$(compose exec -T limited sh -c 'mknod /m c 1 1 && cat /m 2>&1 | head -c 200 | grep -c "not permitted"')" 1
same "resolves and answers" "$(compose exec -T limited wget -qO- http://web/index.html)" here
same "published port" "$(wget -qO- http://127.0.0.1:9090/index.html)" here

# A fork bomb finds its limit, and its neighbours go on.
bomb=$(cgroup_of bomb)
i=0; while [ "$(value "$bomb/pids.events" max)" -lt 1 ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
holds "the fork bomb was refused more processes" [ "$(value "$bomb/pids.events" max)" -ge 1 ]
holds "and has no more than it may" [ "$(cat "$bomb/pids.current")" -le 20 ]
same "its neighbour answers" "$(wget -qO- http://127.0.0.1:9090/index.html)" here

# A busy loop gets its share of a processor: a fifth of the time that passes, whatever the machine's speed.
compose exec -d limited sh -c 'while :; do :; done'
before=$(value "$cgroup/cpu.stat" usage_usec); start=$(cut -d' ' -f1 /proc/uptime | tr -d .)
sleep 2
used=$(($(value "$cgroup/cpu.stat" usage_usec) - before)); passed=$((($(cut -d' ' -f1 /proc/uptime | tr -d .) - start) * 10000))
echo "cpu: ${used} us of ${passed} us"
holds "the quota holds" [ $((used * 100)) -le $((passed * 30)) ]
holds "by throttling" [ "$(value "$cgroup/cpu.stat" nr_throttled)" -ge 1 ]

# Reading takes many times as long as it does without the limit of 1 MB a second, whatever the machine's speed.
read_all() {
  echo 3 >/proc/sys/vm/drop_caches
  start=$(cut -d' ' -f1 /proc/uptime | tr -d .)
  "$@" dd if=/dev/ram0 of=/dev/null bs=256k count=48 2>/dev/null || fail "dd"
  took=$(($(cut -d' ' -f1 /proc/uptime | tr -d .) - start))
}
read_all env; free=$took
read_all compose exec -T limited
echo "read: ${took}0 ms, without limit ${free}0 ms"
holds "reading is throttled" [ "$took" -ge $((free * 4)) ]

# Stopped where it is: the busy loop uses nothing more.
compose pause limited >/dev/null 2>&1 || fail "pause"
same "cgroup.freeze" "$(value "$cgroup/cgroup.events" frozen)" 1
before=$(value "$cgroup/cpu.stat" usage_usec); sleep 0.5
same "a frozen container rests" "$(value "$cgroup/cpu.stat" usage_usec)" "$before"
compose unpause limited >/dev/null 2>&1 || fail "unpause"
same "cgroup.freeze" "$(value "$cgroup/cgroup.events" frozen)" 0

# Changed while it runs.
id=$(compose ps -q limited)
sed -i 's/pids_limit: 50/pids_limit: 60/' compose.yaml
compose up -d limited >/dev/null 2>&1 || fail "up again"
cgroup=$(cgroup_of limited)
same "pids.max changed" "$(cat "$cgroup/pids.max")" 60

i=0; while [ -z "$(compose ps -aq --status exited hungry)" ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
same "killed for its memory" "$(compose ps -a --format '{{.ExitCode}}' hungry)" 137
compose up --no-log-prefix hungry >/tmp/said 2>&1
cat /tmp/said
holds "the limit's place is told" grep -q 'limit of 16MiB, see compose.yaml:22:' /tmp/said

# Everything in the cgroup goes, whoever its parent is.
compose exec -d limited sh -c 'sleep 1001 & setsid sleep 1002 & wait'
compose kill limited >/dev/null 2>&1 || fail "kill"
i=0; while [ -d "$cgroup" ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
same "kill leaves no process" "$(ps | grep -c 'sleep 100[12]')" 0
compose stop -t 1 >/dev/null 2>&1 || fail "stop"
compose down -v -t 1 >/dev/null 2>&1 || fail "down"
same "no cgroup is left" "$(find /sys/fs/cgroup -mindepth 1 -type d -name "compose*" | wc -l)" 0
# The network of a build's steps is the engine's, and goes with it.
kill "$(cat /var/lib/compose/engine.lock)" || fail "an engine runs"
i=0; while [ -e /run/compose/engine.sock ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
same "no link is left" "$(ls /sys/class/net | grep -cE '^(br-|v[0-9a-f])')" 0
same "no mount is left" "$(grep -c overlay /proc/mounts)" 0
echo "== passed"
poweroff -f
