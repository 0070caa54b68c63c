"""Figure 2 of RR-4987 over three nodes: a socket is suspended on gn2 by a process that then exits, its
handle is carried to gn3 and woken up there, while P1 stays on gn1. Each node has its own kernetd. The
node the socket came from is then cut off, and the stream that is made next does without it."""
import os
import shutil
import subprocess
import sys
import tempfile
import time

from suite import Lab, give, good, own_folder

KERNETD = os.path.abspath("kernet-btl/kernetd/kernetd")
EXAMPLE = os.path.abspath("docs/examples/kernet_figure2")
NODES = ["gn1", "gn2", "gn3"]
lab = Lab(len(NODES))


def start_managers(folder):
    with open(os.path.join(folder, "nodes"), "w") as file:
        for node in NODES:
            file.write("%s %s 7900\n" % (node, lab.address(node)))
    secret = os.path.join(folder, "secret")
    with open(os.open(secret, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write(os.urandom(32).hex() + "\n")
    give(secret)
    managers = {node: subprocess.Popen(
        lab.words(node, KERNETD, "--node", node, "--nodes", os.path.join(folder, "nodes"), "--secret", secret,
           "--grace", "2"), stdout=subprocess.PIPE, text=True) for node in NODES}
    for node, manager in managers.items():
        line = manager.stdout.readline()
        assert "ready" in line, (node, line)
    return managers


def figure2(folder, places):
    own_folder(folder)
    parts = {part: subprocess.Popen(lab.words(node, EXAMPLE, part, folder), stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
             for part, node in places.items()}
    said = {}
    for part, process in parts.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (part, out, err)
        said[part] = out.strip()
    assert said["P1"] == "P1 on %s has received c" % places["P1"], said
    assert said["P2"] == "P2 on %s has sent c and is suspended" % places["P2"], said
    assert said["P3"] == "P3 on %s has received d" % places["P3"], said
    return said


def main():
    folder = give(tempfile.mkdtemp(prefix="kernet-", dir=os.getcwd()))
    managers = {}
    try:
        managers = start_managers(folder)
        print(figure2(os.path.join(folder, "first"), {"P1": "gn1", "P2": "gn2", "P3": "gn3"}))
        print("ok three_nodes")
        figure2(os.path.join(folder, "second"), {"P1": "gn3", "P2": "gn1", "P3": "gn3"})
        print("ok woken_beside_its_peer")
        good(lab.command("cut", "gn2"))
        began = time.monotonic()
        figure2(os.path.join(folder, "third"), {"P1": "gn1", "P2": "gn3", "P3": "gn1"})
        print("ok a_node_is_cut_off (%.1f s)" % (time.monotonic() - began))
    finally:
        for manager in managers.values():
            manager.kill()
            manager.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


with lab:
    sys.exit(main())
