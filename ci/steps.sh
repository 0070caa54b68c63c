# Steps that ./quickstart and ./check have in common; sourced by both, from the repository's root.
# A step that is already done is not done again, and one that fails says which, why, and what to do.
# shellcheck shell=bash

export CCACHE_SLOPPINESS=pch_defines,time_macros # or it keeps nothing that a precompiled header goes into
steps_done=0
step_started=$SECONDS
step_name=
step_times=
logs=build/logs

# step TEXT: announces a step, which lasts until the next one.
step() {
    end_step
    steps_done=$((steps_done + 1))
    step_started=$SECONDS
    step_name=$*
    printf '==> %d. %s\n' "$steps_done" "$*"
}

end_step() {
    [ -z "$step_name" ] ||
        step_times+=$(printf '%7d s  %s' $((SECONDS - step_started)) "$step_name")$'\n'
    step_name=
}

# print_times: how long each step took, and all of them.
print_times() {
    end_step
    printf '\nTime:\n%s%7d s  altogether\n' "$step_times" "$SECONDS"
}

note() { printf '    %s\n' "$*"; }

# die WHAT WHY WHAT-TO-DO: ends the script.
die() {
    {
        echo
        echo "FAILED: $1"
        echo "  why:        $2"
        echo "  what to do: $3"
    } >&2
    exit 1
}

# logged NAME COMMAND...: runs it with its output in build/logs/NAME.log; false if it failed.
logged() {
    local log=$logs/$1.log
    shift
    mkdir -p "$logs"
    "$@" >"$log" 2>&1
}

# tail_of NAME: the end of a log, indented, for a failure's message.
tail_of() { tail -n 20 "$logs/$1.log" | sed 's/^/    | /' >&2; }

wanted_packages() { sed 's/#.*//' ci/packages.txt | xargs; }

missing_packages() {
    local package
    for package in $(wanted_packages); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            printf '%s ' "$package"
    done
}

# Packages may start services (openssh-server does); nothing here wants them started.
without_services() {
    local policy=/usr/sbin/policy-rc.d status=0
    [ ! -e "$policy" ] || policy=
    [ -z "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; }
    "$@" || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    return $status
}

install_packages() {
    local missing
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    step "Installing $(wc -w <<<"$missing") missing Debian packages"
    note "$missing"
    [ "$(id -u)" = 0 ] || die "installing packages" "only root may install them" \
        "run as root: apt-get install $missing"
    export DEBIAN_FRONTEND=noninteractive
    logged apt-update apt-get -q update ||
        note "apt-get update failed (build/logs/apt-update.log); trying with the lists there are"
    # shellcheck disable=SC2086  # a list of words
    logged apt-install without_services \
        apt-get -q -y --no-install-recommends install $missing || {
        tail_of apt-install
        die "installing packages" "apt-get install ended with an error, shown above" \
            "check the network and /etc/apt, then run this again (log: build/logs/apt-install.log)"
    }
    note "done in $((SECONDS - step_started)) s"
}

# look_at_machine [preflight's options]: its exit status; it is written in Python.
look_at_machine() {
    command -v python3 >/dev/null || install_packages
    ci/preflight "$@"
}

build_criu() {
    if packaging/criu/build-criu --is-done build; then
        return 0
    fi
    step "Building criu (half a minute)"
    logged criu packaging/criu/build-criu build || {
        tail_of criu
        die "building criu" "see above" \
            "repair what it names and run this again (log: build/logs/criu.log)"
    }
    note "$(tail -n 1 "$logs/criu.log")"
}

# configure_in FOLDER OPTION...: makes ./configure and FOLDER/config.status unless they are there.
configure_in() {
    local folder=$1
    shift
    if [ ! -x configure ] || [ configure.ac -nt configure ]; then
        step "Making ./configure (autoreconf)"
        logged autoreconf autoreconf -i || {
            tail_of autoreconf
            die "autoreconf" "see above" "send build/logs/autoreconf.log to the project"
        }
    fi
    [ ! -x "$folder/config.status" ] || return 0
    step "Configuring $folder"
    mkdir -p "$folder"
    # a second build of the same sources costs little where ccache is installed; it is not needed
    if command -v ccache >/dev/null; then
        set -- "$@" CC="ccache gcc" CXX="ccache g++"
    fi
    logged "configure-$folder" env -C "$folder" ../configure "$@" || {
        tail_of "configure-$folder"
        die "configuring $folder" "see above" \
            "install what it names and run this again (log: build/logs/configure-$folder.log)"
    }
}

# make_in FOLDER TARGET [VARIABLE=VALUE...]: builds; says nothing when there was nothing to do. One
# target: automake's `all` starts a make of its own (for config.h), which would build the same objects
# at the same time as a second target beside it.
make_in() {
    local folder=$1
    shift
    if make -C "$folder" -q "$@" >/dev/null 2>&1; then
        return 0
    fi
    step "Building in $folder: $1"
    logged "make-$folder" make -C "$folder" -j"$(nproc)" "$@" || {
        grep -E -A5 'error|Error' "$logs/make-$folder.log" | head -n 30 | sed 's/^/    | /' >&2
        die "building in $folder" "the compiler's errors are above" \
            "full output: build/logs/make-$folder.log"
    }
    note "done in $((SECONDS - step_started)) s"
}
