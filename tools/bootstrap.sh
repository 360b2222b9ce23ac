# shellcheck shell=bash
# Sourced by tools/test, tools/check, tools/demo and tools/bench/run: makes a bare machine able to run castfs.
#
#   bootstrap PURPOSE…    system packages for the purposes (run, test, bench) and a virtual environment with
#                         what requirements.lock names; afterwards `python` and `castfs` are on PATH
#   need_fuse_device      /dev/fuse is there and opens, or a line that says what to do
#   say, die, quiet       one line on stderr; the same and exit 1; run a command, show it only if it fails
#
# Needs nothing but bash, coreutils, grep, sed and util-linux. With all in place it takes 0.1 s.

ROOT=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/.." && pwd -P)
TOOL=tools/${0##*/}

# Debian's names. `has` knows how to see without dpkg that a package's part is there.
declare -A PACKAGES=(
    [run]="fuse3"
    [build]="gcc libc6-dev pkg-config libfuse3-dev" # pyfuse3 has no wheel
    [bench]="git restic squashfuse squashfs-tools fio"
    [test]="gcc libc6-dev git rsync bubblewrap attr acl zstd unzip"
)

say() { printf '%s: %s\n' "$TOOL" "$*" >&2; }
die() { say "$@" && exit 1; }

quiet() {
    local output
    output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2 && return 1; }
}

can_be_root() { [ "$EUID" = 0 ] || sudo -n true 2>/dev/null; }
as_root() { if [ "$EUID" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

has() {
    case $1 in
        acl) command -v setfacl ;;
        attr) command -v setfattr ;;
        bubblewrap) command -v bwrap ;;
        fuse3) command -v fusermount3 ;;
        squashfs-tools) command -v mksquashfs ;;
        libc6-dev) echo '#include <stdio.h>' | gcc -E - ;;
        libfuse3-dev) pkg-config --exists fuse3 ;;
        python*-venv) "$PYTHON" -c 'import ensurepip, venv' ;;
        python*-dev) [ -e "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

install_missing() {
    local package missing=()
    for package; do has "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || ! can_be_root; then
        die "missing system packages (Debian's names): sudo apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]} (apt)"
    apt_install "${missing[@]}" >/dev/null 2>&1 || {
        quiet as_root apt-get update && quiet apt_install "${missing[@]}" # no package lists, or old ones
    } || die "apt could not install: ${missing[*]}"
    for package in "${missing[@]}"; do
        has "$package" || die "$package is installed, yet what it should bring is not found"
    done
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "$@"
}

find_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        PYTHON=$name PYTHON_PACKAGE=python$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        return
    done
    return 1
}

# The stamp covers whatever a finished environment depends on, its own path included: scripts hold it.
stamp() { { "$VENV/bin/python" -V && echo "$VENV" && cat "$ROOT"/{requirements.lock,pyproject.toml}; } 2>/dev/null | sha256sum; }
is_ready() { [ -e "$VENV/castfs.stamp" ] && [ "$(<"$VENV/castfs.stamp")" = "$(stamp)" ]; }

choose_venv() {
    VENV=$ROOT/.venv
    is_ready && return
    if [ ! -w "$ROOT" ] || { [ -e "$VENV" ] && [ ! -w "$VENV" ]; }; then
        VENV=${XDG_CACHE_HOME:-$HOME/.cache}/castfs/venv-$(printf %s "$ROOT" | sha256sum | cut -c 1-12)
    fi
}

# An environment of this path with a working Python is brought up to date where it stands.
is_usable() {
    grep -qF "$VENV" "$VENV/bin/activate" && "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))'
} 2>/dev/null

pip() { "$VENV/bin/python" -m pip --no-input --disable-pip-version-check "$@"; }

build_venv() {
    local extra
    if ! is_usable; then
        say "creating $VENV ($("$PYTHON" -V))"
        mkdir -p "$(dirname "$VENV")"
        quiet "$PYTHON" -m venv --clear "$VENV"
    fi
    say "installing requirements.lock (compiling pyfuse3 takes half a minute)"
    quiet pip install --quiet --require-hashes -r "$ROOT/requirements.lock"
    mapfile -t extra < <(comm -13 <(locked_names) <(installed_names))
    [ ${#extra[@]} = 0 ] || quiet pip uninstall --yes "${extra[@]}"
    quiet pip install --quiet --no-deps --no-build-isolation --editable "$ROOT"
    stamp >"$VENV/castfs.stamp"
}

locked_names() { { echo castfs && echo pip && grep -o '^[A-Za-z0-9][A-Za-z0-9._-]*' "$ROOT/requirements.lock"; } | normalise; }
installed_names() { pip list --format=freeze | sed 's/[ =].*//' | normalise; }
normalise() { sed 's/[-_.]\+/-/g' | tr '[:upper:]' '[:lower:]' | LC_ALL=C sort -u; }

bootstrap() {
    local purpose wanted=""
    for purpose; do wanted+=" ${PACKAGES[$purpose]}"; done
    exec 9<"$ROOT" && flock 9 # two of them at once: the second waits, then finds all done
    choose_venv
    if ! is_ready; then
        find_python || { PYTHON=python3 && install_missing python3 python3-venv && find_python; } ||
            die "no CPython 3.11 or newer on PATH (python3, python3.11 … python3.14)"
        wanted+=" ${PACKAGES[build]} $PYTHON_PACKAGE-dev $PYTHON_PACKAGE-venv"
    fi
    # shellcheck disable=SC2086 # one word per package
    install_missing $wanted
    is_ready || build_venv
    exec 9<&-
    export PATH=$VENV/bin:$PATH
}

need_fuse_device() {
    if [ ! -e /dev/fuse ] && can_be_root; then
        as_root modprobe fuse 2>/dev/null || true
        [ -e /dev/fuse ] || as_root mknod -m 666 /dev/fuse c 10 229 2>/dev/null || true
    fi
    [ -e /dev/fuse ] ||
        die "/dev/fuse is missing: run modprobe fuse as root, or start the container with --device /dev/fuse --cap-add SYS_ADMIN"
    { : <>/dev/fuse; } 2>/dev/null ||
        die "/dev/fuse does not open for $(id -un): run sudo chmod 666 /dev/fuse, or run $TOOL as root"
}
