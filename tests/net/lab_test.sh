#!/bin/bash
# The virtual cluster: up, exec, mpirun over three nodes, cut, heal, kill, repair, down twice, two
# labs side by side, and clean-up after an `up` that was killed half-way, and after benchmarks that were.
# usage: lab_test.sh  (GHOST names the ghost program; default: ./tools/ghost)
set -u
. "$(dirname "$0")/../suite.sh"
ghost=${GHOST:-$PWD/tools/ghost}
a=t$$a b=t$$b
unset GHOST_LAB

needs root ip tc sshd ssh ssh-keygen mpirun
unshare -n -m -p -u -i -f true 2>/dev/null || skip "this machine refuses new namespaces"

finish() { "$ghost" lab down --name $a; "$ghost" lab down --name $b; }
trap finish EXIT

is() { [ "$1" = "$2" ] || { echo "  got '$1', expected '$2'"; return 1; }; }
exits() { # exits STATUS COMMAND…
    local want=$1 got=0; shift
    "$@" || got=$?
    is $got $want
}
on() { "$ghost" lab exec --name $a "$@"; }
field() { # field NODE FIELD
    "$ghost" lab status --name $a --json |
        python3 -c 'import json,sys; l=json.load(sys.stdin)["labs"][0]
print(l["state"] if sys.argv[1]=="-" else [n for n in l["nodes"] if n["name"]==sys.argv[1]][0][sys.argv[2]])' "$@"
}
nothing_left() { # nothing_left LAB: no namespace, folder or process
    ! ls /run/netns/ghost-$1-* >/dev/null 2>&1 && [ ! -e /var/lib/ghost/lab/$1 ] &&
        ! ps -eo args | grep -E "^[^ ]*ghost lab node $1 " | grep -v grep
}
links() { ip -o link | cut -d: -f2 | sort | tr -d '\n'; }
reaches() { on $1 timeout 1 bash -c "exec 3<>/dev/tcp/$2/22" 2>/dev/null; }
cannot_reach() { ! reaches "$@"; }

# --- up and exec ---
before=$(links)
check "up" "$ghost" lab up -n 3 --name $a
check "state is up" is "$(field - -)" up
check "the machine's own network is untouched" is "$(links)" "$before"
check "host name" is "$(on gn2 hostname)" gn2
check "working directory" is "$(cd /usr/share && on gn1 pwd)" /usr/share
check "standard input" is "$(echo hello | on gn1 cat)" hello
check "exit status" exits 7 on gn1 sh -c 'exit 7'
check "death by signal" exits 143 on gn1 sh -c 'kill -TERM $$'
check "no such command" exits 127 on gn1 ghost-no-such-command
check "no such node" exits 2 on gn9 true
check "options belong to the command" is "$(on gn1 -- echo -n --name x)" "--name x"
check "own /tmp" exits 1 sh -c "'$ghost' lab exec --name $a gn1 touch /tmp/lab-$$ && test -e /tmp/lab-$$"
check "own process ids" is "$(on gn1 sh -c 'ls /proc | grep -c "^[0-9]*$" | awk "{print (\$1 < 12)}"')" 1
check "names resolve, ssh works" is "$(on gn1 ssh -F /var/lib/ghost/lab/$a/ssh_config gn3 hostname)" gn3
over_ssh() { on gn1 ssh -F /var/lib/ghost/lab/$a/ssh_config gn3 "$@"; }
# A home whose ~/.bashrc says so, for gn3 alone and a moment: what is to be run may be in the other.
home=$(getent passwd root | cut -d: -f6)
on gn3 sh -c "cd / && mkdir /scratch/home && echo 'echo read' >/scratch/home/.bashrc && mount --bind /scratch/home '$home'"
check "that home's .bashrc is one that would be read" is "$(over_ssh env SHLVL=0 bash -c true)" read
check "commands over ssh do not wait for a ~/.bashrc" is "$(over_ssh echo here)" here
check "that home is there no more" sh -c "cd / && '$ghost' lab exec --name $a gn3 umount -l '$home'"
check "and find what those find that the lab runs" is "$(over_ssh 'echo $PATH')" "$(on gn3 sh -c 'echo $PATH')"
# What a user needs for ssh is made by the first command that is his, which several may be.
first_commands() {
    local pids= one bad=0
    for one in 1 2 3 4 5 6; do "$ghost" lab exec --name $a --user nobody gn$((one % 3 + 1)) true & pids="$pids $!"; done
    for one in $pids; do wait $one || bad=1; done
    return $bad
}
check "six first commands of a user at once" first_commands
check "ghost refuses lab verbs on a node" exits 1 on gn1 ghost lab status --name $a
check "up again" "$ghost" lab up --name $a
# Open MPI warns when its ssh has begun before it has put it into a process group, which ssh has done then.
check "mpirun over three nodes" is "$(cd / && timeout 60 "$ghost" lab exec --name $a gn1 \
    mpirun -np 4 --host gn1:2,gn2:1,gn3:1 hostname 2>&1 | grep -v 'setpgid.* failed in parent' |
    sort | tr '\n' ' ')" "gn1 gn1 gn2 gn3 "

