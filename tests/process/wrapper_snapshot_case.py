"""What the cases of wrapper_snapshot*.py share: a rank under its wrapper, snapshots of it, restarts from them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from suite import AT_LENGTH, alive, until
from wrapper_agent import Rank, WrapperCase

WRAPPER, PROBE, MANIFEST, CRIU = (sys.argv + [""] * 4)[1:5]
TRIALS = int(os.environ.get("GHOST_TEST_TRIALS", "60" if AT_LENGTH else "6"))
AGENT = {"pid": 1000, "tid": 1000}  # the probe's main thread stands in for the rank's agent


def comm(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read().strip()


class SnapshotCase(WrapperCase):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="ghost-snapshot-", dir="/var/tmp")
        self.log = os.path.join(self.folder, "log")
        self.rows = {}

    def tearDown(self):
        try:
            super().tearDown()
        finally:
            shutil.rmtree(self.folder)

    def start(self, *program, tty=True, number=0, **environment):
        rank = Rank([WRAPPER, PROBE, *program],
                    self.agent.environment(rank=number, GHOST_CRIU=CRIU, **environment), tty)
        rank.number = number
        self.ranks.append(rank)
        rank.peer = self.agent.accept()
        self.peers.append(rank.peer)
        return rank

    def run_rank(self, *program, tty=True, number=0):
        rank = self.start(*program, tty=tty, number=number)
        rank.init = rank.peer.expect("hello")["init"]
        self.assertGreater(rank.init, 0)
        return rank

    def steps(self, pause_us=1000):
        rank = self.run_rank("steps", self.log, str(pause_us))
        self.running(rank)
        return rank

    def running(self, rank):
        have = len(rank.stdio.output)
        until(lambda: len(rank.stdio.output) > have + 200, "the rank writes")

    def goes_on(self, source, row):
        """The rank is made again from its snapshot, and runs to its end."""
        rank = self.restart(row)
        self.go(rank)
        self.running(rank)
        self.finish(rank, source)

    # --- a snapshot, step by step ---

    def prepare(self, rank, **more):
        self.seq += 1
        name = f"1-{self.seq:06}"
        folder = os.path.join(self.folder, name)
        os.makedirs(folder, 0o700, exist_ok=True)
        rank.order = {"t": "snap_prepare", "seq": self.seq, "folder": folder,
                      "file": f"rank-{rank.number}.ghost", "name": name, "agent": AGENT, "incremental": False,
                      "compress": "none", "rate": 0, "then": "continue", **more}
        rank.peer.send(rank.order)

    def freeze(self, rank):
        rank.peer.send({"t": "snap_freeze", "seq": self.seq, "agent": AGENT})

    def end(self, rank, row, keep=True, dead=False):
        """Completes it, as the coordinator would."""
        self.rows[row["name"]] = row
        self.manifest(row)
        if not dead:
            rank.peer.send({"t": "snap_end", "seq": self.seq, "keep": keep})

    def manifest(self, *rows, copies=True, sign=0):
        """Says the key it is signed with."""
        files = {}
        for row in rows:
            for f in row["files"]:
                one = files.setdefault(f["path"], {"path": f["path"], "size": 0, "ranks": [],
                                                   "newest": (-1,)})
                one["size"] = max(one["size"], f["size"])
                one["ranks"].append(row["rank"])
                when = (f.get("changed", 0), f.get("taken", 0))
                if when <= one["newest"]:
                    continue
                one["newest"] = when
                one.pop("copy", None)
                if copies and f.get("hash"):
                    one["copy"] = {"rank": row["rank"], "size": f["size"], "hash": f["hash"]}
        text = json.dumps({"folder": rows[0]["folder"], "name": rows[0]["name"], "ranks": rows,
                           "files": list(files.values()), "sign": sign})
        return subprocess.run([MANIFEST], input=text, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()

    def captured(self, rank, write=True):
        answer = rank.peer.expect("snap_captured", 60)
        if write:
            rank.peer.send({"t": "snap_write", "seq": self.seq})
        return answer

    def snapshot(self, rank, keep=True, again=False, **more):
        self.seq -= 1 if again else 0  # of another rank
        self.prepare(rank, **more)
        ready = rank.peer.expect("snap_ready", 60)
        self.freeze(rank)
        captured = self.captured(rank)
        self.assertGreater(captured["pause_us"], 0)
        row = rank.peer.expect("snap_written", 60)
        self.assertEqual(row["seq"], self.seq)
        path = os.path.join(rank.order["folder"], row["file"])
        self.assertEqual(os.stat(path).st_size, row["bytes"])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        row.update(rank=rank.number, name=rank.order["name"], folder=rank.order["folder"],
                   ready=ready, captured=captured)
        self.end(rank, row, keep)
        return row

    # --- ends ---

    def kill(self, rank):
        """The machine goes down: wrapper and tree at once."""
        rank.proc.kill()
        os.kill(rank.init, signal.SIGKILL)
        rank.status()
        until(lambda: not alive(rank.init), "the tree is dead")
        rank.peer.close_spare()

    def restart(self, row, tty=True, **environment):
        rank = self.look_at(row, tty, **environment)
        rank.peer.expect("checked", 60)
        rank.peer.send({"t": "import", "seq": 0})
        return rank

    def look_at(self, row, tty=True, **environment):
        rank = self.start("never", tty=tty, number=row["rank"], GHOST_RESTART=row["folder"],
                          **environment)
        hello = rank.peer.expect("hello")
        self.assertEqual((hello["mode"], hello["init"]), ("restart", 0))
        rank.peer.send({"t": "prepare", "seq": 0, "epoch": 2, "rank": rank.number})
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

    def goes_on_again(self, row, rank):
        """The rank is killed, and goes on from there to its end."""
        self.kill(rank)
        again = self.restart(row)
        self.go(again)
        self.running(again)
        self.finish(again, rank)

    def finish(self, rank, *earlier, adopted=False):
        """Ends the program; it has checked itself, and its output and file have no hole."""
        self.ends(rank, adopted, skip=("progress", "stdin_closed", "snap_captured", "snap_written"))
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

    def state(self, pid):
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0]

    def cannot_restart(self, row, *parts, begin=None, **environment):
        rank = (begin or self.look_at)(row, **environment)
        answer = rank.peer.expect("failed")
        for part in parts:
            self.assertIn(part, answer["why"])
        rank.peer.send({"t": "abort", "seq": 0})
        self.assertEqual(rank.status(), 1)

    def nothing_left(self, rank):
        folder = getattr(rank, "order", {}).get("folder")
        self.assertEqual(os.listdir(folder) if folder else [], [])
