// SPDX-License-Identifier: BSD-3-Clause
// Cases: what a process has asked of the kernel for itself: prctl(2) and its like, locks on what it
// will map, files of /proc/PID that can be written to; and what it sees of what is not carried.
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

// Of headers newer than Debian 12's: linux/prctl.h, sys/syscall.h, linux/landlock.h.
constexpr int set_write_execute = 65, get_write_execute = 66;  // PR_SET_MDWE, PR_GET_MDWE
constexpr int set_merge = 67, get_merge = 68;                  // PR_SET_MEMORY_MERGE
constexpr long seal_memory = 462;                              // mseal(2)
constexpr long make_rules = 444, take_rules = 446;             // landlock_create_ruleset(2), …
constexpr uint64_t make_folder = 1 << 7;                       // LANDLOCK_ACCESS_FS_MAKE_DIR
constexpr long keyring_id = 0;                                 // KEYCTL_GET_KEYRING_ID
constexpr long process_keyring = -2;                           // KEY_SPEC_PROCESS_KEYRING

long ask(int option, unsigned long a = 0, unsigned long b = 0) {
    return prctl(option, a, b, 0, 0);
}

long value_by(int option) {
    int value = 0;
    return ask(option, reinterpret_cast<unsigned long>(&value)) == 0 ? value : -1;
}

std::string line_of(const std::string& path, const std::string& key = "") {
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(key)) return line;
    return {};
}

void put(const char* path, const char* text) {
    std::ofstream out(path);
    out << text << std::flush;
    need(out.good(), path);
}

char* memory(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(at != MAP_FAILED, "memory");
    return static_cast<char*>(at);
}

// What smaps says of the mapping that begins there.
std::string of_mapping(const char* start, const std::string& key) {
    std::ifstream in("/proc/self/smaps");
    bool inside = false;
    for (std::string line; std::getline(in, line);) {
        unsigned long first = 0, end = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &end) == 2)
            inside = first == reinterpret_cast<unsigned long>(start);
        if (inside && line.starts_with(key)) return line;
    }
    return {};
}

// Things of a process that are to be as they were: each has a line of its own where it is not.
class Things {
  public:
    void add(const char* name, std::function<std::string()> say) {
        auto before = say();
        things_.push_back({name, std::move(say), std::move(before)});
    }
    void number(const char* name, const std::function<long()>& get) {
        add(name, [get] { return std::to_string(get()); });
    }
    std::string check() const {
        std::string out;
        for (const auto& [name, say, before] : things_)
            if (const auto now = say(); now != before)
                out += "\n    " + std::string(name) + " is " + now + ", was " + before;
        return out;
    }

  private:
    struct Thing {
        const char* name;
        std::function<std::string()> say;
        std::string before;
    };
    std::vector<Thing> things_;
};

long personality_now() {
    return personality(0xffffffff);
}

Check settings(const std::string&) {
    static Things things;
    need(setsid() > 0 || getsid(0) == getpid(), "session");
    put("/proc/self/coredump_filter", "0x55");
    things.add("core dump filter", [] { return line_of("/proc/self/coredump_filter"); });
    if (!line_of("/proc/self/autogroup").empty()) {
        put("/proc/self/autogroup", "7");
        things.add("nice value of the autogroup", [] {
            const auto line = line_of("/proc/self/autogroup");
            return line.substr(line.find(' '));
        });
    }
    need(personality(ADDR_NO_RANDOMIZE | UNAME26) >= 0, "personality");
    things.number("personality", personality_now);
    if (!line_of("/proc/self/ksm_stat", "ksm_merge_any").empty() && ask(set_merge, 1) == 0)
        things.number("merging of equal pages", [] { return ask(get_merge); });
    return [] { return things.check(); };
}

