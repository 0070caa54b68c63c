#!/usr/bin/env python3
"""Snapshots of a rank by its wrapper, and restarts from them, with this test as the node agent.

usage: wrapper_snapshot.py WRAPPER PROBE MANIFEST CRIU
"""

import os
import select
import shutil
import signal
import sys
import time
import unittest

from suite import children_of, until
from wrapper_agent import be_subreaper
from wrapper_snapshot_case import AGENT, CRIU, WRAPPER, SnapshotCase
from wrapper_snapshot_faults import Faults
from wrapper_snapshot_files import Files


CASES = (Files, Faults)  # unittest.main() finds them here


class Snapshot(SnapshotCase):
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
                self.goes_on(source, row)

    def test_signed(self):
        """All of a chain is signed with one key, which the manifest names; what is not is not begun again, nor what a
        manifest says that is not the signer's."""
        source = self.steps()
        plain = self.snapshot(source, incremental=True)
        self.assertEqual(plain.get("signer", ""), "")
        rows = []
        for kind in "full", "incremental":
            self.running(source)
            rows.append(self.snapshot(source, sign=True, incremental=True, compress="lz4"))
            self.assertEqual(rows[-1]["kind"], kind)
        self.assertEqual(rows[0]["signer"], rows[1]["signer"])
        self.assertEqual(len(rows[0]["signer"]), 64)
        row = rows[1]
        self.snapshot(source, incremental=True)
        theirs = self.snapshot(source, sign=True, incremental=True)
        self.assertEqual(theirs["kind"], "full")
        self.assertNotEqual(theirs["signer"], row["signer"])
        self.kill(source)
        key = {"GHOST_RESTART_SIGNER": self.manifest(row, sign=7)}
        self.cannot_restart(plain, "it is not signed", **key)
        self.cannot_restart(row, "signed by another", GHOST_RESTART_SIGNER="0" * 64)
        for place in 1, 0:  # its own, and what it is based on
            ours = os.path.join(rows[place]["folder"], rows[place]["file"])
            with open(ours, "rb") as file:
                kept = file.read()
            for one, why in (plain, "it is not signed"), (theirs, "signed by another"):
                shutil.copy(os.path.join(one["folder"], one["file"]), ours)
                self.cannot_restart(row, why, **key)
            with open(ours, "wb") as file:
                file.write(kept)
        rank = self.restart(row, **key)
        self.go(rank)
        self.running(rank)
        self.finish(rank, source)

    def test_parent_gone(self):
        """What somebody has removed, on a disk only this node sees, is nobody's parent."""
        rank = self.steps()
        self.snapshot(rank, incremental=True)
        first = self.snapshot(rank, incremental=True)
        self.assertEqual(first["kind"], "incremental")
        shutil.rmtree(os.path.join(self.folder, "1-%06d" % (self.seq - 1)))
        row = self.snapshot(rank, incremental=True)
        self.assertEqual((row["kind"], row["chain"]), ("full", []))
        self.running(rank)
        self.kill(rank)
        self.goes_on(rank, row)

    def test_goes_on(self):
        rank = self.steps()
        self.snapshot(rank, keep=False)
        self.running(rank)
        self.snapshot(rank, keep=False, incremental=True)
        self.finish(rank)

    def test_chain(self):
        """Incremental ones, restarts of restarts, and incremental ones of those."""
        # slow, so that on a busy machine too little is written between two to be half of it
        source, generation = self.steps(pause_us=10000), 0
        for _ in range(2):
            rows = [self.snapshot(source, incremental=True)]
            self.assertEqual(rows[0]["kind"], "full")
            for i in range(2):
                self.running(source)
                rows.append(self.snapshot(source, incremental=True, compress="lz4"))
                self.assertEqual(rows[-1]["kind"], "incremental")
                self.assertLess(rows[-1]["page_bytes"], rows[0]["page_bytes"] / 2)
                names = [f"{r['name']}/{r['file']}" for r in reversed(rows[:-1])]
                self.assertEqual((rows[-1]["chain"], rows[-1]["parent"]), (names, names[0]))
            self.running(source)
            self.kill(source)
            rank = self.restart(rows[-1])
            self.go(rank)
            self.running(rank)
            source.stdio.close()
            before, source = source, rank
        self.finish(rank, before)

    def test_move(self):
        """A rank whose memory is tracked leaves; what arrives is saved whole."""
        source = self.steps()
        self.snapshot(source)
        target = self.restorer(WRAPPER, CRIU)
        self.ask_for_move(source, target)
        source.peer.expect("connected")
        source.peer.send({"t": "export", "seq": self.seq})
        source.peer.expect("exported", 60)
        target.peer.expect("held", 60)
        source.peer.send({"t": "die", "seq": self.seq})
        source.peer.expect("gone")
        source.peer.send({"t": "bye"})
        source.status()
        source.peer.close_spare()
        target.peer.send({"t": "go", "seq": self.seq, "agent": AGENT})
        target.init = target.peer.expect("hello")["init"]
        self.running(target)
        row = self.snapshot(target, incremental=True)
        self.assertEqual(row["kind"], "full")
        self.kill(target)
        self.goes_on(target, row)

    def test_kill(self):
        source = self.steps()
        self.prepare(source, then="kill")
        source.peer.expect("snap_ready")
        self.freeze(source)
        self.captured(source)
        row = source.peer.expect("snap_written")
        row.update(rank=0, name=source.order["name"], folder=source.order["folder"])
        self.end(source, row)
        size = os.stat(self.log).st_size
        self.assertEqual(row["files"][0]["size"], size)
        source.proc.terminate()
        self.assertEqual(source.status(), -signal.SIGKILL)
        source.peer.close_spare()
        source.stdio.close()
        self.assertEqual(os.stat(self.log).st_size, size)
        self.goes_on(source, row)

    def test_killed_one_resumes(self):
        """then=kill, and the snapshot fails elsewhere."""
        rank = self.steps()
        for point in ("captured", "written"):
            with self.subTest(point):
                self.prepare(rank, then="kill", rate=(1 << 20) if point == "captured" else 0)
                rank.peer.expect("snap_ready")
                self.freeze(rank)
                self.captured(rank)
                if point == "written":
                    rank.peer.expect("snap_written")
                rank.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
                rank.peer.send({"t": "snap_cancel", "seq": self.seq})
                rank.peer.expect("snap_cancelled")
                self.nothing_left(rank)
                self.running(rank)
        self.finish(rank)

    def test_stop(self):
        rank = self.steps()
        row = self.snapshot(rank, then="stop")
        program = children_of(rank.init)[0]
        self.assertEqual(self.state(program), "T")
        self.assertEqual(row["files"][0]["size"], os.stat(self.log).st_size)  # nothing since
        rank.peer.send({"t": "resume", "seq": self.seq, "agent": AGENT})
        self.running(rank)
        self.finish(rank)
        self.assertEqual(row["kind"], "full")

    def test_direct(self):
        """Too little memory for a copy."""
        source = self.steps()
        row = self.snapshot(source, memory=1 << 20)
        self.assertTrue(row["ready"]["direct"])
        self.running(source)
        self.kill(source)
        self.goes_on(source, row)

    def test_rate(self):
        rank = self.steps()
        row = self.snapshot(rank, rate=8 << 20)
        seen = rank.peer.seen
        begin = [m["t"] for m in seen].index("snap_captured")
        shown = [m["bytes"] for m in seen[begin:] if m["t"] == "progress"]
        self.assertGreater(len(shown), 3)
        self.assertEqual(shown, sorted(shown))
        self.assertGreater(row["bytes"], 16 << 20)
        self.finish(rank)

    def test_progress_of_the_file_begins_anew(self):
        """What was copied is not told as written while the word to write is waited for."""
        rank = self.steps()
        self.prepare(rank)
        rank.peer.expect("snap_ready", 60)
        self.freeze(rank)
        self.captured(rank, write=False)
        end = time.monotonic() + 5 * 0.2  # looks of the wrapper, at what was done
        while select.select([rank.peer.sock], [], [], max(0, end - time.monotonic()))[0]:
            told = rank.peer.receive()
            self.assertEqual((told["t"], told["bytes"]), ("progress", 0))
        rank.peer.send({"t": "snap_write", "seq": self.seq})
        self.end(rank, {**rank.peer.expect("snap_written", 60), "rank": rank.number,
                        "name": rank.order["name"], "folder": rank.order["folder"]})
        self.finish(rank)

    def test_input(self):
        """What is unread is in the ghost; the rest is given again from stdin_bytes on."""
        for more in ({}, {"memory": 1 << 20}):
            with self.subTest(**more):
                lines = [b"line %d\n" % i for i in range(40)]
                source = self.run_rank("echo", tty=False)
                os.write(source.stdio.stdin, b"".join(lines[:2]))
                until(lambda: source.stdio.output.count(b"\n") == 2, "two lines read")
                source.proc.send_signal(signal.SIGUSR1)
                until(lambda: b"pausing\n" in source.stdio.text[source.stdio.err], "pause")
                os.write(source.stdio.stdin, b"".join(lines[2:10]))
                row = self.snapshot(source, **more)
                self.assertEqual(row["stdin_bytes"], len(b"".join(lines[:10])))
                # It goes on here; nothing is lost or doubled.
                os.write(source.stdio.stdin, b"".join(lines[10:20]))
                until(lambda: source.stdio.output.count(b"\n") == 20, "all lines read")
                self.assertEqual(source.stdio.output, b"".join(b"got " + x for x in lines[:20]))
                self.kill(source)
                rank = self.restart(row, tty=False)
                os.write(rank.stdio.stdin, b"".join(lines)[row["stdin_bytes"]:])
                self.go(rank)
                until(lambda: rank.stdio.output.count(b"\n") == 38, "the other lines read")
                again = self.snapshot(rank)
                # Whoever restarts it begins to count.
                self.assertEqual(again["stdin_bytes"],
                                 len(b"".join(lines)) - row["stdin_bytes"])
                self.assertEqual(rank.peer.input_bytes, again["stdin_bytes"])
                os.close(rank.stdio.stdin)
                rank.stdio.stdin = -1
                rank.peer.expect("exit")
                self.assertEqual(rank.status(), 0)
                rank.peer.close_spare()
                rank.stdio.close()
                self.assertEqual(rank.stdio.output, b"".join(b"got " + x for x in lines[2:]))

    def test_input_after_adoption(self):
        source = self.run_rank("echo", tty=False)
        os.write(source.stdio.stdin, b"one\n")
        until(lambda: b"got one\n" in source.stdio.output, "a line read")
        rank = self.adopt(WRAPPER, CRIU, source)
        os.write(source.stdio.stdin, b"two\n")
        until(lambda: b"got two\n" in rank.stdio.output, "another line read")
        self.assertEqual(self.snapshot(rank)["stdin_bytes"], 8)
        self.kill(rank)


if __name__ == "__main__":
    be_subreaper()
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2)
