"""Jobs on a virtual cluster are snapshotted, killed whole, and begun again elsewhere.

The program is tests/mpi/ledger, whose result and files depend on nothing but ranks and steps: after
every restart they must be those of an undisturbed run. Without arguments all cases; else those named.
GHOST_TEST_KILLS=N: how often `killed_at_any_moment` does it (3; with GHOST_TEST_LONG=1 30).
GHOST_TEST_USER=NAME: jobs and commands are that user's.
"""
import atexit
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import suite
from suite import UID, Skip, give, good, own_folder

LEDGER = os.path.abspath("tests/mpi/ledger")
NODES = ["gn1", "gn2", "gn3", "gn4"]
LIMIT = 90
lab = suite.Lab(len(NODES))
on = functools.partial(lab.on, limit=LIMIT)
until = functools.partial(suite.until, limit=LIMIT)
KILLS = int(os.environ.get("GHOST_TEST_KILLS", "30" if suite.AT_LENGTH else "3"))
# What belongs to a job on a node.
OURS = r"mpirun|orted|ghost-wrapper|ghost-init|ledger|criu|ghost restart|ghost checkpoint|bin/lmp"


def files_of(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            out[name] = file.read()
    return out


class Reference:
    """Results of undisturbed runs under the stock mpirun, each made once."""

    known = {}

    @classmethod
    def of(cls, ranks, steps, extra=()):
        key = (ranks, steps, tuple(extra))
        if key not in cls.known:
            with tempfile.TemporaryDirectory(dir=".") as folder:
                command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
                           "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo",
                           "-np", str(ranks), LEDGER, "--dir", folder, "--steps", str(steps), *extra]
                done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
                good(done)
                cls.known[key] = (done.stdout.strip().splitlines()[-1], files_of(folder))
        return cls.known[key]


