// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/preflight.hpp"

#include <algorithm>
#include <array>
#include <arpa/inet.h>
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <limits.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <map>
#include <netinet/tcp.h>
#include <set>
#include <sstream>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/proc.hpp"
#include "ghost-core/format/files.hpp"
#include "ghost-core/format/services.hpp"
#include "ghost-core/criu/file_locks.hpp"
#include "ghost-core/criu/ipc_objects.hpp"
#include "ghost-core/criu/names.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/criu/unix_sockets.hpp"
#include "ghost-core/criu/user_limits.hpp"

namespace ghost::core {
namespace {

// One open descriptor of the tree, or a file that is in use without one.
struct Descriptor {
    const Task* task = nullptr;
    int number = 0;
    std::string use;     // "descriptor 3", "working folder"
    std::string link;    // below /proc/PID
    std::string target;  // as that says
    struct stat info {};
    bool private_huge = false;  // memory of the process alone in huge pages of hugetlbfs
};

// One TCP socket of /proc/PID/net/tcp*, addresses as printed there.
struct TcpSocket {
    std::string local, remote, family;
    unsigned state = 0;
};

void add(const Task& task, int number, std::string use, std::string link,
         std::vector<Descriptor>& out) {
    std::array<char, PATH_MAX> target{};
    Descriptor found{&task, number, std::move(use), std::move(link), {}, {}, false};
    if (readlink(found.link.c_str(), target.data(), target.size() - 1) <= 0 ||
        stat(found.link.c_str(), &found.info) != 0)
        return;
    found.target = target.data();
    out.push_back(std::move(found));
}

// Whether a mapping is of a file of hugetlbfs, as all memory of MAP_HUGETLB is (mmap(2)). `known`:
// the devices that have been asked.
bool is_of_hugetlbfs(const FileMapping& one, std::map<dev_t, bool>& known) {
    const auto [found, is_new] = known.try_emplace(one.device, false);
    struct statfs system {};
    if (is_new && statfs(one.link.c_str(), &system) == 0)
        found->second = system.f_type == HUGETLBFS_MAGIC;
    return found->second;
}

// Of mappings only private huge pages and those of files whose name has been removed can stand in
// the way.
void add_mapped(const Task& task, std::vector<Descriptor>& out) {
    std::map<dev_t, bool> known;
    for (const auto& one : file_mappings_of(task.pid)) {
        const bool huge = one.is_private && is_of_hugetlbfs(one, known);
        const auto before = out.size();
        if (huge || one.is_removed()) add(task, -1, "mapping", one.link, out);
        if (out.size() > before) out.back().private_huge = huge;
    }
}

std::vector<Descriptor> descriptors_of(const Task& task) {
    std::vector<Descriptor> out;
    const auto folder = fmt::format("/proc/{}/fd", task.pid);
    for (const int number : numbers_in(folder))
        add(task, number, fmt::format("descriptor {}", number),
            fmt::format("{}/{}", folder, number), out);
    add(task, -1, "working folder", fmt::format("/proc/{}/cwd", task.pid), out);
    add_mapped(task, out);
    return out;
}

// Inode → socket, for both families, of the task's network name space.
std::map<uint64_t, TcpSocket> tcp_sockets(pid_t pid) {
    std::map<uint64_t, TcpSocket> out;
    for (const auto* family : {"tcp", "tcp6"}) {
        std::ifstream in(fmt::format("/proc/{}/net/{}", pid, family));
        std::string line;
        std::getline(in, line);
        while (std::getline(in, line)) {
            std::istringstream words(line);
            TcpSocket found;
            std::string skip, state;
            uint64_t inode = 0;
            words >> skip >> found.local >> found.remote >> state >> skip >> skip >> skip >> skip >>
                skip >> inode;
            found.family = family;
            std::from_chars(state.data(), state.data() + state.size(), found.state, 16);
            if (inode != 0) out[inode] = found;
        }
    }
    return out;
}

// "0100007F:1F90" as 127.0.0.1:8080: 32-bit words in the machine's byte order.
std::string readable(const std::string& address) {
    const auto colon = address.find(':');
    if (colon != 8 && colon != 32) return address;
    std::array<uint32_t, 4> words{};
    for (size_t i = 0; i < colon / 8; i++)
        std::from_chars(address.data() + i * 8, address.data() + i * 8 + 8, words[i], 16);
    unsigned port = 0;
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port, 16);
    std::array<char, INET6_ADDRSTRLEN> text{};
    inet_ntop(colon == 8 ? AF_INET : AF_INET6, words.data(), text.data(), text.size());
    return colon == 8 ? fmt::format("{}:{}", text.data(), port)
                      : fmt::format("[{}]:{}", text.data(), port);
}

// Within the last second.
bool just_started(pid_t pid) {
    const auto start = start_of(pid);
    if (start.empty()) return true;
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    const auto ticks = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
    return std::strtoull(start.c_str(), nullptr, 10) >
           (static_cast<uint64_t>(now.tv_sec) - 1) * ticks;
}

std::string said_of(const std::string& who, const Descriptor& one, const std::string& what,
                    const Refusal& why) {
    return why.of(who, one.task->inner, one.task->name, one.use + " " + what);
}

// Judges all descriptors of one tree.
class Judge {
  public:
    Judge(const std::vector<Task>& tree, std::vector<Descriptor> all,
          const std::vector<std::string>& externals)
        : tree_(tree), all_(std::move(all)), externals_(externals.begin(), externals.end()) {
        for (const auto& one : all_)
            if (S_ISSOCK(one.info.st_mode)) sockets_.insert(one.info.st_ino);
        if (sockets_.empty()) return;
        unix_ = unix_sockets();
        // The kernel walks all of its table of connections for this, 15 ms even if it is empty,
        // while the rank is waited for; and a rank has given up its connections.
        if (std::any_of(sockets_.begin(), sockets_.end(),
                        [&](uint64_t inode) { return !unix_.count(inode); }))
            tcp_ = tcp_sockets(tree.front().pid);
    }

