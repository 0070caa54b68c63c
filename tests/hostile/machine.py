"""A hostile machine on the nodes' network, node gn4, which is no part of the job and knows no secret; it connects to
what listens, as often as it can, while the job computes and moves. Each case is one way; see docs/SECURITY.md. Without
arguments all cases; else those named. The laboratory is that of tests/net/snapshots.py."""
import json
import os
import re
import subprocess
import sys
import time

import snapshots
from snapshots import Endless, lab, on, until
from suite import AtWork, as_user, cases_in, good

# idle: 2000 connections that say nothing, made again when they are closed; dripping: the same, and each says a byte now
# and then; junk: connections that say what is no greeting, one after the other as quickly as it goes, by four processes.
ATTACK = r"""
import os, resource, select, socket, sys, time
host, port, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
def connection():
    s = socket.socket()
    s.settimeout(2)
    try:
        s.connect((host, port))
        return s
    except OSError:
        return None
def junk():
    while True:
        s = connection()
        try:
            if s: s.sendall(b"A" * 160); s.close()
        except OSError:
            pass
if way == "junk":
    for i in range(4):
        if os.fork() == 0:
            junk()
    print("ready", flush=True)
    sys.stdin.read()
    os.killpg(0, 9)
held, at = {}, 0
poll = select.epoll()
def again():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((host, port))
    held[s.fileno()] = s
    poll.register(s.fileno(), select.EPOLLRDHUP)
for i in range(2000):
    again()
print("ready", flush=True)
poll.register(0, select.EPOLLIN)
while True:
    for fd, _ in poll.poll(0.1, 2000):  # whose other end has hung up
        if fd == 0: sys.exit()
        poll.unregister(fd)
        held.pop(fd).close()
        again()
    for s in held.values() if way == "dripping" else ():
        try: s.send(b"K")
        except OSError: pass
"""

# Of the process whose name begins so and that listens by TCP: its number, ports, descriptors, processor time in
# seconds.
LOOK = r"""
import json, os, re, subprocess, sys
lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout.splitlines()
found = {}
for line in lines:
    said = re.search(r':(\d+)\s.*\("%s[^"]*",pid=(\d+)' % sys.argv[1], line)
    if said: found.setdefault(int(said[2]), []).append(int(said[1]))
out = []
for pid, ports in found.items():
    fields = open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()
    out.append({"pid": pid, "ports": ports, "fds": len(os.listdir("/proc/%d/fd" % pid)),
                "cpu": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")})
print(json.dumps(out))
"""

# On the target of a move, without any right: connects to every port that begins to listen, and drips.
LURK = r"""
import socket, sys, time
def listening():
    out = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(name).readlines()[1:]:
            words = line.split()
            if words[3] == "0A": out.add(int(words[1].rsplit(":", 1)[1], 16))
    return out
known, held = listening(), []
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    for port in listening() - known:
        known.add(port)
        for i in range(20):
            s = socket.socket()
            try:
                s.connect(("127.0.0.1", port))
                held.append(s)
            except OSError:
                pass
    for s in held:
        try: s.send(b"G")
        except OSError: pass
    time.sleep(0.001)
"""


# Addresses at which anybody begins to listen by TCP, as the kernel writes them, each once into a file, until the input
# ends.
NEW_LISTENERS = r"""
import select, sys
def listening():
    out = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(name).readlines()[1:]:
            words = line.split()
            if words[3] == "0A": out.add(words[1])
    return out
known, said = listening(), open(sys.argv[1], "w", 1)
print("ready", flush=True)
while not select.select([0], [], [], 0.001)[0]:
    for one in listening() - known:
        known.add(one)
        print(one.rsplit(":", 1)[0], file=said)
"""


class At(AtWork):
    """A hostile program on a node, which may not end by itself."""

    def __init__(self, node, code, *words, before=()):
        super().__init__(lab.words(node, *before, "python3", "-c", code, *words), start_new_session=True)

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()


def look(node, name):
    all_of_them = json.loads(good(on(node, "python3", "-c", LOOK, name)))
    assert len(all_of_them) == 1, (node, name, all_of_them)
    return all_of_them[0]


def attacked(node, name, way, meanwhile):
    """That process under attack: costs little, whatever happens meanwhile."""
    before = look(node, name)
    with At("gn4", ATTACK, lab.address(node), str(before["ports"][0]), way):
        first, begin = look(node, name), time.monotonic()
        time.sleep(3)  # of attack
        second, lasted = look(node, name), time.monotonic() - begin
        share = (second["cpu"] - first["cpu"]) / lasted
        print("%s, %s: %d %% of a processor, descriptors %d -> %d" %
              (name, way, 100 * share, before["fds"], second["fds"]), flush=True)
        assert second["fds"] <= before["fds"] + 40, (before, second)
        assert share < 0.45, (way, share)
        meanwhile()


def against_rank(folder, way):
    job = Endless(folder)

    def meanwhile():
        assert job.move("gn3") < 10
        assert job.move("gn2") < 10
        now = job.steps()
        until(lambda: job.steps() > now, "the job to go on", limit=5)
    attacked("gn2", "ledger", way, meanwhile)
    assert job.text().count("refused") <= 6, job.text()[-2000:]  # a rank says so once in a life at a place
    job.kill()


def case_idle_at_rank(folder):
    """2000 connections that say nothing."""
    against_rank(folder, "idle")


def case_dripping_at_rank(folder):
    """2000 connections that say a byte now and then."""
    against_rank(folder, "dripping")


def case_junk_at_rank(folder):
    """Whatever is no greeting, as quickly as it goes."""
    against_rank(folder, "junk")


def case_lurking_at_the_target(folder):
    """A user of the target's connects to whatever begins to listen there, and drips."""
    job = Endless(folder)
    with At("gn3", LURK, before=as_user(65534)):
        for _ in range(3):
            assert job.move("gn3") < 10
            assert job.move("gn2") < 10
    job.kill()


def case_target_listens_where_included(folder):
    """The ghost's port and the rank's are at the address of the included net alone. The ghost's is there until the rank's
    node, which is cut off meanwhile, has connected to it; the rank's stays."""
    job = Endless(folder, mca=[("btl_kernet_if_include", re.sub(r"\d+$", "0/24", lab.address("gn3")))])
    path = os.path.join(folder, "listeners")

    def seen(count):
        def addresses():
            with open(path) as file:
                return file.read().split()
        return until(lambda: len(addresses()) >= count and addresses(), "%d who listen" % count)

    with At("gn3", NEW_LISTENERS, path):
        good(lab.command("cut", "gn2"))
        move = subprocess.Popen(lab.words("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seen(1)
        good(lab.command("heal", "gn2"))
        said = move.communicate(timeout=60)[0]
        assert move.returncode == 0, said
        found = seen(2)
    included = "%02X%02X%02X%02X" % tuple(map(int, reversed(lab.address("gn3").split("."))))
    assert set(found) == {included}, (found, included)
    job.kill()


if __name__ == "__main__":
    sys.exit(snapshots.main(cases_in(globals()), sys.argv[1:]))
