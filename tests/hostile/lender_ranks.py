"""Ranks in name spaces that ghostd lends, on a virtual cluster whose kernel refuses users' own where it is told to:
they move, are saved and begin again. The laboratory is that of tests/net/snapshots.py, the user $GHOST_TEST_USER.
Without arguments all cases; else those named.

Below a mount over its root a process may make no user name space (lender.sh). The one here is the root again, so that
all paths lead where they did; only criu takes nothing from below it. So a node is covered when a wrapper is to start
there, and is so until that wrapper has been refused by the kernel and has asked."""
import json
import os
import pwd
import shutil
import subprocess
import sys

import snapshots
from snapshots import LIMIT, Ledger, lab, on
from suite import cases_in, good

USER = pwd.getpwnam(os.environ["GHOST_TEST_USER"])
GHOSTD = os.path.abspath("tools/ghostd/ghostd")

# On a node, as root: what it is told by lines, each of which it answers by one.
NODE = """
import ctypes, os, select, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
SOCKET = "/run/ghost/ghostd.sock"
BIND, REC, DETACH = 4096, 16384, 2
def must(done):
    assert done == 0, os.strerror(ctypes.get_errno())
def listen():
    global listener
    os.makedirs("/run/ghost", exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(SOCKET)
    os.chmod(SOCKET, 0o666)
    listener.listen()
def serve():
    global lender, listener
    fd = listener.fileno()
    lender = subprocess.Popen(["sh", "-c", "exec 3<&%d && LISTEN_FDS=1 LISTEN_PID=$$ exec %s" % (fd, sys.argv[1])],
                              pass_fds=[fd], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    listener.close()
for line in sys.stdin:
    if line == "cover\\n":
        must(libc.mount(b"/", b"/", None, BIND | REC, None))
        print("covered", flush=True)
    elif line == "uncover\\n":
        must(libc.umount2(b"/..", DETACH))
        print("uncovered", flush=True)
    elif line == "listen\\n":
        listen()
        print("listens", flush=True)
    elif line == "serve\\n":
        asked = select.select([listener], [], [], int(sys.argv[2]))[0]
        must(libc.umount2(b"/..", DETACH))
        serve()
        print("asked" if asked else "not asked", flush=True)
    elif line == "end\\n":
        lender.terminate()
        said = lender.communicate()[1]
        os.unlink(SOCKET)
        print(said.count("lent a name space"), flush=True)
"""


class Node:
    """Where users may make no name spaces while it is covered."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            lab.words(name, "python3", "-c", NODE, GHOSTD, str(LIMIT), user=""), text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def told(self, wanted):
        said = self.process.stdout.readline().strip()
        assert said == wanted, said

    def do(self, word, wanted):
        self.tell(word)
        self.told(wanted)

    def close(self):
        self.process.communicate(timeout=LIMIT)


class Nodes:
    def __enter__(self):
        self.nodes = {name: Node(name) for name in snapshots.NODES}
        return self

    def __exit__(self, *_):
        for node in self.nodes.values():
            node.close()

    def __getitem__(self, name):
        return self.nodes[name]

    def lending(self, *names):
        return Lending([self.nodes[name] for name in names])


class Lending:
    """One wrapper on each of the nodes borrows a name space meanwhile, and can have none otherwise."""

    def __init__(self, nodes):
        self.nodes = nodes

    def __enter__(self):
        for node in self.nodes:
            node.do("listen", "listens")
            node.do("cover", "covered")
            node.tell("serve")

    def __exit__(self, failed, *_):
        for node in self.nodes:
            if failed is None:
                node.told("asked")
            else:
                node.process.kill()  # the lab is taken down
        for node in self.nodes if failed is None else ():
            node.do("end", "1")  # with ghostd


class Borrower(Ledger):
    """The user's job, with ranks on the first two of the nodes; mpirun is on gn1."""

    def __init__(self, folder, hosts="gn2:1,gn3:1,gn4:1", **more):
        super().__init__(folder, ranks=2, hosts=hosts, **more)

    def start(self, node, words):
        for place in (self.folder, self.data, self.shots):
            if os.path.isdir(place):
                shutil.chown(place, USER.pw_uid, USER.pw_gid)
        super().start("gn1", words)


def as_user(node, *words):
    return on(node, *words, user=USER.pw_name)