    struct Verdict {
        std::vector<std::string> lines;
        // A socket stands in the way that a new process may have been born with.
        bool may_change = false;
    };
    Verdict verdict(const std::string& who) const {
        Verdict out;
        for (const auto& one : all_) {
            std::string what = one.target;
            auto why = reason(one, what);
            if (!why && one.number >= 0 && one.target == "anon_inode:inotify")
                why = why_not_watched(tree_, *one.task, one.number);
            if (!why && one.number >= 0) why = why_no_descriptor(one.number);
            if (!why) continue;
            out.lines.push_back(said_of(who, one, what, why));
            if (S_ISSOCK(one.info.st_mode) && just_started(one.task->pid)) out.may_change = true;
        }
        return out;
    }

  private:
    Refusal reason(const Descriptor& one, std::string& what) const {
        // criu gets at pages in the order in which they come, and at those of such memory last
        if (one.private_huge) return Reason::private_huge_pages;
        if (one.target.starts_with("anon_inode:[eventfd") && is_semaphore(one))
            return Reason::eventfd_semaphore;
        if (one.target == "anon_inode:[fanotify]" && geteuid() != 0) return Reason::user_marks;
        if (one.target.starts_with("anon_inode:")) return anonymous(one.target);
        if (S_ISCHR(one.info.st_mode)) return device(one);
        if (S_ISBLK(one.info.st_mode)) return Reason::block_device;
        if (S_ISSOCK(one.info.st_mode)) return socket_reason(one.info.st_ino, what);
        return why_not_by_name(tree_, one.link, one.target, one.info);
    }

    // EFD_SEMAPHORE, as kernels from 6.5 on show it (proc(5), fdinfo); CRIU does not carry it.
    static bool is_semaphore(const Descriptor& one) {
        std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", one.task->pid, one.number));
        for (std::string line; std::getline(in, line);)
            if (line.starts_with("eventfd-semaphore:") && line.find('1') != std::string::npos)
                return true;
        return false;
    }

    // CRIU restores these; whatever else the kernel has or will have, it does not.
    static Refusal anonymous(const std::string& target) {
        for (const auto* known : {"[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "inotify",
                                  "[fanotify]", "[pidfd]", "[eventfd:", "[eventpoll:"})
            if (target.find(known) != std::string::npos) return {};
        return Reason::unknown_object;
    }

    Refusal device(const Descriptor& one) const {
        const auto kind = one.info.st_rdev;
        // mem(4): null, zero, full, random, urandom; tty(4): the controlling terminal, ptmx.
        const bool memory =
            major(kind) == 1 && (minor(kind) == 3 || minor(kind) == 5 || minor(kind) == 7 ||
                                 minor(kind) == 8 || minor(kind) == 9);
        const bool terminal = major(kind) == 5 && (minor(kind) == 0 || minor(kind) == 2);
        if (memory || terminal) return {};
        const auto key = fmt::format("tty[{:x}:{:x}]", kind, one.info.st_dev);
        if (externals_.count(key)) return {};
        if (is_pty(kind)) return made_inside(kind) ? Reason::own_terminal : Reason::outer_terminal;
        return Reason::device;
    }