# --- signals, and the end of exec itself ---
"$ghost" lab exec --name $a gn1 bash -c 'trap "echo got >/scratch/term; exit 5" TERM; touch /scratch/ready; while :; do read -rt 0.05 <> <(:); done' &
pid=$!
check "command runs" poll 10 on gn1 test -e /scratch/ready
kill -TERM $pid; wait $pid; status=$?
check "SIGTERM is passed on" is "$status $(on gn1 cat /scratch/term)" "5 got"
"$ghost" lab exec --name $a gn1 bash -c 'sleep 1234 & sleep 1235' &
pid=$!
check "second command runs" poll 10 on gn1 pgrep -f "sleep 123[5]"
kill -KILL $pid; wait $pid 2>/dev/null
check "it ends when exec is killed" poll 10 on gn1 sh -c '! pgrep -f "sleep 123[45]"'
# Signals are no use, and one has left its parent and its session.
"$ghost" lab exec --name $a gn1 bash -c 'trap "" TERM; (setsid sleep 1236 &); sleep 1238; sleep 1239' &
pid=$!
check "third command runs" poll 10 on gn1 pgrep -f "sleep 123[8]"
kill -KILL $pid; wait $pid 2>/dev/null
check "it ends although it ignores SIGTERM" poll 10 on gn1 sh -c '! pgrep -f "sleep 123[689]"'

# --- cut, heal, shape ---
check "reachable" reaches gn1 gn2
check "cut" "$ghost" lab cut --name $a gn2
check "cut off" cannot_reach gn1 gn2
check "link is cut" is "$(field gn2 link)" cut
check "cut twice" "$ghost" lab cut --name $a gn2
check "heal" "$ghost" lab heal --name $a gn2
check "reachable again" poll 10 reaches gn1 gn2
check "shape" "$ghost" lab shape --name $a gn2 fast-ethernet
check "rate is known" is "$(field gn2 rate)" fast-ethernet
check "bad rate" exits 2 "$ghost" lab shape --name $a gn2 swift
check "shape off" "$ghost" lab shape --name $a gn2 none

# --- side by side ---
check "second lab" "$ghost" lab up -n 1 --name $b --rate gigabit
check "both have gn1" is "$("$ghost" lab exec --name $b gn1 hostname)$(on gn1 hostname)" gn1gn1
check "which lab is meant must be said" exits 2 "$ghost" lab exec gn1 true
check "GHOST_LAB says it" is "$(GHOST_LAB=$b "$ghost" lab exec gn1 hostname)" gn1
check "second lab down" "$ghost" lab down --name $b
check "nothing of it left" nothing_left $b
check "first lab still up" is "$(field - -)" up

# --- a lab that `up` says is up is up: on loaded cores too, every time ---
up_at_once() {
    local i status=0 spinner
    (while :; do :; done) & spinner=$!
    (while :; do :; done) & spinner="$spinner $!"
    for i in $(seq 20); do
        "$ghost" lab up -n 2 --name $b >/dev/null && "$ghost" lab exec --name $b gn1 true || status=1
        "$ghost" lab down --name $b >/dev/null
    done
    kill $spinner
    wait $spinner 2>/dev/null
    return $status
}
check "twenty labs are usable at once" up_at_once

# --- kill and repair ---
"$ghost" lab exec --name $a gn3 sleep 1236 &
pid=$!
check "command on gn3 runs" poll 10 on gn3 pgrep -f "sleep 123[6]"
check "kill" "$ghost" lab kill --name $a gn3
wait $pid; check "its command ended with it" is $? 137
check "dead" is "$(field gn3 state)" dead
check "exec on a dead node is refused" exits 1 on gn3 true
check "kill twice" "$ghost" lab kill --name $a gn3
check "up repairs" "$ghost" lab up --name $a
check "gn3 is back" is "$(on gn3 hostname)" gn3
check "grow" "$ghost" lab up -n 4 --name $a
check "new node is known to the old" is "$(on gn1 ssh -F /var/lib/ghost/lab/$a/ssh_config gn4 hostname)" gn4

# --- down, whatever happened before ---
check "down" "$ghost" lab down --name $a
check "nothing left" nothing_left $a
check "down twice" "$ghost" lab down --name $a
for delay in 0.01 0.03 0.06 0.1 0.15; do
    "$ghost" lab up -n 3 --name $a >/dev/null 2>&1 &
    pid=$!
    read -rt $delay <> <(:) || true
    kill -KILL $pid 2>/dev/null; wait $pid 2>/dev/null
    check "down after up was killed at $delay s" "$ghost" lab down --name $a
    check "nothing left" nothing_left $a
done
check "up" "$ghost" lab up -n 2 --name $a
rm -rf /var/lib/ghost/lab/$a
check "down without its folder" "$ghost" lab down --name $a
check "nothing left" nothing_left $a
check "up" "$ghost" lab up -n 2 --name $a
umount -l /run/netns/ghost-$a-gn1 && rm /run/netns/ghost-$a-gn1
check "down without a namespace's name" "$ghost" lab down --name $a
check "nothing left" nothing_left $a
# A pid written down that means another process now must not be killed.
check "up" "$ghost" lab up -n 1 --name $a
sleep 1237 & bystander=$!
sed -i 's/"pid": [0-9]*/"pid": '$bystander/ /var/lib/ghost/lab/$a/state.json
check "down with a wrong pid" "$ghost" lab down --name $a
check "nothing left" nothing_left $a
check "the bystander lives" kill -0 $bystander
kill $bystander

# --- benchmarks take theirs down, also when they are killed: while it comes up and later ---
begun() { # begun up|whole|job
    case $1 in
    up) [ -e /run/netns/ghost-$a-gn1 ] ;;
    whole) [ -e /run/netns/ghost-$a-gn2 ] ;;
    job) pgrep -f "^[^ ]*ghost lab exec --name $a" >/dev/null ;;
    esac
}
for signal in TERM KILL; do
    for when in up whole job; do
        benchmarks/start_up/start_up --ranks 2 --nodes 2 --turns 9 --name $a --ghost "$ghost" >/dev/null 2>&1 &
        pid=$!
        check "a benchmark begins: $when" poll 30 begun $when
        kill -$signal $pid; wait $pid 2>/dev/null
        check "nothing is left of it after SIG$signal" poll 30 nothing_left $a
    done
done

echo "$failures failed"
[ $failures = 0 ]
