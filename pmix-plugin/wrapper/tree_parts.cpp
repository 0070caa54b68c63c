// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/tree_parts.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.hpp"
#include "ghost-core/criu/preflight.hpp"
#include "ghost-core/criu/refusals.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/engine/preflight.hpp"

namespace ghost::plugin {

Identity Identity::from_environment() {
    auto text = [](const char* name, const char* otherwise) {
        const char* value = std::getenv(name);
        return std::string(value != nullptr ? value : otherwise);
    };
    Identity out;
    out.job = text("GHOST_JOB", "");
    out.rank = static_cast<uint32_t>(
        std::atoi(text("GHOST_RANK", text("PMIX_RANK", "0").c_str()).c_str()));
    out.life = text("GHOST_LIFE", "");
    out.node_socket = text("GHOST_NODE_SOCKET", "");
    out.criu = text("GHOST_CRIU", "criu");
    return out;
}

WrapperHello Identity::hello(WrapperMode mode, pid_t init, std::string why) const {
    return {.job = job,
            .rank = rank,
            .life = life,
            .pid = getpid(),
            .init = init,
            .mode = mode,
            .why = std::move(why)};
}

namespace {

// Of a process's environment as /proc/PID/environ shows it; empty: it is not there.
std::string variable(const std::string& environment, const std::string& name) {
    const std::string end(1, '\0'), wanted = end + name + "=";
    const size_t at = (end + environment).find(wanted);
    return at == std::string::npos ? "" : std::string(environment.c_str() + at + wanted.size() - 1);
}

// Which rank of which job a process is, or belongs to.
struct RankOf {
    std::string job, rank;  // empty: it is no rank
};

RankOf rank_of(pid_t pid) {
    const auto environment = read_file(fmt::format("/proc/{}/environ", pid));
    if (!environment) return {};
    return {variable(*environment, "PMIX_NAMESPACE"), variable(*environment, "PMIX_RANK")};
}

}  // namespace

std::string rank_or_process(pid_t pid) {
    const auto rank = rank_of(pid).rank;
    return rank.empty() ? fmt::format("process {}", pid) : "rank " + rank;
}

Result<Sharing> sharing_of(pid_t root, const Identity& who, const std::vector<SharedPart>& seen) {
    std::vector<std::string> known;
    for (const SharedPart& part : seen) known.push_back(part.id);
    auto memory = core::shared_memory_of(root, known);
    GHOST_TRY(memory);
    Sharing out;
    for (auto& one : *memory) {
        std::set<uint32_t> ranks{who.rank};
        std::set<std::string> others;
        // criu knows no external memfd: it would make one for each of them
        bool only_ranks = !one.named && !one.name.starts_with("/memfd:");
        const auto part = std::ranges::find(seen, one.id, &SharedPart::id);
        if (part != seen.end()) {
            ranks.insert(part->ranks.begin(), part->ranks.end());
            for (const uint32_t rank : part->ranks)
                if (rank != who.rank) others.insert(fmt::format("rank {}", rank));
            if (part->strangers) others.insert("other processes");
            only_ranks &= !part->strangers;
            if (!one.file) one.size = std::max(one.size, part->bytes);
        }
        const bool can_be_read = one.is_whole() && (one.file || part != seen.end());
        only_ranks &= can_be_read;
        for (const pid_t pid : one.others) {
            const auto of = rank_of(pid);
            const bool ours = of.job == who.job && !of.rank.empty();
            if (ours) ranks.insert(static_cast<uint32_t>(std::atoi(of.rank.c_str())));
            others.insert(rank_or_process(pid));
            only_ranks &= ours;
        }
        if (others.empty()) others.insert("other processes");
        out.parts.push_back({one.id, {ranks.begin(), ranks.end()}, one.size});
        out.lines.push_back(core::Refusal(can_be_read ? core::Reason::shared_memory
                                                      : core::Reason::user_shared_memory,
                                          fmt::format("{}", fmt::join(others, ", ")))
                                .of(fmt::format("rank {}", who.rank), one.process, one.program,
                                    "mapping " + one.name));
        if (!only_ranks) out.refusals.push_back(out.lines.back());
    }
    out.memory = std::move(*memory);
    return out;
}

Status refused_for(const std::vector<std::string>& lines) {
    if (lines.empty()) return {};
    return because(Code::refused, fmt::format("{}", fmt::join(lines, "; ")));
}

Result<Sharing> check_rank(pid_t root, const Identity& who,
                           const std::vector<std::string>& externals,
                           const std::vector<SharedPart>& seen, bool sockets) {
    auto refusals = core::check_movable(root, fmt::format("rank {}", who.rank), externals, sockets,
                                        rank_or_process);
    GHOST_TRY(refusals);
    auto sharing = sharing_of(root, who, seen);
    GHOST_TRY(sharing);
    std::ranges::move(sharing->refusals, std::back_inserter(*refusals));
    GHOST_TRY(refused_for(*refusals));
    return sharing;
}

Status Sharing::confirm(const Sharing& now) {
    for (size_t i = 0; i < now.memory.size(); ++i) {
        const auto known = std::ranges::find(memory, now.memory[i].id, &core::SharedMemory::id);
        if (known == memory.end())
            return because(Code::busy, now.lines[i] + ", and was not a moment ago; ask again");
        known->size = now.memory[i].size;
    }
    return {};
}

std::vector<std::string> Sharing::with_keys(std::vector<std::string> externals) const {
    for (const auto& one : memory) externals.push_back(one.key);
    return externals;
}

SharedMappings Sharing::metadata(const std::vector<uint32_t>& unit) const {
    SharedMappings out{.ranks = unit, .memory = {}};
    for (const auto& one : memory) out.memory.push_back({one.id, one.key, one.size, one.mode});
    return out;
}

Result<core::SkeletonFiles> Sharing::contents(const std::vector<std::string>& ids) const {
    core::SkeletonFiles out;
    for (const auto& one : memory) {
        if (std::ranges::find(ids, one.id) == ids.end()) continue;
        auto contents = core::shared_contents(one);
        GHOST_TRY(contents);
        out.emplace_back(core::shared_memory_file(one.id), std::move(*contents));
    }
    return out;
}

void LiveTurns::reset() {
    const std::lock_guard lock(mutex_);
    stdio_ = {};
    wish_ = Wish::connected;
    quiet_ = off_ = false;
}

void LiveTurns::begin(RankStdio stdio) {
    const std::lock_guard lock(mutex_);
    stdio_ = std::move(stdio);
    quiet_ = true;
    changed_.notify_all();
}

void LiveTurns::call_off() {
    const std::lock_guard lock(mutex_);
    off_ = true;
    changed_.notify_all();
}

Result<bool> LiveTurns::wait(int64_t us) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::microseconds(us), [this] { return quiet_ || off_; });
    if (off_) return because(Code::refused, "the move was called off");
    return quiet_;
}