    // pts(4).
    static bool is_pty(dev_t kind) { return major(kind) >= 136 && major(kind) <= 143; }
    // Its other end is a descriptor of /dev/ptmx in the tree; "tty-index" of proc_pid_fdinfo(5).
    bool made_inside(dev_t kind) const {
        const auto index = (major(kind) - 136) * 256 + minor(kind);
        const auto line = fmt::format("tty-index:\t{}", index);
        return std::ranges::any_of(all_, [&](const Descriptor& one) {
            if (one.number < 0 || one.info.st_rdev != makedev(5, 2)) return false;
            std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", one.task->pid, one.number));
            for (std::string text; std::getline(in, text);)
                if (text == line) return true;
            return false;
        });
    }

    Refusal socket_reason(uint64_t inode, std::string& what) const {
        if (const auto found = tcp_.find(inode); found != tcp_.end()) {
            const auto& tcp = found->second;
            what = fmt::format("socket tcp {} -> {}", readable(tcp.local), readable(tcp.remote));
            if (tcp.state == TCP_LISTEN || tcp.state == TCP_CLOSE) return {};
            if (!tcp_ends_inside(tcp)) return Reason::outer_end;
            return geteuid() == 0 ? Refusal() : Refusal(Reason::user_connection);
        }
        const auto peer = unix_.find(inode);
        if (peer == unix_.end() || peer->second.peer == 0 || sockets_.count(peer->second.peer) ||
            externals_.count(fmt::format("unix[{}]", inode)))
            return {};
        const auto name = name_of_peer(unix_, inode);
        what = fmt::format("socket unix {}{}{}", inode, name.empty() ? "" : " to ", name);
        return why_not_closed(name);
    }

    bool tcp_ends_inside(const TcpSocket& mine) const {
        return std::any_of(tcp_.begin(), tcp_.end(), [&](const auto& other) {
            return sockets_.count(other.first) && other.second.local == mine.remote &&
                   other.second.remote == mine.local;
        });
    }

    const std::vector<Task>& tree_;
    std::vector<Descriptor> all_;
    std::set<std::string> externals_;
    std::map<uint64_t, TcpSocket> tcp_;
    std::map<uint64_t, UnixSocket> unix_;
    std::set<uint64_t> sockets_;  // inodes of the tree's own
};

}  // namespace

Result<std::vector<std::string>> exclusive_locks(pid_t root, const std::string& who) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    std::vector<std::string> out;
    for (const auto& task : *tasks)
        for (const auto& one : descriptors_of(task))
            if (one.number >= 0 && has_exclusive(locks_of(task.pid, one.number)))
                out.push_back(said_of(who, one, one.target, Reason::exclusive_lock));
    return out;
}

bool may_raise_limits() {
    return geteuid() == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE, 0, 0, 0) == 1;
}

Refusal why_no_descriptor(int number) {
    // criu's own lie above those of the tree, in a table whose size is a multiple of 128
    // (servicefd.c): 15 of them and a pad of 16 for a process, and as many for each of those that
    // share its table with others, which are few.
    constexpr uint64_t own = 64, step = 128;
    if (may_raise_limits()) return {};
    rlimit here{};
    if (getrlimit(RLIMIT_NOFILE, &here) != 0) return {};
    const auto last = here.rlim_max / step * step;
    if (static_cast<uint64_t>(number) + own <= last) return {};
    return {Reason::no_descriptor, own, here.rlim_max};
}

Result<std::vector<std::string>> check_movable(pid_t root, const std::string& who,
                                               const std::vector<std::string>& externals,
                                               bool sockets, NameOf name_of) {
    constexpr int looks = 30;
    constexpr useconds_t pause_us = 10'000;
    for (int look = 1;; look++) {
        auto tasks = list_tree(root);
        if (!tasks) return tasks.error();
        std::vector<Descriptor> all;
        for (const auto& task : *tasks)
            for (auto& one : descriptors_of(task))
                if (sockets || !S_ISSOCK(one.info.st_mode)) all.push_back(std::move(one));
        auto verdict = Judge(*tasks, std::move(all), externals).verdict(who);
        if (look < looks && verdict.may_change) {
            usleep(pause_us);
            continue;
        }
        std::ranges::move(node_ipc_objects(*tasks, who, name_of),
                          std::back_inserter(verdict.lines));
        std::ranges::move(only_for_root(*tasks, who), std::back_inserter(verdict.lines));
        return std::move(verdict.lines);
    }
}

}  // namespace ghost::core
