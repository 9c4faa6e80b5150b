#!/bin/bash
# Installs what the tests need from Debian packages, and builds the root file system of the test images, once.
#
# Needs root (or a way to become root: sudo) for apt-get. The result is kept in COMPOSE_TEST_CACHE
# (default: ~/.cache/compose-tests).
set -euo pipefail

cache=${COMPOSE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/compose-tests}
mkdir -p "$cache"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
want() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }
want mmdebstrap mmdebstrap
want docker-registry docker-registry
want docker docker.io
want curl curl
want git git
want ip iproute2
want runc runc
want crun crun
want qemu-system-x86_64 qemu-system-x86
want cpio cpio
want skopeo skopeo
want strace strace
want newuidmap uidmap
want pasta passt
want tmux tmux
want vi vim-tiny
want python3 python3
[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || missing+=(busybox-static)
if [ ${#missing[@]} -gt 0 ]; then
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# A plain user for the tests that run without root, with ids of their own to give away.
if ! id compose-test >/dev/null 2>&1; then
  as_root useradd --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin compose-test
  grep -q '^compose-test:' /etc/subuid || as_root usermod --add-subuids 800000-865535 --add-subgids 800000-865535 compose-test
fi

# PostgreSQL, gosu and the client library, in a file system of their own: what the official images are made of.
rootfs=$cache/debian-postgresql.tar
if [ ! -s "$rootfs" ]; then
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  mmdebstrap --quiet --variant=minbase --include=postgresql,gosu,python3-minimal,python3-psycopg2 \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='rm -rf "$1"/var/lib/postgresql/*/main "$1"/etc/postgresql/*/main' \
    "$suite" "$cache/new.tar"
  mv "$cache/new.tar" "$rootfs"
fi

# Debian and the packages of real programs, for Dockerfiles that install them without a network.
packages=$cache/debian-packages.tar
if [ ! -s "$packages" ]; then
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  fetch=$(mktemp)
  # mmdebstrap calls it with the new root. What apt knows of packages that are not there only costs time.
  cat >"$fetch" <<'EOT'
#!/bin/sh
set -eu
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends --download-only install \
  redis-server nginx memcached haproxy python3-pip python3-venv python3-setuptools python3-wheel
cd "$1/var"
names=$(find cache/apt/archives -name '*.deb' -exec basename {} \; | sed 's/_.*//' | tr '\n' ' ')
for list in lib/apt/lists/*_Packages; do
  awk -v RS= -v ORS='\n\n' -v names="$names" \
    'BEGIN { split(names, all, " "); for (i in all) keep[all[i]] } $2 in keep' "$list" >lib/apt/new
  mv lib/apt/new "$list"
done
rm -f cache/apt/*.bin
EOT
  chmod +x "$fetch"
  mmdebstrap --quiet --variant=minbase --skip=cleanup/apt \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook="$fetch" "$suite" "$cache/new.tar"
  rm -f "$fetch"
  mv "$cache/new.tar" "$packages"
fi

# A kernel for the virtual machine of tests/vm, unpacked; never installed.
vm=$cache/vm
if [ ! -d "$vm/kernel" ] && [ "$(dpkg --print-architecture)" = amd64 ]; then
  rm -rf "$vm"
  mkdir -p "$vm/package"
  as_root apt-get update -qq
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: *\(linux-image-[0-9].*\)/\1/p' | head -1)
  (cd "$vm/package" && apt-get download -qq "$package")
  dpkg-deb -x "$vm"/package/*.deb "$vm/kernel.new"
  mv "$vm/kernel.new" "$vm/kernel"
  rm -rf "$vm/package"
fi
