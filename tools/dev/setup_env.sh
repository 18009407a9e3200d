#!/usr/bin/env bash
# Sets up the environment of `make demo` and `make test` in $VENV, or goes on where it stopped.
#
#   PYTHON  the interpreter the environment is made with (default python3; 3.10 or newer)
#   STACK   whose mmcv, mmengine and mmdet: openmmlab (default), or onedl for the maintained forks
#   VENV    the environment's folder (default .venv)
#   JOBS    processes that compile mmcv (default: one a core)
#
# A stamp file in the environment keeps a digest of everything that decides what is installed, so a
# second call has nothing to do.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
STACK=${STACK:-openmmlab}
VENV=${VENV:-.venv}
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
CONSTRAINTS=requirements/constraints.txt
LOG=$VENV/setup.log
STAMP=$VENV/setup.stamp
PIP=("$VENV/bin/python" -m pip --disable-pip-version-check)
case $STACK in
    openmmlab) MMCV=mmcv OTHERS=(mmengine mmdet) ;;
    onedl) MMCV=onedl-mmcv OTHERS=(onedl-mmengine onedl-mmdetection) ;;
    *)
        echo "setup: there is no stack $STACK. It is openmmlab, or onedl: make test STACK=onedl" >&2
        exit 1
        ;;
esac

digest() {
    { cat setup.cfg pyproject.toml "$CONSTRAINTS" tools/dev/setup_env.sh; echo "$STACK"; pwd -P; } | cksum
}

has_compiled_ops() {  # a look at the files: importing torch would take seconds at every call
    compgen -G "$VENV/lib/python*/site-packages/mmcv/_ext*.so" > /dev/null
}

fail() {  # fail WHAT ADVICE
    echo "setup: $1 failed. From $LOG, lines with errors and the end:" >&2
    { grep -iE 'error|killed' "$LOG" | tail -n 5 || true; tail -n 5 "$LOG"; } | cut -c 1-300 >&2
    echo "setup: $2" >&2
    echo "setup: then call make again; what is installed already stays." >&2
    exit 1
}

step() {  # step WHAT ADVICE COMMAND...
    local what=$1 advice=$2
    shift 2
    echo "setup: $what"
    "$@" >> "$LOG" 2>&1 || fail "$what" "$advice"
}

check_python() {
    if ! command -v "$PYTHON" > /dev/null; then
        echo "setup: there is no $PYTHON. Install Python 3.10 or newer, or name one:" \
             "make test PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "setup: $("$PYTHON" --version) is too old for the pinned torch. Name Python 3.10 or" \
             "newer: make test PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
}

check_stack() {  # the stacks have the same files: one would be laid over the other
    local other
    for other in mmcv onedl_mmcv; do
        [[ $other == "${MMCV/-/_}" ]] && continue
        compgen -G "$VENV/lib/python*/site-packages/$other-*.dist-info" > /dev/null || continue
        echo "setup: $VENV has the packages of the other stack. Take another folder, for example:" \
             "make test STACK=$STACK VENV=.venv-$STACK" >&2
        exit 1
    done
}

make_venv() {
    [[ -x $VENV/bin/python ]] && "$VENV/bin/python" -m pip --version > /dev/null 2>&1 && return
    check_python
    if ! "$PYTHON" -m venv "$VENV"; then
        echo "setup: $PYTHON could not make a virtual environment in $VENV. On Debian or Ubuntu:" \
             "apt-get install python3-venv. Then: rm -rf $VENV, and call make again." >&2
        exit 1
    fi
}

show_compiling() {  # show_compiling PID: ninja writes [3/77] for every file that is done
    local shown='' now waited=0
    while kill -0 "$1" 2> /dev/null; do
        now=$(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$LOG" | tail -n 1 | tr -d ' []') || true
        if [[ -n $now && $now != "$shown" || $((waited % 30)) == 0 ]]; then
            echo "setup:   mmcv ${now:+file $now, }after $((waited / 60)) min $((waited % 60)) s"
            shown=$now
        fi
        sleep 5
        waited=$((waited + 5))
    done
}

install_mmcv() {
    local options=()
    has_compiled_ops && "$VENV/bin/python" -c 'import mmcv.ops' >> "$LOG" 2>&1 && return
    if "${PIP[@]}" show "$MMCV" > /dev/null 2>&1; then
        echo "setup: the installed mmcv has no compiled operators for this torch; building it again"
        "${PIP[@]}" uninstall --yes "$MMCV" >> "$LOG" 2>&1
        options=(--no-cache-dir)  # the cached wheel would be the same one
    fi
    command -v g++ > /dev/null || {
        echo "setup: mmcv is compiled, and there is no g++. Install it: apt-get install g++" >&2
        exit 1
    }
    echo "setup: mmcv with its operators, compiled by $JOBS processes (7 minutes on two cores)"
    # CFLAGS replaces Python's own flags, so the usual ones are repeated; -g0 halves the time.
    set -m # a process group of its own, so that an interruption ends the compilers too
    CFLAGS='-O2 -g0 -DNDEBUG -fwrapv' MMCV_WITH_OPS=1 MAX_JOBS=$JOBS "${PIP[@]}" install -v \
        ${options[@]+"${options[@]}"} --no-build-isolation --constraint "$CONSTRAINTS" "$MMCV" \
        >> "$LOG" 2>&1 &
    local pid=$!
    set +m
    trap 'kill -- -'"$pid"' 2> /dev/null' EXIT
    show_compiling "$pid"
    trap - EXIT
    wait "$pid" || fail 'mmcv' "if memory ran out, compile one file at a time: make test JOBS=1; \
if the CUDA compiler is missing or does not suit torch, build for the CPU: CUDA_VISIBLE_DEVICES= make test"
    "$VENV/bin/python" -c 'import mmcv.ops' >> "$LOG" 2>&1 ||
        fail 'loading the operators of mmcv' "remove the environment: rm -rf $VENV"
}

if [[ -f $STAMP && $(cat "$STAMP") == "$(digest)" ]] && has_compiled_ops; then
    exit 0
fi
make_venv
check_stack
: > "$LOG"
NETWORK='check that pip reaches a package index (pip config list shows which one it asks)'
step 'torch and the tools that build mmcv' "$NETWORK" \
    "${PIP[@]}" install --constraint "$CONSTRAINTS" torch setuptools wheel ninja
install_mmcv
step 'mmengine and mmdet' "$NETWORK" \
    "${PIP[@]}" install --constraint "$CONSTRAINTS" "${OTHERS[@]}"
step 'mmaqd itself, editable, with what its tests and checks need' "$NETWORK" \
    "${PIP[@]}" install --no-build-isolation --constraint "$CONSTRAINTS" --editable '.[test,lint]'
step 'checking the installation' "remove the environment: rm -rf $VENV" \
    "$VENV/bin/python" -c 'import mmaqd'
digest > "$STAMP"
echo "setup: done, the environment is in $VENV"