LiveTurns::Wish LiveTurns::wish() {
    const std::lock_guard lock(mutex_);
    return quiet_ ? Wish::none : std::exchange(wish_, Wish::none);
}

RankStdio LiveTurns::stdio() {
    const std::lock_guard lock(mutex_);
    return stdio_;
}

void LiveTurns::end() {
    const std::lock_guard lock(mutex_);
    quiet_ = false;
    wish_ = Wish::converged;
}

bool SharersWait::wait() {
    std::unique_lock lock(mutex_);
    ++stills_;
    changed_.wait(lock, [this] { return shares_ >= stills_ || off_; });
    return !off_;
}

void SharersWait::share() {
    {
        std::lock_guard lock(mutex_);
        ++shares_;
    }
    changed_.notify_all();
}

void SharersWait::call_off() {
    {
        std::lock_guard lock(mutex_);
        off_ = true;
    }
    changed_.notify_all();
}

Status wake_agent(pid_t root, const std::optional<AgentThread>& agent) {
    const pid_t inner = agent ? agent->tid : 0;
    if (inner <= 0) return make_error(Code::invalid, "wake the rank's agent", {}, "not told which");
    auto thread = core::find_thread(root, inner);
    GHOST_TRY(thread);
    siginfo_t info{};
    info.si_signo = SIGRTMAX - 2;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    if (syscall(SYS_rt_tgsigqueueinfo, thread->pid, thread->tid, info.si_signo, &info) != 0) {
        return sys_error("wake the rank's agent");
    }
    return {};
}

}  // namespace ghost::plugin