Check controls(const std::string&) {
    static Things things;
    need(ask(PR_SET_PDEATHSIG, SIGUSR1) == 0, "death signal");
    things.number("death signal", [] { return value_by(PR_GET_PDEATHSIG); });
    need(ask(PR_SET_CHILD_SUBREAPER, 1) == 0, "child subreaper");
    things.number("child subreaper", [] { return value_by(PR_GET_CHILD_SUBREAPER); });
    need(ask(PR_SET_THP_DISABLE, 1) == 0, "no huge pages");
    things.number("no huge pages", [] { return ask(PR_GET_THP_DISABLE); });
    constexpr unsigned long wake_alarm = 35;
    if (geteuid() == 0) {
        need(ask(PR_SET_SECUREBITS, 0x2f) == 0, "securebits");
        need(ask(PR_CAPBSET_DROP, wake_alarm) == 0, "bounding set");
    }
    things.number("securebits", [] { return ask(PR_GET_SECUREBITS); });
    things.number("bounding set", [] { return ask(PR_CAPBSET_READ, wake_alarm); });
    put("/proc/self/oom_score_adj", "321");
    things.add("oom_score_adj", [] { return line_of("/proc/self/oom_score_adj"); });
    return [] { return things.check(); };
}

Check undumpable(const std::string&) {
    static Things things;
    need(ask(PR_SET_DUMPABLE, 0) == 0, "dumpable");
    things.number("dumpable", [] { return ask(PR_GET_DUMPABLE); });
    return [] { return things.check(); };
}

Check hints(const std::string&) {
    static Things things;
    for (const int hint : {MADV_DONTFORK, MADV_DONTDUMP, MADV_RANDOM, MADV_SEQUENTIAL,
                           MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_WIPEONFORK}) {
        // Not beside one that differs in nothing.
        char* at = memory(3 * 65536) + 65536;
        need(madvise(at, 65536, hint) == 0, "madvise");
        things.add("flags of a mapping", [at] { return of_mapping(at, "VmFlags:"); });
    }
    return [] { return things.check(); };
}

Check filter(const std::string&) {
    static std::array<sock_filter, 4> code = {
        {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_vhangup, 0, 1),
         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXFULL),
         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
    sock_fprog program{code.size(), code.data()};
    need(geteuid() == 0 || ask(PR_SET_NO_NEW_PRIVS, 1) == 0, "no new privileges");
    need(ask(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, reinterpret_cast<unsigned long>(&program)) == 0,
         "seccomp filter");
    return []() -> std::string {
        const long answer = syscall(SYS_vhangup);
        return answer == -1 && errno == EXFULL ? "" : "the filter lets through";
    };
}

template <int flags>
Check locks_later(const std::string&) {
    static const auto say = [] {
        const char* at = memory(3 * 65536);
        mprotect(const_cast<char*>(at), 65536, PROT_NONE);  // it is a mapping of its own
        at += 65536;
        mprotect(const_cast<char*>(at + 65536), 65536, PROT_NONE);
        const auto kept = of_mapping(at, "VmFlags:").find(" lo") != std::string::npos;
        return (kept ? "locked, " : "free, ") + of_mapping(at, "Rss:");
    };
    need(mlockall(flags) == 0, "mlockall");
    static const std::string before = say();
    return []() -> std::string {
        const auto now = say();
        return now == before ? "" : "later memory is " + now + ", was " + before;
    };
}

// What is not carried: what the program sees then.

