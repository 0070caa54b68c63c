#!/usr/bin/env python3
"""Snapshots of a rank by its wrapper, and restarts from them, with this test as the node agent.

usage: wrapper_snapshot.py WRAPPER PROBE MANIFEST CRIU
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from wrapper_agent import Agent, Rank, alive, be_subreaper, children_of, wait_until

WRAPPER, PROBE, MANIFEST, CRIU = (sys.argv + [""] * 4)[1:5]
WORK = f"/dev/shm/ghost-{os.geteuid()}"
AGENT = {"pid": 1000, "tid": 1000}  # the probe's main thread stands in for the rank's agent


class Snapshot(unittest.TestCase):
    def setUp(self):
        self.agent = Agent(self.id())
        self.ranks, self.peers, self.seq = [], [], 0
        self.before = set(children_of(os.getpid()))
        self.folder = tempfile.mkdtemp(prefix="ghost-snapshot-", dir="/var/tmp")
        self.log = os.path.join(self.folder, "log")
        self.rows = {}

    def tearDown(self):
        for rank in self.ranks:  # whatever failed
            if rank.proc.poll() is None:
                rank.proc.terminate()
                rank.proc.kill()
                rank.proc.wait()
            if getattr(rank, "init", 0) in children_of(os.getpid()):
                os.kill(rank.init, signal.SIGKILL)
        for peer in self.peers:
            peer.close()
        self.agent.close()
        wait_until(lambda: self.left_over() == [], "nothing left", check=self.left_over)
        shutil.rmtree(self.folder)
        self.assertFalse(os.path.exists(WORK), "work folder left")

    def left_over(self):
        left = []
        for pid in set(children_of(os.getpid())) - self.before:
            if not alive(pid):
                os.waitpid(pid, os.WNOHANG)
            else:
                left.append(pid)
        return left

    def start(self, *program, tty=True, **environment):
        rank = Rank([WRAPPER, PROBE, *program],
                    self.agent.environment(rank=0, GHOST_CRIU=CRIU, **environment), tty)
        self.ranks.append(rank)
        rank.peer = self.agent.accept()
        self.peers.append(rank.peer)
        return rank

    def run_rank(self, *program, tty=True):
        rank = self.start(*program, tty=tty)
        rank.init = rank.peer.expect("hello")["init"]
        self.assertGreater(rank.init, 0)
        return rank

    def steps(self, pause_us=1000):
        rank = self.run_rank("steps", self.log, str(pause_us))
        self.running(rank)
        return rank

    def running(self, rank):
        have = len(rank.stdio.output)
        wait_until(lambda: len(rank.stdio.output) > have + 200, "the rank writes")

    # --- a snapshot, step by step ---

    def prepare(self, rank, **more):
        self.seq += 1
        name = f"1-{self.seq:06}"
        folder = os.path.join(self.folder, name)
        os.mkdir(folder, 0o700)
        rank.order = {"t": "snap_prepare", "seq": self.seq, "folder": folder,
                      "file": "rank-0.ghost", "name": name, "agent": AGENT, "incremental": False,
                      "compress": "none", "rate": 0, "then": "continue", **more}
        rank.peer.send(rank.order)

    def stand(self, rank):
        rank.peer.send({"t": "snap_stand", "seq": self.seq, "agent": AGENT})

    def end(self, rank, row, keep=True):
        """Completes it, as the coordinator would."""
        self.rows[row["name"]] = row
        files = [{"path": f["path"], "size": f["size"], "ranks": [0]} for f in row["files"]]
        text = json.dumps({"folder": row["folder"], "name": row["name"], "ranks": [row],
                           "files": files})
        subprocess.run([MANIFEST], input=text.encode(), check=True)
        rank.peer.send({"t": "snap_end", "seq": self.seq, "keep": keep})

    def snapshot(self, rank, keep=True, **more):
        self.prepare(rank, **more)
        ready = rank.peer.expect("snap_ready", 60)
        self.stand(rank)
        stood = rank.peer.expect("snap_stood", 60)
        self.assertGreater(stood["pause_us"], 0)
        row = rank.peer.expect("snap_written", 60)
        self.assertEqual(row["seq"], self.seq)
        path = os.path.join(rank.order["folder"], row["file"])
        self.assertEqual(os.stat(path).st_size, row["bytes"])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        row.update(rank=0, name=rank.order["name"], folder=rank.order["folder"], ready=ready,
                   stood=stood)
        self.end(rank, row, keep)
        return row

    # --- ends ---

    def kill(self, rank):
        """The machine goes down: wrapper and tree at once."""
        rank.proc.kill()
        os.kill(rank.init, signal.SIGKILL)
        rank.status()
        wait_until(lambda: not alive(rank.init), "the tree is dead")
        rank.peer.close_spare()

    def restart(self, row, tty=True, **environment):
        rank = self.start("never", tty=tty, GHOST_RESTART=row["folder"], **environment)
        hello = rank.peer.expect("hello")
        self.assertEqual((hello["mode"], hello["init"]), ("restart", 0))
        rank.peer.send({"t": "prepare", "seq": 0, "epoch": 2, "rank": 0})
        return rank

    def go(self, rank):
        held = rank.peer.expect("held", 60)
        self.assertEqual(held["agent"], AGENT)
        self.assertEqual(len(rank.peer.spare), 6)
        rank.init = held["init"]
        self.assertTrue(alive(rank.init))
        rank.peer.close_spare()
        rank.peer.send({"t": "go", "seq": 0, "agent": held["agent"]})
        hello = rank.peer.expect("hello")
        self.assertEqual((hello["mode"], hello["init"]), ("restart", rank.init))

    def counts(self, text):
        return [int(n) for n in re.findall(rb"count (\d+)\n", text)]

    def finish(self, rank, *earlier):
        """Ends the program; it has checked itself, and its output and file have no hole."""
        rank.proc.send_signal(signal.SIGUSR2)
        rank.peer.expect("exit", skip=("progress", "stdin_closed", "snap_stood", "snap_written"))
        self.assertEqual(rank.status(), 7, rank.stdio.text)
        rank.peer.close_spare()
        rank.stdio.close()
        self.assertIn(b"sum right, woken", rank.stdio.output)
        self.assertTrue(rank.stdio.output.endswith(b"end\n"), rank.stdio.output[-100:])
        counts = self.counts(rank.stdio.output)
        self.assertEqual(counts, list(range(counts[0], counts[0] + len(counts))))
        if earlier:
            self.assertIn(b"count %d\n" % (counts[0] - 1), earlier[-1].stdio.output)
        with open(self.log) as f:
            lines = f.read().splitlines()
        self.assertEqual(lines, [f"step {i}" for i in range(counts[-1] + 1)] +
                         [f"end {counts[-1] + 1}"])

    def test_restart(self):
        for compress in ("none", "lz4", "zstd,level=1"):
            with self.subTest(compress):
                source = self.steps()
                row = self.snapshot(source, compress=compress)
                self.assertEqual((row["kind"], row["chain"]), ("full", []))
                self.assertEqual([f["path"] for f in row["files"]], [self.log])
                self.running(source)
                self.kill(source)
                self.assertGreater(os.stat(self.log).st_size, row["files"][0]["size"])
                rank = self.restart(row)
                self.go(rank)
                self.running(rank)
                self.finish(rank, source)

    def test_goes_on(self):
        rank = self.steps()
        self.snapshot(rank, keep=False)
        self.running(rank)
        self.finish(rank)


if __name__ == "__main__":
    be_subreaper()
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2)
