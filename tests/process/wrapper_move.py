#!/usr/bin/env python3
"""A rank's tree moves between two wrappers on one machine, with this test as both node agents.

usage: wrapper_move.py WRAPPER PROBE CRIU
"""

import os
import select
import signal
import sys
import tempfile
import unittest

from suite import alive, tree_of, until
from wrapper_agent import Rank, WrapperCase, be_subreaper

WRAPPER, PROBE, CRIU = (sys.argv + [""] * 3)[1:4]


class Move(WrapperCase):
    def start(self, *program, tty=True):
        rank = Rank([WRAPPER, PROBE, *program], self.agent.environment(rank=3, GHOST_CRIU=CRIU),
                    tty)
        self.ranks.append(rank)
        peer = self.agent.accept()
        self.peers.append(peer)
        hello = peer.expect("hello")
        self.assertEqual(hello["mode"], "run")
        self.assertEqual(len(peer.spare), 6)
        rank.peer, rank.init = peer, hello["init"]
        return rank

    def target(self, tty=True, within=()):
        return self.restorer(WRAPPER, CRIU, 3, tty, within)

    def ask_to_connect(self, source, target):
        self.ask_for_move(source, target, 3)

    def connect(self, source, target):
        self.ask_to_connect(source, target)
        source.peer.expect("connected")

    def export(self, source):
        source.peer.send({"t": "export", "seq": self.seq})
        return source.peer.expect("exported", 60)

    def agent_of(self, source):
        """The probe's main thread stands in for the rank's agent."""
        return {"pid": 1003, "tid": 1003}

    def move(self, source, tty=True):
        target = self.target(tty)
        self.connect(source, target)
        self.export(source)
        self.assertGreater(target.peer.expect("held", 60)["bytes"], 0)
        self.leave(source)
        target.peer.send({"t": "go", "seq": self.seq, "agent": self.agent_of(source)})
        hello = target.peer.expect("hello")
        self.assertGreater(hello["init"], 0)
        self.assertEqual(len(target.peer.spare), 6)
        target.init = hello["init"]
        return target

    def leave(self, source):
        source.peer.send({"t": "die", "seq": self.seq})
        source.peer.expect("gone")
        source.peer.send({"t": "bye"})
        self.assertEqual(source.status(), 0)
        source.peer.close_spare()
        source.stdio.close()

    def count(self, text):
        """The probe counts lines, so that anything lost or doubled shows."""
        lines = text.split(b"\n")
        numbers = [int(x.split()[1]) for x in lines if x.startswith(b"count ")]
        self.assertEqual(numbers, list(range(len(numbers))))
        return len(numbers)

    def running(self, rank, before=b""):
        have = len(rank.stdio.output)
        until(lambda: len(rank.stdio.output) > have + 200, "the rank writes")

    def end(self, rank, *earlier):
        self.ends(rank)
        text = b"".join(r.stdio.output for r in earlier) + rank.stdio.output
        self.assertIn(b"sum right, woken", text)
        self.assertIn(b"tty 1", text)
        self.assertGreater(self.count(text), 10)
        self.assertTrue(text.endswith(b"end\n"), text[-100:])

    def test_move(self):
        source = self.start("count")
        self.running(source)
        target = self.move(source)
        self.running(target)
        self.end(target, source)

    def test_moves_on(self):
        ranks = [self.start("count")]
        for _ in range(3):
            self.running(ranks[-1])
            ranks.append(self.move(ranks[-1]))
        self.running(ranks[-1])
        self.end(ranks[-1], *ranks[:-1])

    def test_input_moves(self):
        source = self.start("echo", tty=False)
        os.write(source.stdio.stdin, b"one\n")
        until(lambda: b"got one\n" in source.stdio.output, "first line read")
        self.stop_reading(source)
        os.write(source.stdio.stdin, b"two\nthree\n")
        target = self.move(source, tty=False)
        os.write(target.stdio.stdin, b"four\n")
        os.close(target.stdio.stdin)
        target.stdio.stdin = -1
        target.peer.expect("exit")
        self.assertEqual(target.status(), 0)
        target.peer.close_spare()
        target.stdio.close()
        self.assertEqual(target.stdio.output, b"got two\ngot three\ngot four\n")

    def stop_reading(self, rank):
        """So that what comes now is certainly unread when the ghost is made."""
        rank.proc.send_signal(signal.SIGUSR1)
        until(lambda: b"pausing\n" in rank.stdio.text[rank.stdio.err], "reader pauses")

    def test_closed_input_moves(self):
        source = self.start("echo", tty=False)
        os.write(source.stdio.stdin, b"one\n")
        until(lambda: b"got one\n" in source.stdio.output, "first line read")
        self.stop_reading(source)
        os.close(source.stdio.stdin)
        source.stdio.stdin = -1
        source.peer.expect("stdin_closed", skip=())
        target = self.move(source, tty=False)
        target.peer.expect("exit")
        self.assertEqual(target.status(), 0)
        target.peer.close_spare()
        target.stdio.close()

    def abort(self, source, agent=True):
        source.peer.send({"t": "resume", "seq": self.seq, "agent": self.agent_of(source)})

    def called_off(self, target):
        try:
            target.peer.send({"t": "abort", "seq": self.seq})
        except BrokenPipeError:
            pass  # it noticed by itself that the source is gone
        self.assertEqual(target.status(), 0)

    def test_abort_in_each_step(self):
        source = self.start("count")
        self.running(source)
        with self.subTest("prepared"):
            self.called_off(self.target())
        with self.subTest("connected"):
            target = self.target()
            self.connect(source, target)
            source.peer.send({"t": "cancel", "seq": self.seq})
            self.called_off(target)
            self.running(source)
        with self.subTest("exporting"):
            target = self.target()
            self.connect(source, target)
            source.peer.send({"t": "export", "seq": self.seq})
            self.abort(source)
            self.called_off(target)
            self.running(source)
            self.flush(source)
        with self.subTest("target dies while the ghost comes"):
            target = self.target()
            self.connect(source, target)
            source.peer.send({"t": "export", "seq": self.seq})
            target.proc.kill()
            target.status()
            self.abort(source)
            self.running(source)
            self.flush(source)
        with self.subTest("held"):
            target = self.target()
            self.connect(source, target)
            self.export(source)
            target.peer.expect("held", 60)
            self.abort(source)
            self.called_off(target)
            self.running(source)
        with self.subTest("held, target killed"):
            target = self.target()
            self.connect(source, target)
            self.export(source)
            target.peer.expect("held", 60)
            target.proc.kill()
            target.status()
            self.abort(source)
            self.running(source)
        target = self.move(source)
        self.running(target)
        self.end(target, source)

    def flush(self, source):
        """An answer may have been on its way when the move was called off."""
        while select.select([source.peer.sock], [], [], 0.2)[0]:
            source.peer.receive()

    def test_not_movable(self):
        source = self.start("socket")
        self.peers.append(self.agent.accept())  # the other end of the probe's socket
        until(lambda: b"ready" in source.stdio.output, "probe is ready")
        target = self.target()
        self.connect(source, target)
        source.peer.send({"t": "export", "seq": self.seq})
        answer = source.peer.expect("failed")
        # Found by the check before the freeze, or else refused by criu; the rank runs on.
        self.assertIn(answer["stage"], ("check", "export"))
        self.assertTrue(alive(source.init))
        self.called_off(target)
        source.proc.terminate()
        self.assertEqual(source.status(), -signal.SIGTERM)
        source.peer.close_spare()
        source.stdio.close()

    def test_what_the_target_lacks_is_found_while_the_rank_runs(self):
        """Before its gate is closed, of whatever kind; both ends say the same."""
        with tempfile.TemporaryDirectory(prefix="ghost-move-") as folder:
            own, other = f"{folder}/own", f"{folder}/other"
            for path in (own, other):
                with open(path, "w", encoding="ascii") as file:
                    file.write("input")
            source = self.start("writes", own, other)
            self.running(source)
            unlike = (("mount -t tmpfs none $0", (f"{own}: is missing", f"{other}: is missing")),
                      ("mount -t tmpfs none $0; mkdir $0/own", (f"{own}: is no regular file",)),
                      ("mount --bind -o ro $0 $0", (f"{other}: cannot be opened for writing",)),
                      ("mount -t tmpfs none $0; echo input >$0/own; cp -p $0/own $0/other; "
                       "chmod 4711 $0/own", (f"{own}: is different, mode 4711 instead of 0",)))
            for there, words in unlike:
                with self.subTest(there):
                    target = self.target(within=("unshare", "-m", "sh", "-c",
                                                 there + '; exec "$@"',
                                                 folder))
                    self.ask_to_connect(source, target)
                    answers = [end.peer.expect("failed") for end in (source, target)]
                    for answer in answers:
                        self.assertEqual(answer["stage"], "target")
                        self.assertEqual(answer["why"], answers[0]["why"])
                        for word in words:
                            self.assertIn(word, answer["why"])
                    self.assertEqual(target.status(), 0)
                    source.peer.send({"t": "cancel", "seq": self.seq})
                    self.running(source)
            target = self.move(source)
            self.running(target)
            self.ends(target)
            self.assertIn(b"read 5: input", target.stdio.output)

    def test_adoption(self):
        # At rest: what a killed wrapper had read and the runtime had not yet taken is lost.
        source = self.start("count")
        self.running(source)
        source.proc.send_signal(signal.SIGUSR1)
        until(lambda: b"resting" in source.stdio.output, "the rank rests")
        heir = self.adopt(WRAPPER, CRIU, source, 3)
        heir.proc.send_signal(signal.SIGUSR1)
        self.running(heir)
        target = self.move_adopted(heir)
        self.running(target)
        self.end(target, heir)

    def move_adopted(self, heir):
        target = self.target()
        self.connect(heir, target)
        self.export(heir)
        target.peer.expect("held", 60)
        self.leave(heir)
        target.peer.send({"t": "go", "seq": self.seq, "agent": self.agent_of(heir)})
        target.peer.expect("hello")
        return target

    def test_adoption_of_an_exported_tree(self):
        source = self.start("count")
        self.running(source)
        target = self.target()
        self.connect(source, target)
        self.export(source)
        target.peer.expect("held", 60)
        heir = self.adopt(WRAPPER, CRIU, source, 3)
        self.abort(heir)
        self.called_off(target)
        self.running(heir)
        self.ends(heir, adopted=True)
        self.assertIn(b"sum right, woken", heir.stdio.output)
        self.assertTrue(heir.stdio.output.endswith(b"end\n"))

    def test_killed_while_ending(self):
        source = self.start("stubborn")
        until(lambda: b"ready" in source.stdio.output, "probe is ready")
        tree = tree_of(source.init)
        source.proc.terminate()
        until(lambda: signal.SIGTERM not in pending(source.proc.pid), "SIGTERM taken")
        source.proc.kill()
        source.status()
        until(lambda: not any(alive(p) for p in tree), "the tree went with the wrapper")
        source.peer.close_spare()
        source.stdio.close()


def pending(pid):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("ShdPnd"):
                bits = int(line.split()[1], 16)
                return {s for s in range(1, 65) if bits >> (s - 1) & 1}
    return set()


if __name__ == "__main__":
    be_subreaper()
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
