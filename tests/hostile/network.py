"""A hostile machine on the nodes' network, which hears all that passes and stands between any two of them; and what
processes and core files have of a job's secret. Each case is one way; see docs/SECURITY.md. Without arguments all
cases; else those named. The laboratory is that of tests/net/snapshots.py."""
import os
import re
import sys
import time

import snapshots
from snapshots import Ledger, lab, on, until
from suite import AtWork, Skip, cases_in, good

NODES = ("gn1", "gn2", "gn3")

# Writes all that the node sends and receives, but not to itself; until its input ends, what has come by then too.
LISTEN = """
import select, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
s.setblocking(False)
with open(sys.argv[1], "wb") as out:
    def take():
        for _ in range(100000):
            try:
                data, (name, *_) = s.recvfrom(1 << 17)
            except BlockingIOError:
                return
            if name != "lo":
                out.write(data[54:])  # what TCP carries, and its options
    print("ready", flush=True)
    while sys.stdin not in select.select([s, sys.stdin], [], [])[0]:
        take()
    take()
"""


class Machine(AtWork):
    """A program on a node; it has to end well."""

    def __init__(self, node, code, *words):
        super().__init__(lab.words(node, "python3", "-c", code, *words))

    def __exit__(self, *_):
        self.said, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors


class Listening:
    """All that passes between the nodes meanwhile."""

    def __init__(self, folder, name):
        self.paths = [os.path.join(folder, name + "." + node) for node in NODES]
        self.machines = [Machine(node, LISTEN, path) for node, path in zip(NODES, self.paths)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for machine in self.machines:
            machine.__exit__()
        self.heard = b""
        for path in self.paths:
            with open(path, "rb") as file:
                self.heard += file.read()
            os.remove(path)


def secret_of(job):
    made = job.snapshot()
    with open(os.path.join(made["snapshot"], "secret")) as file:
        return file.read().strip()


def secret_in(heard, secret):
    return [form for form in (secret.encode(), secret.upper().encode(), bytes.fromhex(secret)) if form in heard]


# Of messages between daemons, and of a rank's memory: its stack begins with these.
TOLD = re.compile(rb'"token"|"t": ?"(prepare|connect|ready|gate|switch|go|snap_prepare)"')
MEMORY = re.compile(rb"OMPI_COMM_WORLD_RANK=|GHOST_NODE_SOCKET=@")


def case_hears(folder):
    """From the start to a restart: neither secret nor token, nor anything of a rank's memory."""
    with Listening(folder, "start") as start:
        job = Ledger(folder, ranks=2, hosts="gn1:1,gn2:1,gn3:1", steps=1300,
                     mca=[("ghost_filters", "crypto"), ("mca_base_env_list", "CANARY=of-the-launch-message")])
        job.reach(20)
    assert b"of-the-launch-message" in start.heard  # it hears what is not sealed
    with Listening(folder, "snapshot") as snapshot:
        secret = secret_of(job)
    with Listening(folder, "moves") as moves:
        good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
        good(on("gn1", "ghost", "migrate", "--rank", "0", "--to", "gn2"))
    assert len(moves.heard) > 4 << 20, len(moves.heard)  # two ranks have passed
    job.reach(job.step() + 20)
    job.kill()
    with Listening(folder, "restart") as restart:
        job.restart("gn1:1,gn2:1,gn3:1")
        job.reach(job.step() + 20)
    for name, one in (("start", start), ("snapshot", snapshot), ("moves", moves), ("restart", restart)):
        assert not secret_in(one.heard, secret), "the secret at the " + name
        assert not TOLD.search(one.heard), (name, TOLD.search(one.heard))
    assert not MEMORY.search(moves.heard), MEMORY.search(moves.heard)
    job.finish()


def unknown_agent(folder):
    """What has mpirun start daemons by something that does not hand the secret on, as batch systems do."""
    lab_agent = good(on("gn1", "sh", "-c", "echo $OMPI_MCA_plm_rsh_agent")).strip()
    agent = os.path.join(folder, "agent")
    with open(agent, "w") as script:
        script.write("#!/bin/sh\nexec %s \"$@\" < /dev/null\n" % lab_agent)
    os.chmod(agent, 0o755)
    return [("plm_rsh_agent", agent)]


def case_hears_daemons_ask(folder):
    """Daemons that nothing has handed the secret to ask mpirun for it: neither secret nor token is heard."""
    with Listening(folder, "start") as start:
        job = Ledger(folder, ranks=3, hosts="gn1:1,gn2:1,gn3:2", steps=1300,
                     mca=[*unknown_agent(folder), ("mca_base_env_list", "CANARY=of-the-launch-message")])
        job.reach(20)
    assert b"GHOST_SECRET_KEY=" in start.heard and b"of-the-launch-message" in start.heard
    secret = secret_of(job)
    with Listening(folder, "moves") as moves:
        good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
        good(on("gn1", "ghost", "migrate", "--rank", "0", "--to", "gn2"))
    job.reach(job.step() + 20)
    for name, one in (("start", start), ("moves", moves)):
        assert not secret_in(one.heard, secret), "the secret at the " + name
        assert not TOLD.search(one.heard), (name, TOLD.search(one.heard))
    job.kill()
    with Listening(folder, "restart") as restart:
        job.restart("gn1:1,gn2:1,gn3:2")
        job.reach(job.step() + 20)
    assert not secret_in(restart.heard, secret), "the secret at the restart"
    good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
    job.finish()


# Stands between this node and the others: new connections come to it, which passes bytes on in both directions. Of the
# connection of a move it does with what comes after the greeting what it is told.
BETWEEN = """
import os, selectors, socket, struct, sys, threading
what, count = sys.argv[1], 0
GREETING = 112
door = socket.socket()
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
door.bind(("0.0.0.0", 1))
door.listen(64)

def records(data):
    out = []
    while len(data) >= 4:
        size = (struct.unpack("<I", data[:4])[0] & 0x7fffffff) + 20
        if len(data) < size:
            break
        out.append(data[:size])
        data = data[size:]
    return out, data

def change(all, seen):
    # the third record and what follows it
    for i, one in enumerate(all):
        if seen + i == 2:
            if what == "flip":
                all[i] = one[:40] + bytes([one[40] ^ 1]) + one[41:]
            elif what == "drop":
                all[i] = b""
            elif what == "repeat":
                all[i] = one + one
            elif what == "early":
                return all[:i], True
    return all, False

def pass_on(a, b, forward, of_move):
    seen, greeting, rest = 0, 0, b""
    try:
        while True:
            data = a.recv(1 << 16)
            if not data:
                break
            if not of_move[0] and forward and greeting == 0 and data.startswith(b"GHOSTN"):
                of_move[0] = True
                print("move", flush=True)
            mine = what.startswith("back-") != forward and of_move[0]
            if mine:
                first = data[:max(0, GREETING - greeting)]
                greeting += len(first)
                b.sendall(first)
                all, rest = records(rest + data[len(first):])
                if what.startswith("back-") and all:
                    all[0] = all[0][:-1] + bytes([all[0][-1] ^ 1])
                all, ends = change(all, seen)
                seen += len(all)
                b.sendall(b"".join(all))
                if ends:
                    break
            else:
                greeting += 1
                b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def impostor(a):
    # a target that knows no secret
    a.recv(80, socket.MSG_WAITALL)
    a.sendall(b"GHOSTN02" + os.urandom(64) + struct.pack("<II", 3, 0))
    a.recv(32, socket.MSG_WAITALL)
    a.sendall(os.urandom(32))
    a.recv(1)

def serve(a):
    port, address = struct.unpack("!2xH4s8x", a.getsockopt(socket.SOL_IP, 80, 16))  # SO_ORIGINAL_DST
    b = socket.socket()
    b.setsockopt(socket.SOL_SOCKET, 36, 77)  # SO_MARK: it is let through
    b.connect((socket.inet_ntoa(address), port))
    if what == "impostor":
        a.settimeout(0.5)
        try:
            first = a.recv(8, socket.MSG_PEEK)
        except OSError:
            first = b""
        a.settimeout(None)
        if first.startswith(b"GHOSTN"):
            print("move", flush=True)
            b.close()
            return impostor(a)
    of_move = [False]
    threading.Thread(target=pass_on, args=(b, a, False, of_move), daemon=True).start()
    pass_on(a, b, True, of_move)

def accept():
    while True:
        threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()

threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""

REDIRECT = ("nft 'add table ip between; add chain ip between out { type nat hook output priority -100; };"
            " add rule ip between out ip daddr 10.77.0.0/24 ip daddr != %s meta mark != 77 tcp dport != 22"
            " redirect to :1'")


def case_stands_between(folder):
    """A move through his hands, each in another way: it fails, the rank goes on where it is; without him it moves."""
    if on("gn2", "sh", "-c", "nft list tables").returncode != 0:
        raise Skip("no nft here")
    job = Ledger(folder, ranks=2, hosts="gn1:1,gn2:1,gn3:1", steps=1500)
    job.reach(20)
    for way in ("flip", "drop", "repeat", "early", "back-flip", "impostor"):
        good(on("gn2", "sh", "-c", REDIRECT % "10.77.0.2"))
        try:
            with Machine("gn2", BETWEEN, way) as between:
                moved = on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3")
        finally:
            good(on("gn2", "nft", "delete", "table", "ip", "between"))
        assert "move" in between.said, (way, between.said, moved.stderr)
        assert moved.returncode != 0, (way, moved.stdout)
        print("# %s: %s" % (way, moved.stderr.strip().splitlines()[0]), flush=True)
        assert re.search(r"gn2 +ranks 1$", good(on("gn1", "ghost", "ps")), re.M), way
        job.reach(job.step() + 20)
    good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
    job.finish()


# What the processes of a node have in their environments and on their command lines.
LOOK = """
import glob
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        with open(path, "rb") as file:
            print(path, file.read())
    except OSError:
        pass
"""


def case_looks_at_processes(folder):
    """No environment, command line or core of a child has the secret; nor has what a job prints of its own."""
    job = Ledger(folder, ranks=2, hosts="gn1:1,gn2:1,gn3:1", steps=100000)
    job.reach(5)
    secret = secret_of(job)
    good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
    for node in NODES:
        seen = good(on(node, "python3", "-c", LOOK)).encode()
        assert b"ledger" in seen or node == "gn2", node
        assert not secret_in(seen, secret), node
    job.kill()
    printed = good(on("gn1", "mpirun", "--mca", "ghost", "1", "-np", "2", "--host", "gn1:1,gn2:1", "env"))
    assert "GHOST_RANK=1" in printed, printed[-2000:]
    assert not re.search(r"(^|\W)[0-9a-f]{64}(\W|$)", printed), printed
    cores(folder)


def case_own_agents(folder):
    """A user's own launch agent, by either name, on mpirun's command line, in the environment, in a file: jobs start
    and move."""
    lab_agent = good(on("gn1", "sh", "-c", "echo $OMPI_MCA_plm_rsh_agent")).strip()
    unset = ["env", "-u", "OMPI_MCA_plm_rsh_agent"]
    for way in ("line", "old line", "old environment", "file"):
        place = os.path.join(folder, way.replace(" ", "-"))
        os.makedirs(place)
        called, agent, file = (os.path.join(place, name) for name in ("called", "agent", "parameters"))
        with open(agent, "w") as script:
            script.write("#!/bin/sh\necho \"$*\" >> %s\nexec %s \"$@\"\n" % (called, lab_agent))
        os.chmod(agent, 0o755)
        with open(file, "w") as text:
            text.write("plm_rsh_agent = %s -q\n" % agent)
        value = agent + " -q"
        mca = {"line": [("plm_rsh_agent", value)], "old line": [("orte_rsh_agent", value)]}.get(way, [])
        before = {"file": [*unset, "OMPI_MCA_mca_base_param_files=" + file],
                  "old environment": [*unset, "OMPI_MCA_pls_rsh_agent=" + value]}.get(way, [])
        job = Ledger(place, ranks=2, hosts="gn1:1,gn2:1,gn3:1", steps=300, mca=mca, before=before)
        job.reach(20)
        with open(called) as text:
            said = text.read().splitlines()
        assert len(said) == 2 and all(line.startswith("-q gn") for line in said), (way, said)
        assert ("ghost_secret_descriptor" in said[0]) == (not mca), (way, said)
        good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
        job.finish()


def cores(folder):
    with open("/proc/sys/kernel/core_pattern") as file:
        pattern = file.read().strip()
    if "/" in pattern or "|" in pattern:
        return print("# cores are not written where processes are: not looked at", flush=True)
    place = os.path.join(folder, "cores")
    os.makedirs(os.path.join(place, "data"))
    os.makedirs(os.path.join(place, "job"))
    script = ("cd %s; ulimit -c unlimited; sleep 1001 & exec %s --dir %s/data --steps 100000 --pause 8000"
              % (place, snapshots.LEDGER, place))
    job = snapshots.Job(os.path.join(place, "job"), ["sh", "-c", script], ranks=2, hosts="gn1:1,gn2:1")
    job.until_running(lambda: "ledger: step" in job.text(), "its first step")
    secret = secret_of(job)
    good(on("gn1", "sh", "-c", "kill -ABRT $(pgrep -f 'sleep 1001$')"))

    def core():
        found = [name for name in os.listdir(place) if name.startswith("core")]
        return found and os.path.join(place, found[0])
    path = until(core, "a core")
    time.sleep(0.5)  # for its writing to be done is not to be seen
    with open(path, "rb") as file:
        contents = file.read()
    assert b"GHOST_RANK=" in contents, len(contents)  # its environment is in it
    assert not secret_in(contents, secret)
    job.kill()


if __name__ == "__main__":
    sys.exit(snapshots.main(cases_in(globals()), sys.argv[1:]))