def of_rank(node):
    """What /proc says of the rank there: its map, that it is the user's, and what it and its init may do."""
    script = """
import os, glob
for path in glob.glob("/proc/[0-9]*"):
    name = open(path + "/comm").read()
    if name in ("ledger\\n", "ghost-init\\n"):
        lines = dict(line.split(":", 1) for line in open(path + "/status"))
        print(name.strip(), lines["Uid"].split(), [lines[n].strip() for n in ("CapPrm", "CapEff", "CapAmb")],
              open(path + "/uid_map").read().split())
"""
    return sorted(good(on(node, "python3", "-c", script, user="")).splitlines())


def expect_lent(node):
    user = str(USER.pw_uid)
    wanted = "%s %s %s %s" % ("%s", [user] * 4, ["0" * 16] * 3, [user, user, "1"])
    assert of_rank(node) == [wanted % "ghost-init", wanted % "ledger"], of_rank(node)


def migrate(rank, to):
    return as_user("gn1", "ghost", "migrate", "--json", "--rank", str(rank), "--to", to)


def case_ranks_move(folder):
    """There and back, into lent ones and out of them; ghostd has long ended when a rank leaves."""
    with Nodes() as nodes:
        with nodes.lending("gn2", "gn3"):
            job = Borrower(folder, steps=1500)
            job.reach(20)
        for node in "gn2", "gn3":
            expect_lent(node)
        with nodes.lending("gn4"):
            good(migrate(1, "gn4"))
        expect_lent("gn4")
        assert of_rank("gn3") == []
        job.reach(job.step() + 20)
        good(migrate(1, "gn3"))  # into one of its own
        expect_lent("gn3")
        job.reach(job.step() + 20)
        with nodes.lending("gn4"):  # and out of it
            good(migrate(1, "gn4"))
        expect_lent("gn4")
        job.finish()


def case_ranks_are_saved(folder):
    """Snapshots, whole and incremental; what is begun again of them is lent a name space, and is saved again."""
    with Nodes() as nodes:
        with nodes.lending("gn2", "gn3"):
            job = Borrower(folder, steps=1500)
            job.reach(20)
        for kind in "full", "incremental":
            made = json.loads(good(as_user("gn1", "ghost", "checkpoint", "--json")))
            with open(os.path.join(made["snapshot"], "manifest.json")) as file:
                assert json.load(file)["kind"] == kind, made
            job.reach(job.step() + 20)
        job.kill()
        with nodes.lending("gn2", "gn3"):
            job.restart("gn3:1,gn2:1,gn4:1")
            job.reach(job.step() + 20)
        for node in "gn2", "gn3":
            expect_lent(node)
        with nodes.lending("gn4"):
            good(migrate(0, "gn4"))
        good(as_user("gn1", "ghost", "checkpoint", "--then", "kill"))
        job.process.wait(LIMIT)
        with nodes.lending("gn2", "gn3"):
            job.restart("gn2:1,gn3:1,gn4:1")
            job.reach(job.step() + 20)
        job.finish()


def case_ranks_where_nobody_lends(folder):
    """A move to such a node is refused by name, and the rank goes on; a restart there begins nothing."""
    with Nodes() as nodes:
        with nodes.lending("gn2", "gn3"):
            job = Borrower(folder, steps=1500)
            job.reach(20)
        nodes["gn4"].do("cover", "covered")
        done = migrate(1, "gn4")
        assert done.returncode == 1 and "no ghostd(8) runs here that lends them" in done.stdout, done
        assert "gn4" in done.stdout, done
        nodes["gn4"].do("uncover", "uncovered")
        job.reach(job.step() + 20)
        expect_lent("gn3")
        good(as_user("gn1", "ghost", "checkpoint", "--then", "kill"))
        job.process.wait(LIMIT)
        nodes["gn3"].do("cover", "covered")
        job.restart("gn2:1,gn3:1,gn4:1")
        assert job.process.wait(LIMIT) != 0
        said = " ".join(job.text().split())
        assert "no ghostd(8) runs here that lends them" in said and "gn3" in said, said
        nodes["gn3"].do("uncover", "uncovered")
        job.restart("gn2:1,gn3:1,gn4:1")
        job.finish()


if __name__ == "__main__":
    cases = cases_in(globals())
    wanted = [name for name in sys.argv[1:] if name in cases]
    sys.exit(snapshots.main(cases, wanted) if wanted or len(sys.argv) == 1 else 0)