class Job:
    """A job, and what becomes of it."""

    def __init__(self, folder, program, ranks=4, hosts="gn1:2,gn2:2", mca=(), before=()):
        self.folder, self.ranks = folder, ranks
        self.shots = os.path.join(folder, "shots")
        own_folder(os.path.join(folder, "out"))
        words = [*before, "mpirun", "-np", str(ranks), "--bind-to", "none", "--host", hosts]
        for name, value in [("ghost", "1"), ("ghost_checkpoint_dir", self.shots), *mca]:
            words += ["--mca", name, str(value)]
        self.runs = 0
        self.start(hosts.split(":")[0], words + program)

    def start(self, node, words):
        self.runs += 1
        self.node = node
        self.out_path = os.path.join(self.folder, "out", "%d" % self.runs)
        with open(self.out_path, "w") as out:
            self.process = subprocess.Popen(
                lab.words(node, *words), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True)
        live.append(self)

    def text(self):
        with open(self.out_path) as file:
            return file.read()

    def checkpoint(self, *options):
        return on(self.node, "ghost", "checkpoint", "--json", *options)

    def snapshot(self, *options):
        return json.loads(good(self.checkpoint(*options)))

    def complete(self):
        """Names of the snapshots that are complete, oldest first."""
        if not os.path.isdir(self.shots):
            return []
        return sorted(n for n in os.listdir(self.shots) if re.fullmatch(r"\d+-\d{6}", n))

    def kill(self):
        """SIGKILL to everything of the job on every node, as nearly at once as can be."""
        script = ("for p in $(ps -eo pid=,args= | grep -E '%s' | grep -v grep | awk '{print $1}');"
                  " do [ $p != $$ ] && kill -9 $p; done; true" % OURS)
        asked = [subprocess.Popen(lab.words(node, "sh", "-c", script, user=""), stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
                 for node in random.sample(NODES, len(NODES))]
        for one in asked:
            one.wait(LIMIT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def kill_mpirun(self):
        on(self.node, "sh", "-c", "kill -9 $(ghost ps | sed -n 's/^mpirun \\([0-9]*\\).*/\\1/p')")
        self.process.wait(20)

    def restart(self, hosts, what=None, options=()):
        self.start(hosts.split(":")[0],
                   ["ghost", "restart", what or self.shots, *options, "--bind-to", "none",
                    "--host", hosts])

    def until_running(self, condition, what):
        """until(), of a job that must not have ended before."""
        until(condition, what, process=self.process, said=lambda: self.text()[-3000:])

    def result(self):
        """However slow the machine is: it must go on writing."""
        status = written = None
        while status is None:
            text = self.text()
            assert text != written, "it stands still:\n" + text[-3000:]
            written = text
            try:
                status = self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                pass
        assert status == 0, (status, self.text()[-3000:])
        return self.text()


class Ledger(Job):
    """tests/mpi/ledger, whose result and files are known."""

    def __init__(self, folder, steps=600, pause=8000, extra=(), **more):
        self.steps, self.extra = steps, tuple(extra)
        self.data = os.path.join(folder, "data")
        own_folder(self.data)
        super().__init__(folder, [LEDGER, "--dir", self.data, "--steps", str(steps), "--pause",
                                  str(pause), *extra], **more)

    def step(self):
        found = re.findall(r"^ledger: step (\d+)$", self.text(), re.M)
        return int(found[-1]) if found else -1

    def reach(self, step):
        self.until_running(lambda: self.step() >= step, "step %d" % step)

    def finish(self):
        text = self.result()
        last, files = Reference.of(self.ranks, self.steps, self.extra)
        ends = [line for line in text.splitlines() if " errors" in line and "ledger:" in line]
        assert ends and ends[-1] == last, (ends, last, text[-2000:])
        mine = files_of(self.data)
        for name in files:
            assert mine.get(name) == files[name], "%s differs: %d and %d bytes" % (
                name, len(mine.get(name, b"")), len(files[name]))
        assert sorted(mine) == sorted(files), (sorted(mine), sorted(files))


SLOW = ["--steps", "100000", "--pause", "20000"]


class Endless(Job):
    """A job that writes its steps, as long as it lives."""

    def __init__(self, folder, **more):
        self.data = os.path.join(folder, "data")
        own_folder(self.data)
        super().__init__(folder, [LEDGER, "--dir", self.data, *SLOW], ranks=2, hosts="gn1:1,gn2:1,gn3:1", **more)
        self.until_running(lambda: "ledger: step" in self.text(), "its first step")

    def steps(self):
        return self.text().count("ledger: step")

    def move(self, to):
        """How many seconds that took."""
        begin = time.monotonic()
        good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", to))
        return time.monotonic() - begin


live = []


def case_goes_on(folder):
    job = Ledger(folder)
    job.reach(50)
    made = job.snapshot()
    assert made["ranks"] == 4 and made["bytes"] > 0 and made["pause_us"] > 0, made
    assert os.path.isdir(made["snapshot"]) and os.path.exists(
        os.path.join(made["snapshot"], "manifest.json")), made
    with open(os.path.join(made["snapshot"], "manifest.json")) as file:
        rows = json.load(file)["ranks"]
    assert len(rows) == 4 and all(0 < row["pause_us"] <= made["pause_us"] for row in rows), rows
    job.finish()


def case_restart_elsewhere(folder):
    job = Ledger(folder)
    job.reach(100)
    job.snapshot()
    job.reach(150)
    job.kill()
    job.restart("gn3:2,gn4:2")
    job.finish()


def case_restart_at_once(folder):
    """Mpirun alone is killed: its daemons and ranks have not noticed when the next life begins there."""
    job = Ledger(folder)
    for generation in range(3):
        job.reach(100 * (generation + 1))
        job.snapshot()
        job.kill_mpirun()
        job.restart("gn1:2,gn2:2")
    job.finish()


def case_shared_file(folder):
    job = Ledger(folder, extra=("--shared",))
    job.reach(100)
    job.snapshot()
    job.reach(200)
    job.kill()
    job.restart("gn3:2,gn4:2")
    job.finish()


def case_ended_after_snapshot(folder):
    """All the job has made since is there, and what it has removed is not: MPI-IO's shared pointer."""
    job = Ledger(folder, steps=300, extra=("--shared",))
    job.reach(60)
    made = job.snapshot()
    with open(os.path.join(made["snapshot"], "manifest.json")) as file:
        small = {os.path.basename(row["path"]): row for row in json.load(file)["files"]
                 if row["path"].startswith(job.data)}
    job.finish()
    gone = sorted(set(small) - set(files_of(job.data)))
    assert gone, sorted(small)  # in the snapshot, and removed at the end
    job.restart("gn3:2,gn4:2")
    job.finish()
    assert all("copy" in row for row in small.values()), small
    with open(os.path.join(job.data, "rank-1"), "r+b") as file:  # and overwritten
        file.write(b"something else")
    job.restart("gn2:1,gn1:3")
    job.finish()


def case_one_to_four_nodes(folder):
    job = Ledger(folder)
    job.reach(100)
    job.snapshot()
    job.kill()
    for hosts in ("gn3:4", "gn4:3,gn2:1", "gn2:1,gn1:1,gn4:2", "gn4:1,gn3:1,gn2:1,gn1:1"):
        job.restart(hosts)
        job.finish()


def case_restarts_of_restarts(folder):
    lives = 10 if suite.AT_LENGTH else 4
    job = Ledger(folder, steps=500 + 60 * lives)
    places = ("gn3:2,gn4:2", "gn1:2,gn2:2", "gn2:4", "gn4:1,gn1:3")
    for generation in range(lives):
        job.reach(60 * (generation + 1))
        job.snapshot()
        job.kill()
        job.restart(places[generation % len(places)])
    job.finish()


def case_moved_and_snapshotted(folder):
    job = Ledger(folder, steps=800, hosts="gn1:2,gn2:2,gn3:2")
    job.reach(50)
    good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", "gn3"))
    job.snapshot()
    job.kill()
    job.restart("gn2:2,gn4:2,gn1:2")
    job.reach(150)
    good(on("gn2", "ghost", "migrate", "--rank", "3", "--to", "gn1"))
    job.snapshot()
    job.reach(250)
    job.kill()
    job.restart("gn3:4")
    job.finish()


def case_by_interval(folder):
    job = Ledger(folder, steps=900, mca=[("ghost_checkpoint_interval", "1"),
                                      ("ghost_checkpoint_keep", "2")])
    until(lambda: len(job.complete()) >= 1 and int(job.complete()[-1].split("-")[1]) >= 3,
          "the third snapshot")
    assert len(job.complete()) <= 4, job.complete()  # two, and what an incremental one is based on
    job.kill()
    job.restart("gn3:2,gn4:2")
    job.finish()


def case_signed(folder):
    """What the signer has not signed is not restarted, whoever reads it: the command, or the wrappers of the other
    nodes, for whom a ghost may have been changed since the command looked."""
    key = os.path.join(folder, "key")
    good(on("gn1", "ghost", "key", key))
    by = ("--verify-key", key + ".pub")
    job = Ledger(folder, mca=[("ghost_checkpoint_to", "both"), ("ghost_checkpoint_keep", "3")])
    job.reach(30)
    plain = job.snapshot()["snapshot"]
    job.reach(60)
    first = job.snapshot("--sign", key)
    job.reach(90)
    second = job.snapshot("--sign", key)
    assert (first["kind"], second["kind"]) == ("full", "incremental"), (first, second)
    good(on("gn1", "sh", "-c", 'ghost verify --verify-key "$0" %s /dev/shm/ghost-snapshots-0.*/%s'
            % (second["snapshot"], second["name"]), by[1]))
    done = on("gn1", "ghost", "verify", plain, *by)
    assert done.returncode == 1 and "it is not signed" in done.stderr, done
    job.kill()
    # between the command's look and the wrappers' somebody puts a ghost of his in the place of rank 1's
    real = good(on("gn3", "sh", "-c", "command -v mpirun")).strip()
    ours, kept = os.path.join(second["snapshot"], "rank-1.ghost.lz4"), os.path.join(folder, "kept")
    shim = os.path.join(folder, "shim")
    shutil.copy(ours, kept)
    os.mkdir(shim)
    with open(os.path.join(shim, "mpirun"), "w") as script:
        script.write("#!/bin/sh\ncp %s/rank-1.ghost.lz4 %s\nexec %s \"$@\"\n" % (plain, ours, real))
    os.chmod(os.path.join(shim, "mpirun"), 0o755)
    job.start("gn3", ["sh", "-c", 'PATH="%s:$PATH" exec ghost restart "$@"' % shim, "sh", job.shots, *by, "--bind-to",
                      "none", "--host", "gn3:2,gn4:2"])
    assert job.process.wait(LIMIT) != 0
    assert "it is not signed" in " ".join(job.text().split()), job.text()
    shutil.copy(kept, ours)
    job.restart("gn3:2,gn4:2", options=by)
    job.finish()


def case_killed_at_any_moment(folder):
    seed = int(os.environ.get("GHOST_TEST_SEED", str(random.randrange(1 << 30))))
    print("# seed %d" % seed, flush=True)
    chance = random.Random(seed)
    turn = too_late = 0
    while turn < KILLS:
        place = os.path.join(folder, "t%d.%d" % (turn, too_late))
        own_folder(place)
        job = Ledger(place, steps=500, pause=3000, extra=("--shared",),
                  mca=[("ghost_checkpoint_interval", "1")])
        until(lambda: job.complete(), "the first snapshot")
        time.sleep(chance.random() * 2.5)
        job.kill()
        if job.process.returncode == 0:  # it had ended: no kill, which is made up for
            too_late += 1
            assert too_late <= KILLS, "jobs end before they are killed"
        else:
            job.restart(chance.choice(("gn3:2,gn4:2", "gn2:1,gn3:3", "gn4:4",
                                       "gn4:1,gn3:1,gn2:1,gn1:1")))
            job.finish()
            turn += 1
            print("# %d of %d" % (turn, KILLS), flush=True)
        live.remove(job)
        shutil.rmtree(place)


def failure(done, *words):
    """The error of a command that refused or failed without harm."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    said = json.loads(done.stdout)["error"]
    for word in words:
        assert word in said, (word, said)
    return said


def case_disk_full(folder):
    job = Ledger(folder, steps=900, extra=("--memory", "16"), mca=[("ghost_compress", "none")])
    job.reach(20)
    own_folder(job.shots)
    for node in NODES:  # each its own, and too small for a rank
        good(on(node, "mount", "-t", "tmpfs", "-o", "size=2m,mode=700,uid=%d" % UID, "tmpfs", job.shots, user=""))
    failure(job.checkpoint(), "space")
    here = job.step()
    job.reach(here + 20)
    failure(job.checkpoint(), "space")
    left = good(on("gn1", "ls", job.shots)).split()
    assert not [n for n in left if re.match(r"\d+-", n)], left
    for node in NODES:
        good(on(node, "mount", "-o", "remount,size=400m", job.shots, user=""))
    made = job.snapshot()
    assert made["ranks"] == 4, made
    job.finish()
    for node in NODES:
        good(on(node, "umount", job.shots, user=""))


def case_folder_removed(folder):
    job = Ledger(folder, steps=2000, mca=[("ghost_checkpoint_interval", "1")])
    for _ in range(5):
        until(lambda: os.path.isdir(job.shots), "the folder")
        time.sleep(random.random() * 0.3)
        shutil.rmtree(job.shots, ignore_errors=True)
    # One that was being completed may have lost files and be there all the same.
    here = set(job.complete())
    job.until_running(lambda: len(set(job.complete()) - here) > 1, "two snapshots after all")
    job.kill()
    job.restart("gn3:2,gn4:2")
    job.finish()


def case_newest_damaged(folder):
    job = Ledger(folder, mca=[("ghost_incremental", "0")])
    job.reach(50)
    before = job.snapshot()
    job.reach(100)
    newest = job.snapshot()
    job.kill()
    with open(os.path.join(newest["snapshot"], "rank-2.ghost.lz4"), "r+b") as ghost_file:
        ghost_file.seek(newest["bytes"] // 8)
        byte = ghost_file.read(1)
        ghost_file.seek(-1, os.SEEK_CUR)
        ghost_file.write(bytes([byte[0] ^ 4]))
    job.restart("gn3:2,gn4:2")
    job.finish()
    assert newest["name"] in job.text() and "damaged" in job.text(), job.text()[:1000]
    assert before["name"] in job.text(), job.text()[:1000]


def case_node_lost(folder):
    job = Ledger(folder, steps=1500, hosts="gn1:2,gn2:2,gn3:2",
                 mca=[("ghost_checkpoint_interval", "1")])
    until(job.complete, "a snapshot")
    good(lab.command("cut", "gn3"))  # a daemon, but no rank
    number = int(job.complete()[-1].split("-")[1])
    until(lambda: int(job.complete()[-1].split("-")[1]) > number + 1, "snapshots without it")
    job.finish()
    good(lab.command("heal", "gn3"))


def case_node_of_ranks_lost(folder):
    job = Ledger(folder, steps=900, mca=[("ghost_checkpoint_interval", "1")])
    until(job.complete, "a snapshot")
    time.sleep(random.random())
    lab.command("kill", "gn2")
    assert job.process.wait(LIMIT) != 0
    job.kill()
    job.restart("gn3:2,gn4:2")
    job.finish()


def case_old_life_comes_back(folder):
    """A rank of the life before, on a node that was cut off, is of a later placement than the true one."""
    job = Ledger(folder, steps=700, pause=20000, ranks=2, hosts="gn1:1,gn2:1,gn3:1,gn4:1")
    job.reach(50)
    job.snapshot()
    for node in ("gn3", "gn4", "gn2"):
        good(on("gn1", "ghost", "migrate", "--rank", "1", "--to", node))
    good(lab.command("cut", "gn2"))
    job.kill_mpirun()
    job.restart("gn1:1,gn3:1")
    job.reach(100)
    old = on("gn2", "pgrep", "-xc", "ledger").stdout.strip()
    good(lab.command("heal", "gn2"))
    job.finish()
    assert old == "1", old
    until(lambda: on("gn2", "pgrep", "-x", "ledger").returncode == 1, "the end of the old rank")


def case_rank_ends_meanwhile(folder):
    for how, status in (("return", 7), ("segv", 139)):
        place = os.path.join(folder, how)
        own_folder(place)
        job = Job(place, [os.path.abspath("tests/mpi/leaver"), "--rank", "1", "--how", how, "--status",
                          str(status), "--after", "2.5"], mca=[("ghost_checkpoint_interval", "1")])
        ended = job.process.wait(LIMIT)
        assert ended == status, (ended, job.text())


def case_refused(folder):
    job = Job(folder, [os.path.abspath("tests/mpi/holder"), "--rank", "3", "--what", "io_uring",
                       "--seconds", "4"])
    until(lambda: "started" in job.text(), "the holder")
    failure(job.checkpoint(), "rank 3", "io_uring")
    assert " 0 errors" in job.result()


def case_beside_itself(folder):
    job = Ledger(folder, steps=1200)
    job.reach(50)
    job.snapshot()
    done = on("gn3", "ghost", "restart", job.shots, "--host", "gn3:4", limit=30)
    assert done.returncode == 1 and "--replace" in done.stderr, (done.returncode, done.stderr)
    here = job.step()
    job.reach(here + 10)
    first = job.process
    job.restart("gn1:2,gn2:2", options=("--replace",))
    assert first.wait(LIMIT) != 0
    job.finish()


def case_during_init_and_finalize(folder):
    for after in (0.0, 0.15, 0.3, 0.5, 0.8):
        place = os.path.join(folder, "%g" % after)
        own_folder(place)
        job = Ledger(place, steps=40, pause=1000)
        time.sleep(after)
        job.checkpoint()  # whatever it says, the job ends as ever
        job.finish()
        live.remove(job)


# A liquid of soft disks under a thermostat; what it prints depends on ranks and seed only.
LAMMPS = """
units lj
dimension 3
boundary p p p
lattice sc 0.55
region cell block 0 7 0 8 0 9
create_box 1 cell
create_atoms 1 region cell
mass 1 1.5
velocity all create 0.9 20261 loop geom
pair_style lj/cut 1.9
pair_coeff 1 1 0.8 1.05
fix walk all nve
fix bath all langevin 0.9 0.7 0.5 771
timestep 0.004
thermo 50
thermo_style custom step temp pe ke etotal press
run 1200
"""


def rows_of(text):
    """The table LAMMPS prints: step -> its line."""
    return {int(line.split()[0]): line.split() for line in text.splitlines()
            if re.fullmatch(r"\s*\d+(\s+-?[0-9][0-9.e+-]*){5}\s*", line)}


def case_lammps(folder):
    program = shutil.which("lmp")
    if not program:
        raise Skip("no lmp (package lammps)")
    script = os.path.join(folder, "in.liquid")
    with open(script, "w") as file:
        file.write(LAMMPS)
    words = [program, "-in", script, "-log", "none"]
    reference = rows_of(good(subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "btl",
         "self,tcp", "--mca", "btl_tcp_if_include", "lo", "-np", "4", *words],
        capture_output=True, text=True, timeout=LIMIT)))
    assert max(reference) == 1200
    job = Job(folder, words)
    until(lambda: max(rows_of(job.text()), default=0) >= 200, "the first rows")
    job.snapshot()
    job.kill()
    job.restart("gn3:2,gn4:2")
    mine = rows_of(job.result())
    assert mine and max(mine) == 1200 and min(mine) >= 200, sorted(mine)[:3]
    for step, row in mine.items():
        assert row == reference[step], (step, row, reference[step])


FAULTS = {"killed_at_any_moment", "disk_full", "folder_removed", "newest_damaged", "node_lost",
          "node_of_ranks_lost", "old_life_comes_back", "rank_ends_meanwhile", "refused", "beside_itself"}


def down():
    for job in live:
        if job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()
    lab.down()


# Takes the lab down when this process has ended, however it did.
def guard():
    ours, theirs = os.pipe()  # the other end is open as long as this process lives
    if os.fork() == 0:
        os.setsid()
        os.close(theirs)
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        os.read(ours, 1)
        os.execv(suite.GHOST, [suite.GHOST, "lab", "down", "--name", lab.name])
    os.close(ours)


def in_folder(name, case):
    """A case's jobs are gone after it, and the lab is whole again."""
    folder = give(os.path.abspath(tempfile.mkdtemp(prefix="snapshots-", dir=".")))
    done = False
    try:
        case(folder)
        done = True
    finally:
        if not done:
            for job in live:
                if os.path.exists(job.out_path):
                    print("# %s: %s" % (job.process.poll(), job.text()[-2000:]))
        for job in live:
            if job.process.poll() is None:
                job.kill()
        live.clear()
        good(lab.up())
        if done or not os.environ.get("GHOST_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)


def main(cases, wanted):
    guard()
    atexit.register(down)
    good(lab.up())
    return suite.run_cases(cases, wanted, in_folder)


if __name__ == "__main__":
    faults = "--faults" in sys.argv
    here = {name: case for name, case in suite.cases_in(globals()).items() if (name in FAULTS) == faults}
    sys.exit(main(here, [name for name in sys.argv[1:] if name != "--faults"]))