double processor_time() {
    rusage use{};
    getrusage(RUSAGE_SELF, &use);
    return static_cast<double>(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           static_cast<double>(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

double clock_of(clockid_t which) {
    timespec now{};
    clock_gettime(which, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

Check processor_clocks(const std::string&) {
    constexpr double enough = 1;  // more than it takes to be made again
    while (processor_time() < enough) {
    }
    return []() -> std::string {
        std::string out;
        const auto see = [&out](const char* name, double now) {
            if (now >= enough) out += std::string(name) + " goes on; ";
        };
        see("clock()", static_cast<double>(clock()) / CLOCKS_PER_SEC);
        see("getrusage()", processor_time());
        tms used{};
        times(&used);
        see("times()", static_cast<double>(used.tms_utime + used.tms_stime) /
                           static_cast<double>(sysconf(_SC_CLK_TCK)));
        see("CLOCK_PROCESS_CPUTIME_ID", clock_of(CLOCK_PROCESS_CPUTIME_ID));
        see("CLOCK_THREAD_CPUTIME_ID", clock_of(CLOCK_THREAD_CPUTIME_ID));
        return out;
    };
}

// Field 22 of /proc/self/stat.
std::string start_time() {
    std::istringstream in(line_of("/proc/self/stat"));
    std::string word;
    for (int i = 0; i < 22; i++) in >> word;
    return word;
}

Check counters(const std::string&) {
    constexpr size_t bytes = 64 << 20;
    static const std::string began = start_time();
    char* at = memory(bytes);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < bytes; i += 4096) at[i] = 1;
    munmap(at, bytes);
    static rusage before{};
    getrusage(RUSAGE_SELF, &before);
    return []() -> std::string {
        rusage now{};
        getrusage(RUSAGE_SELF, &now);
        std::string out;
        if (now.ru_minflt >= before.ru_minflt) out += "page faults go on; ";
        if (now.ru_maxrss >= before.ru_maxrss) out += "the greatest size is kept; ";
        if (start_time() == began) out += "the time of its start is kept; ";
        return out;
    };
}

Check unkept(const std::string&) {
    static char* sealed = memory(3 * 65536) + 65536;
    static const bool seals = syscall(seal_memory, sealed, 65536, 0) == 0;
    need(ask(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY) == 0, "policy of broken memory");
    static unsigned segment[4] = {0, 0, 0xfffff, 0x51};
    static const bool segments = syscall(SYS_modify_ldt, 1, segment, sizeof segment) == 0;
    static const bool denies = ask(set_write_execute, 1) == 0;
    static const bool rings = syscall(SYS_keyctl, keyring_id, process_keyring, 1) > 0;
    return []() -> std::string {
        std::array<char, 64> table;
        const std::array<std::pair<const char*, bool>, 5> kept = {{
            {"mseal", seals && mprotect(sealed, 65536, PROT_READ) != 0},
            {"PR_MCE_KILL", ask(PR_MCE_KILL_GET) != PR_MCE_KILL_DEFAULT},
            {"modify_ldt", segments && syscall(SYS_modify_ldt, 0, table.data(), table.size()) > 0},
            {"PR_SET_MDWE", denies && ask(get_write_execute) != 0},
            {"process keyring", rings && syscall(SYS_keyctl, keyring_id, process_keyring, 0) > 0},
        }};
        std::string out;
        for (const auto& [name, is] : kept)
            if (is) out += std::string(name) + " is kept; ";
        return out;
    };
}

Check rules(const std::string& folder) {
    static const std::string made = folder + "/made-" + std::to_string(getpid());
    const uint64_t attributes = make_folder;
    const long set = syscall(make_rules, &attributes, sizeof attributes, 0);
    need(set >= 0 && ask(PR_SET_NO_NEW_PRIVS, 1) == 0 && syscall(take_rules, set, 0) == 0,
         "landlock");
    close(static_cast<int>(set));
    need(mkdir(made.c_str(), 0700) != 0, "a rule that forbids");
    return
        []() -> std::string { return mkdir(made.c_str(), 0700) == 0 ? "" : "the rules are kept"; };
}

}  // namespace

const std::vector<Case> setting_cases = {
    {"settings",
     "personality, core dump filter, merging of equal pages, nice value of a session's autogroup",
     nullptr, settings},
    {"controls",
     "death signal, child subreaper, huge pages off, securebits, capabilities, oom_score_adj, "
     "dumpable",
     nullptr, controls},
    {"undumpable", "processes that let nobody look at them (PR_SET_DUMPABLE)", nullptr, undumpable},
    {"hints", "hints for memory (madvise)", nullptr, hints},
    {"filter", "seccomp filters", nullptr, filter},
    {"locks_later", "mlockall(MCL_FUTURE)", nullptr, locks_later<MCL_FUTURE>},
    {"locks_on_fault", "mlockall(MCL_FUTURE), MCL_ONFAULT", nullptr,
     locks_later<MCL_FUTURE | MCL_ONFAULT>},
    {"processor_clocks",
     "processor time used: clock(), times(), getrusage(), CLOCK_PROCESS_CPUTIME_ID, "
     "CLOCK_THREAD_CPUTIME_ID",
     "sees: begins at 0 again (the kernel has no call to set it)", processor_clocks},
    {"counters",
     "page faults, context switches, ru_maxrss, VmHWM, VmPeak, /proc/self/io, schedstat, the time "
     "of its start",
     "sees: those of a new process", counters},
    {"unkept", "mseal, PR_MCE_KILL, modify_ldt, PR_SET_MDWE, thread and process keyrings",
     "sees: none, or the default", unkept},
    {"rules", "landlock", "sees: nothing is forbidden any more", rules},
};

}  // namespace matrix
