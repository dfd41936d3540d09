#!/usr/bin/env bash
# Makes .venv with everything that `make demo`, `make test` and `make lint` need. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly venv=.venv stamp=.venv/reflux-setup.txt log=.venv/reflux-ffcv-build.log
readonly ffcv_headers=(libopencv-dev libturbojpeg0-dev pkg-config g++)

say() { printf 'setup: %s\n' "$*"; }

apt_line() { echo "apt-get update && apt-get install -y --no-install-recommends $*"; }

# Debian packages, where that is ours to do; fails where it is not, or where the mirror does not answer.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    local options=(-qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)
    export DEBIAN_FRONTEND=noninteractive
    apt-get "${options[@]}" update >/dev/null \
        && apt-get "${options[@]}" install -y --no-install-recommends "$@" >/dev/null
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    say "Reflux needs Python 3.11 or newer; found: $(python3 --version 2>&1 || echo none)" >&2
    say "on Debian 12 or newer, as root: $(apt_line python3 python3-venv python3-dev)" >&2
    return 1
}

package_of() { "$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'; }

make_venv() {
    local python package
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$(package_of "$python")-venv
        say "installing Debian's $package"
        if ! apt_install "$package"; then
            say "this Python cannot make virtual environments. As root: $(apt_line "$package")" >&2
            return 1
        fi
    fi
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

install_project() {
    say "installing Reflux, PyTorch, DALI and the development tools (about 6 GB, one to three minutes)"
    "$venv/bin/python" -m pip install -qq --upgrade pip setuptools wheel
    "$venv/bin/python" -m pip install -qq -e '.[dali,dev]'
}

has_ffcv() { "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("ffcv") is None)'; }

python_header() { "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")'; }

has_headers() {
    command -v g++ >/dev/null && command -v pkg-config >/dev/null \
        && pkg-config --exists opencv4 libturbojpeg && [ -f "$(python_header)" ]
}

get_headers() {
    local packages=("${ffcv_headers[@]}")
    [ -f "$(python_header)" ] || packages+=("$(package_of "$venv/bin/python")-dev")
    say "installing Debian's headers for FFCV: ${packages[*]}"
    if ! apt_install "${packages[@]}" || ! has_headers; then
        say "going on without FFCV (its tests are skipped): its headers are missing. As root:"
        say "    $(apt_line "${packages[@]}")"
        say "and then again: make setup"
        return 1
    fi
}

# FFCV compiles against the installed numpy and torch, hence no build isolation.
install_ffcv() {
    has_headers || get_headers || return 0
    say "building FFCV"
    if ! "$venv/bin/python" -m pip install -q --no-build-isolation ffcv >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        say "going on without FFCV (its tests are skipped): it did not build, see $log"
        return
    fi
    rm -f "$log"
}

# What the environment was made from; another place on the disk counts, since scripts in it hold absolute paths.
wanted_stamp() { { pwd; cat pyproject.toml tools/setup.sh; } | sha256sum; }

main() {
    if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$(pwd)" ]; then
        say "$venv was made in another folder: making it again"
        rm -rf "$venv"
    fi
    if [ -f "$stamp" ] && [ "$(tail -n 1 "$stamp")" = "$(wanted_stamp)" ] && { has_ffcv || [ -f "$log" ] || ! has_headers; }; then
        return
    fi
    local started=$SECONDS
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
    install_project
    has_ffcv || install_ffcv
    { pwd; wanted_stamp; } >"$stamp"
    say "done in $((SECONDS - started)) s"
}

main "$@"
