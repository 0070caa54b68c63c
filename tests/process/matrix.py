"""Runs the matrix: exports on gn1, imports on gn2, and holds docs/COVERAGE.md to the outcome.

usage: matrix.py [--write] [CASE...]      --write: write docs/COVERAGE.md anew
GHOST_TEST_USER=NAME: as that user of the machine
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

from suite import ROOT, USER, Lab, give

COVERAGE = os.path.join(ROOT, "docs", "COVERAGE.md")
SUBJECT = os.path.abspath("tests/process/matrix_subject")
lab = Lab(2)

# One shell for each node: it does one step of every case and says how it ended.
SERVE = "$SUBJECT --serve"
EXPORT = """
for c in $CASES; do
    space=
    case $c in node_*) space=--share-ipc ;; esac
    ghost run --detach $space -- $SUBJECT $c $DIR > $DIR/$c.pid 2> $DIR/$c.err < /dev/null
done
for c in $CASES; do
    n=0
    while [ ! -e $DIR/$c.ready ] && [ ! -e $DIR/$c.result ] && [ $n -lt 1000 ]; do sleep 0.01; n=$((n+1)); done
    ghost export $(cat $DIR/$c.pid) --to $DIR/$c.ghost --then kill > $DIR/$c.export 2>&1
    echo $? > $DIR/$c.exported
done
"""
BETWEEN = """
for c in $CASES; do
    [ -e $DIR/$c.ghost ] || continue
    [ $c = grown ] && printf 'xxxxxx of others' >> $DIR/grown.data
    ghost import --detach $DIR/$c.ghost > $DIR/$c.import 2>&1 < /dev/null
    echo $? > $DIR/$c.imported
    touch $DIR/$c.go
done
for c in $CASES; do
    [ -e $DIR/$c.ghost ] || continue
    n=0
    while [ "$(cat $DIR/$c.imported)" = 0 ] && [ ! -e $DIR/$c.result ] && [ $n -lt 1000 ]; do sleep 0.01; n=$((n+1)); done
