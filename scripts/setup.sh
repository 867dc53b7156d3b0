#!/bin/sh
# Builds .venv in the checkout: system packages (as root), a virtual environment, pinned Python and Node.js packages.
# Safe to run again at any time: what is there already is kept.
#
# Variables:
#   PYTHON       the Python to use (default: python3; 3.11 or later)
#   TORCH_INDEX  where to take PyTorch from (default: pip's own index). PyTorch's CPU index saves gigabytes of CUDA.
set -eu
cd "$(dirname "$0")/.."

TORCH="torch==2.13.0"
SYSTEM_PACKAGES="gcc libgmp-dev python3-venv python3-dev chromium nodejs postgresql"

say() { printf '%s\n' "setup: $*" >&2; }
stop() {
    say "error: $1"
    say "what to do: $2"
    exit 2
}

# 1. System packages: a compiler and GMP for the elliptic-curve packages under libp2p; for the tests chromium (pages),
# nodejs (the browser's JavaScript and a js-libp2p client, held against ours), npm (its packages), postgresql (the registry's other database)
# and nginx (before the consent page).
missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $SYSTEM_PACKAGES; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || missing="$missing $package"
    done
    command -v npm >/dev/null 2>&1 || missing="$missing npm" # with some builds of Node.js it comes along
    [ -x /usr/sbin/nginx ] || command -v nginx >/dev/null 2>&1 || missing="$missing nginx-light"
    if [ -n "$missing" ] && [ "$(id -u)" = 0 ]; then
        say "installing system packages:$missing (up to about 700 MB with what they need, most of it chromium)"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of names
        apt-get -q -o DPkg::Lock::Timeout=120 update >&2 && apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends $missing >&2 ||
            stop "apt-get could not install$missing" "look at its lines above, mend the cause, run make setup again"
        case "$missing" in *nginx*) # the tests start one of their own, on loopback
            systemctl disable --now nginx >/dev/null 2>&1 || service nginx stop >/dev/null 2>&1 || true ;;
        esac
    elif [ -n "$missing" ]; then
        say "these system packages are missing:$missing"
        say "run this line, then make setup again if it stops below:"
        say "  sudo apt-get install -y$missing"
    fi
else
    say "not a Debian system: please see to a C compiler, the GMP headers, Python's venv and headers, and chromium"
fi

# 2. The virtual environment.
python="${PYTHON:-python3}"
command -v "$python" >/dev/null 2>&1 || stop "there is no $python" "install Python 3.11 or later, or name it: make setup PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$python" --version) is too old" "install Python 3.11 or later, or name it: make setup PYTHON=python3.12"
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv || stop "the virtual environment could not be made" "apt-get install -y python3-venv"
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

# 3. PyTorch first: by far the largest package, and the one that may come from elsewhere.
export PIP_CONSTRAINT=constraints.txt # relative: pip splits this variable at blanks, which a path may hold
if ! pip show --quiet torch >/dev/null 2>&1; then
    if [ -n "${TORCH_INDEX:-}" ]; then
        say "downloading PyTorch ($TORCH, about 200 MB for the CPU build) from $TORCH_INDEX"
        # Without its dependencies: those are pinned here and come with the rest, from pip's own index.
        pip install --quiet --no-deps --index-url "$TORCH_INDEX" "$TORCH" ||
            stop "PyTorch could not be installed from $TORCH_INDEX" "check the address, or leave TORCH_INDEX unset"
    else
        say "downloading PyTorch ($TORCH) from pip's index: about 200 MB where that holds the CPU build; on Linux PCs the"
        say "  general index holds the CUDA build, about 3 GB with its libraries. TORCH_INDEX=... takes the CPU index instead."
        pip install --quiet "$TORCH" || stop "PyTorch could not be installed" "look at pip's lines above"
    fi
fi

# 4. Accord itself, editable, with every role, the tests and the linters.
say "installing the other Python packages (versions in constraints.txt); the first time that downloads about 350 MB"
# shellcheck disable=SC2046 # one requirement a word: they hold no blanks
pip install --quiet --editable '.[demo,text,chain]' $(.venv/bin/python - <<'PYTHON'
import tomllib

with open("pyproject.toml", "rb") as file:
    groups = tomllib.load(file)["dependency-groups"]
print(*(requirement.replace(" ", "") for group in groups.values() for requirement in group))
PYTHON
) || stop "the Python packages could not be installed" "look at pip's lines above; a compiler error means that gcc, libgmp-dev or python3-dev is missing"

# 5. js-libp2p for one test, in .venv/foreign (versions in package-lock.json; nothing of it runs while it is installed).
if command -v npm >/dev/null 2>&1; then
    mkdir -p .venv/foreign
    cp tests/federation/network/foreign/package.json tests/federation/network/foreign/package-lock.json .venv/foreign/
    (cd .venv/foreign && npm ci --silent --ignore-scripts --no-audit --no-fund >&2) ||
        stop "the Node.js packages could not be installed" "run npm ci in .venv/foreign and look at its lines"
else
    say "npm is not there: the test with js-libp2p will be left out"
fi
say "done: .venv is ready ($(du -sm .venv | cut -f1) MB)"
