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

fail() { echo "FAILED: $*"; cat /var/lib/compose/engine.log 2>/dev/null | tail -30; poweroff -f; }
same() { [ "$2" = "$3" ] && echo "ok $1" || fail "$1: expected '$3', got '$2'"; }

mkdir -p /project/image && cd /project
cp /bin/busybox image/
printf 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nCMD ["sh"]\n' >image/Dockerfile
cat >compose.yaml <<'Y'
services:
  limited:
    build: image
    image: busybox:latest
    init: true
    command: [sleep, "1000"]
    mem_limit: 64m
    pids_limit: 50
    cpus: 0.5
    cpu_shares: 512
    ports: ["8080:80"]
    networks: [n]
  hungry:
    image: busybox:latest
    mem_limit: 16m
    # Fills a tmpfs, which counts as the container's memory.
    tmpfs: /fill
    command: [dd, if=/dev/zero, of=/fill/x, bs=1M, count=64]
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
timeout 120 compose up -d --build || fail "up"
id=$(compose ps -q limited)
cgroup=$(find /sys/fs/cgroup -type d -name "*$id*" | head -1)
[ -n "$cgroup" ] || fail "the container's cgroup is not to be found"
same "memory.max" "$(cat "$cgroup/memory.max")" 67108864
same "pids.max" "$(cat "$cgroup/pids.max")" 50
same "cpu.max" "$(cat "$cgroup/cpu.max")" "50000 100000"
same "cpu.weight" "$(cat "$cgroup/cpu.weight")" 20
same "device refused" "$(compose exec -T limited sh -c 'mknod /tmp/m c 1 1 && cat /tmp/m 2>&1 | head -c 200 | grep -c "not permitted"')" 1
same "resolves and answers" "$(compose exec -T limited wget -qO- http://web/index.html)" here
same "published port" "$(wget -qO- http://127.0.0.1:9090/index.html)" here
sleep 2
same "killed for its memory" "$(compose ps -a --format '{{.ExitCode}}' hungry)" 137
compose stop -t 1 >/dev/null 2>&1 || fail "stop"
compose down -v -t 1 >/dev/null 2>&1 || fail "down"
same "no cgroup is left" "$(find /sys/fs/cgroup -type d -name "*$id*" | wc -l)" 0
same "no link is left" "$(ls /sys/class/net | grep -cE '^(br-|v[0-9a-f])')" 0
same "no mount is left" "$(grep -c overlay /proc/mounts)" 0
echo "== passed"
poweroff -f