done
"""
# Programs that do what a user may not; and what a user's ghost lacks, as Linux keeps it for root.
CANNOT_BEGIN = ("threads", "credentials", "classes", "controls", "filter", "device", "proc_of_others", "userfaultfd")
NEED_BPF = ("memory_policies", "socket_limits")


def why_not_for_users(name, wrong):
    if name in CANNOT_BEGIN and wrong.startswith("cannot begin"):
        return "a user may not begin it"
    return "as where Linux lacks BTF: BPF is root's" if name in NEED_BPF else ""


def text(folder, name):
    try:
        with open(os.path.join(folder, name)) as file:
            return file.read().strip()
    except OSError:
        return ""


def on(node, script, folder, cases, user=USER):
    setup = "CASES='%s'; DIR=%s; SUBJECT=%s\n" % (" ".join(cases), folder, SUBJECT)
    return lab.on(node, "sh", "-c", setup + script, user=user)


def outcome(folder, name, refused):
    """('' or what is wrong, what a user is told if it is refused)"""
    begun = text(folder, name + ".result")
    if begun.startswith("cannot begin"):
        return begun, ""
    at_import = refused.startswith("import: ")
    if refused.startswith("sees: "):
        refused = ""
    if refused and not at_import:
        said = text(folder, name + ".export")
        if text(folder, name + ".exported") == "1" and refused in said:
            return "", said
        return "not refused by export: " + said, ""
    if text(folder, name + ".exported") != "0":
        return "export: " + text(folder, name + ".export"), ""
    said = text(folder, name + ".import")
    if at_import:
        if text(folder, name + ".imported") == "1" and refused[8:] in said:
            return "", said
        return "not refused by import: " + said, ""
    if text(folder, name + ".imported") != "0":
        return "import: " + said, ""
    result = text(folder, name + ".result")
    return ("" if result == "ok" else result or "no answer after the import"), ""


def coverage(rows):
    lines = ["# What a ghost carries", "",
             "Each row is a program that puts itself into the named state, is exported on one node, imported on",
             "another, and then checks that everything is unchanged. `tests/process/matrix.sh` runs them and",
             "compares this page with the results (`tests/process/matrix.sh --write` writes it). Those with a",
             "dagger (†) run as ranks of an MPI job as well, by move and by snapshot and restart:",
             "`tests/net/rank_matrix.sh`. `test` is the program's name, which either of them takes.", "",
             "| what | carried | test |", "|---|---|---|"]
    unlike, plain, roots = [], [], []
    for name, what, refused, ranks, of_user in rows:
        how_ranks, _, why = ranks.partition(": ")
        if how_ranks == "not":
            plain.append("- `%s`: %s." % (name, why))
        test = "`%s`%s" % (name, "" if how_ranks == "not" else " †")
        if refused.startswith("sees: "):
            unlike.append("| %s | %s | %s |" % (what, refused[6:], test))
            continue
        how = 'refused before the freeze: "%s"' % refused if refused else "yes"
        if refused.startswith("import: "):
            how = "refused before anything starts where the file is missing"
        if how_ranks == "with":
            how += "; of a rank: with `--mca %s 1`" % why
        if of_user and not of_user.startswith("not: "):
            how += '; of an ordinary user: refused before the freeze, "%s"' % of_user
        if of_user.startswith("not: "):
            roots.append("- `%s`: %s." % (name, of_user[5:]))
        lines.append("| %s | %s | %s |" % (what, how, test))
    lines += ["", "Not run as ranks:", *plain, "",
              "With `GHOST_TEST_USER=NAME` both run as that ordinary user. Not run then:", *roots, "",
              "Also, with the test that shows it:",
              "- Standard input, output and error that lead out of the tree become those of `ghost import`:",
              "  `tests/process/plain_verbs.sh`.",
              "- Calls with a time limit go on with the time that is left (where Linux lacks BTF, one that waits",
              "  for a duration waits for all of it again): `tests/process/ghost_calls_test.cpp`.",
              "- Files are not copied: they must be on the target, unchanged; files that are written to",
              "  may have grown: `grown`; ranks: `tests/net/files_test.cpp`.",
              "- Memory that was in transparent huge pages returns to huge pages soon afterwards:",
              "  `tests/process/ghost_huge_pages_test.cpp`.",
              "- Memory that ranks of a node share (MPI_Win_allocate_shared, or a removed file they have mapped) is saved once, while",
              "  all of them are frozen, and is one memory again after a restart, which wants them on one node. They move together, by",
              "  `--with-sharers`; refused, \"it is memory shared with\", if it has a name, is a memfd, or is shared with processes",
              "  that are no ranks:",
              "  `tests/net/moves_test.cpp`.",
              "- Connections to services of the node are closed, as if the service had ended, where the client",
              "  connects anew: syslog(3) and nss_sss do so and ask once more; those of nscd, nslcd, munge, avahi",
              "  and systemd's user database connect for each question. A process that comes to a node without",
              "  the service finds none, as one that is started there. Others are refused by the service's name:",
              "  D-Bus, agents of ssh and gpg, key rings, X, Wayland, output to the journal. `services`,",
              "  `service_bus`.",
              "- Threads bound to processors that the target lacks get the job's binding there, or all:",
              "  `tests/unit/ghost_placement_test.cpp`, `tests/net/placed_test.cpp`.",
              "",
              "Not carried, a program each as well:", "", "| what | the program sees | test |",
              "|---|---|---|",
              *unlike, "",
              "Looked at, without a program:",
              "- The tree gets the network and mounts of `ghost import`.",
              "- Shared memory in huge pages of hugetlbfs needs as many reserved ones on the target.",
              "",
              "Looked at and not carried, without a program:",
              "- timer_create with CLOCK_REALTIME and TIMER_ABSTIME, where Linux lacks BTF: late by the time",
              "  spent in a file.",
              "- Calls on sockets with SO_RCVTIMEO or SO_SNDTIMEO, where Linux lacks BTF: EINTR. Elsewhere a",
              "  connect that was stopped says EALREADY, not EINPROGRESS, when its limit is over; one that has",
              "  got or sent a part returns that.",
              "- Memory that came along lies on the nodes where the import has put it, also where a memory",
              "  policy names others; the policy decides of what is touched later.",
              "- set_mempolicy_home_node, MPOL_F_RELATIVE_NODES: the policy is kept, this part of it is not;",
              "  memory policies of shared memory, and of mappings where Linux lacks BTF: the default.",
              "- PR_SET_IO_FLUSHER, PR_SCHED_CORE, PR_SET_SPECULATION_CTRL, PR_SET_SYSCALL_USER_DISPATCH,",
              "  PR_SET_PTRACER, PR_SET_TSC, ARCH_SET_CPUID, pkey_alloc, ioperm, iopl: the default.",
              "- Session keyring, security label, audit session, cgroups: those of the importer.", ""]
    return "\n".join(lines)


def main():
    write = "--write" in sys.argv
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
    listed = subprocess.run([SUBJECT, "--list"], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    cases = [row[0] for row in rows if not wanted or row[0] in wanted]
    if USER:
        cases = [row[0] for row in rows if row[0] in cases and not row[4].startswith("not: ")]
    os.makedirs("tests/process", exist_ok=True)
    folder = give(tempfile.mkdtemp(prefix="matrix.", dir=os.path.abspath("tests/process")))
    bad = 0
    begin = time.monotonic()
    try:
        for node, script, user in (("gn1", SERVE, ""), ("gn2", SERVE, ""), ("gn1", EXPORT, USER), ("gn2", BETWEEN, USER)):
            done = on(node, script, folder, cases, user)
            if done.returncode != 0 or done.stderr.strip():
                print(node, done.returncode, done.stdout, done.stderr)
        for name, _, refused, _, of_user in rows:
            if name not in cases:
                continue
            if USER and of_user:
                refused = of_user
            wrong, said = outcome(folder, name, refused)
            unlike = why_not_for_users(name, wrong) if USER and wrong else ""
            if unlike:
                print("ok %s # SKIP %s" % (name, unlike))
                continue
            bad += bool(wrong)
            print("%s %s%s" % ("not ok" if wrong else "ok", name, ": " + wrong if wrong else ""))
            if said and os.environ.get("VERBOSE"):
                print("   ", said)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    page = coverage(rows)
    if write:
        open(COVERAGE, "w").write(page)
    elif not wanted:
        same = os.path.exists(COVERAGE) and open(COVERAGE).read() == page
        bad += not same
        print("%s coverage_page: docs/COVERAGE.md is what the matrix has" % ("ok" if same else "not ok"))
    print("%.1f s" % (time.monotonic() - begin), file=sys.stderr)
    return 1 if bad else 0


with lab:
    sys.exit(main())
