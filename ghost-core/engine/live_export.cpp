// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/log.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/engine/live.hpp"
#include "ghost-core/engine/live_batches.hpp"
#include "ghost-core/engine/live_link.hpp"
#include "ghost-core/engine/live_members.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/memory/huge_pages.hpp"
#include "ghost-core/memory/injection.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/remote_read.hpp"
#include "ghost-core/memory/stopping_rule.hpp"
#include "ghost-core/memory/tracker.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/criu/dump.hpp"
#include "ghost-core/criu/ptrace_session.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/criu/realtime_priority.hpp"
#include "ghost-core/criu/restore.hpp"

namespace ghost::core {
namespace {

constexpr int clock_samples = 5;  // as live_import takes
constexpr int64_t hold_limit_us = 200000;
constexpr int quiet_tries = 40;  // until no signal waits and no pipe holds data
constexpr int64_t quiet_us = 2000;
constexpr int64_t quiet_round_us = 10000;
constexpr int closing_looks = 25;  // until what was hung up is closed: 5 ms in all
constexpr int64_t closing_look_us = 200;
constexpr int freezes = 8;  // tries of the last stop, each after one more round
// Post-copy: so many pieces of missing memory at most in each process: the target has to empty each
// of them by a call, some 10 µs. What lies between pieces then comes along. And hybrid: less than
// this is sent rather than named, in a few ms.
constexpr size_t deferred_pieces = 256;
constexpr uint64_t deferred_worth = 8 << 20;

Error others_now() {
    return because(Code::busy, "processes have been made or have ended");
}

class Source {
  public:
    Source(const LiveExportRequest& request, Resource& link)
        : request_(request), link_(link), buffer_(batch_bytes) {}

    LiveExport run();

  private:
    Status attempt();
    Status tell_clocks();
    Status take_members();
    Status look(std::vector<KernelState>& kernel_states, std::vector<OwnMappings>& maps);
    Status look_quiet(std::vector<KernelState>& kernel_states, std::vector<OwnMappings>& maps);
    Status skeleton();
    Status take_skeleton(TreeDump& dump);
    Status become_quiet();
    void wait_until_closed() const;
    Status check_skeleton();
    Status send_ghost();
    Error since_skeleton(const Error& refused);
    Error as_of_now(const Error& error) const;
    Status send_first_pages(GhostWriter& writer, LiveMember& member);
    Status round(LiveMessageType end);
    Status send_round(LiveMember& member);
    Result<OwnMappings> mappings_now(const LiveMember& member, bool last);
    Status send_mappings(const LiveMember& member, const OwnMappings& maps);
    Status send_runs(LiveMessageType type, const LiveMember& member, const PageRuns& runs);
    Status send_copies(LiveMember& member, const OwnMappings& maps);
    Status send_pages(LiveMember& member, const PageRuns& pages);
    Status converge();
    Status last_stop();
    Status frozen(PtraceSession& session, int64_t begin);
    Status send_placement(const PtraceSession& session);
    Status send_state(PtraceSession& session);
    Status send_last(LiveMember& member, int64_t& mark);
    PageRuns name_deferred(LiveMember& member, const OwnMappings& maps, const PageRuns& pages);
    Status serve_deferred();
    Status serve_page(const LiveLink::Message& wanted);
    Status hand_over(PtraceSession& session, int64_t begin);
    Status commit(PtraceSession& session, int64_t begin);
    void keep_stopped(PtraceSession& session);
    LiveMember* member_of(pid_t pid);

    const LiveExportRequest& request_;
    LiveLink link_;
    std::vector<char> buffer_;
    std::vector<LiveMember> members_;
    SkeletonFiles files_;
    SkeletonFacts facts_;  // as of the skeleton
    TreePlacement here_;   // as of the last stop
    StoppingRule rule_;
    LiveExport out_;
    uint64_t round_bytes_ = 0;
    bool told_ = false;          // the target has heard of this attempt
    bool rest_follows_ = false;  // after the last stop
    bool transient_ = false;     // the failure may be gone in a moment; the target holds on
};

LiveMember* Source::member_of(pid_t pid) {
    for (auto& member : members_)
        if (member.pid == pid) return &member;
    return nullptr;
}

Status Source::tell_clocks() {
    const auto offsets = tree_offsets(request_.root);
    for (int i = 0; i < clock_samples; i++) {
        auto asked = link_.expect(LiveMessageType::ask_clock);
        if (!asked) return asked.error();
        ClockSample now{now_ns(CLOCK_MONOTONIC) + offsets.monotonic_ns,
                        now_ns(CLOCK_BOOTTIME) + offsets.boottime_ns};
        // and whether pages may follow
        GHOST_TRY(link_.send(LiveMessageType::clock, 0, 1,
                             request_.order == PageOrder::pre_copy ? 0 : 1, {{&now, sizeof now}}));
    }
    return {};
}

// The processes of the tree, and their writes tracked.
Status Source::take_members() {
    auto tasks = list_tree(request_.root);
    if (!tasks) return tasks.error();
    std::vector<LiveMember> fresh;
    for (const auto& task : *tasks) {
        LiveMember member;
        member.pid = task.pid;
        member.inner = task.inner;
        if (auto* old = member_of(task.pid); old != nullptr && old->tracker->is_current()) {
            member.tracker = std::move(old->tracker);
            member.huge = std::move(old->huge);
        }
        if (!member.tracker) {
            if (auto huge = huge_memory(task.pid)) member.huge = std::move(*huge);
            if (const auto wish = request_.huge.find(task.inner); wish != request_.huge.end())
                member.huge = unite(member.huge, wish->second);
            const int64_t begin = monotonic_us();
            auto tracker = Tracker::attach(task.pid);
            if (!tracker && is_ending(task.pid)) return others_now();
            if (!tracker) return tracker.error();
            member.tracker.emplace(std::move(*tracker));
            out_.stats.attach_stop = std::max(out_.stats.attach_stop, monotonic_us() - begin);
        }
        fresh.push_back(std::move(member));
        if (request_.gets_on) request_.gets_on();
    }
    members_ = std::move(fresh);
    return {};
}

Status Source::look(std::vector<KernelState>& kernel_states, std::vector<OwnMappings>& maps) {
    kernel_states.clear();
    maps.clear();
    Descriptions descriptions;
    for (const auto& member : members_) {
        auto kernel_state = kernel_state_of(member.pid, request_.externals, descriptions);
        if (!kernel_state) return kernel_state.error();
        auto mappings = own_mappings(member.pid);
        if (!mappings) return mappings.error();
        if (!mappings->shared.empty())
            return because(Code::unsupported, "memory is shared without a file", mappings->shared);
        kernel_states.push_back(std::move(*kernel_state));
        maps.push_back(std::move(*mappings));
    }
    return {};
}

Status Source::look_quiet(std::vector<KernelState>& kernel_states, std::vector<OwnMappings>& maps) {
    for (int i = 0;; i++) {
        auto status = look(kernel_states, maps);
        if (status.ok() || status.error().code != Code::busy || i == quiet_tries) return status;
        usleep(quiet_us);
    }
}

// The early skeleton. What /proc shows has to be the same before and after it.
Status Source::skeleton() {
    DumpRequest what;
    what.root = request_.root;
    what.externals = request_.externals;
    what.criu = request_.criu;
    what.short_stop = true;
    what.leave_running = true;
    what.on_stopped = [this] { return facts_.stopped(); };
    what.gets_on = request_.gets_on;
    // Before criu reads the mappings: both want the process's lock on them.
    GHOST_TRY(take_members());
    GHOST_TRY(facts_.look(request_.root, Ghosts::move));
    auto dump = TreeDump::prepare(what);
    if (!dump) return dump.error();
    GHOST_TRY(become_quiet());
    {
        // Nobody is to wait for a processor in what others wait for.
        std::optional<RealtimePriority> urgent;
        if (request_.quiet) urgent.emplace();
        GHOST_TRY(take_skeleton(*dump));
    }
    if (request_.go_on) request_.go_on();
    at_point("source: skeleton");
    return {};
}

// Rounds go on meanwhile, so that little is left.
Status Source::become_quiet() {
    while (request_.quiet) {
        auto quiet = request_.quiet(quiet_round_us);
        if (!quiet) return quiet.error();
        if (*quiet) {
            wait_until_closed();
            return {};
        }
        if (told_) GHOST_TRY(round(LiveMessageType::sync));
    }
    return {};
}

// Who hangs up and then closes is heard before the descriptor has gone; and would not get to it
// while we run at a higher priority. What is still there later is the program's own.
void Source::wait_until_closed() const {
    const auto open = [](const LiveMember& member) { return has_sockets(member.pid); };
    for (int i = 0; i < closing_looks && std::ranges::any_of(members_, open); i++)
        usleep(closing_look_us);
}

Status Source::take_skeleton(TreeDump& dump) {
    std::vector<KernelState> before, after;
    std::vector<OwnMappings> maps_before, maps_after;
    GHOST_TRY(look_quiet(before, maps_before));
    auto result = dump.run(files_);
    if (!result) return result.error();
    out_.stats.skeleton_stop = std::max(out_.stats.skeleton_stop, result->times.frozen);
    GHOST_TRY(look_quiet(after, maps_after));
    for (size_t i = 0; i < members_.size(); i++) {
        auto& member = members_[i];
        for (const auto& [then, now] : {std::pair(before[i].fixed, after[i].fixed),
                                        std::pair(maps_before[i].others, maps_after[i].others)})
            if (then != now)
                return because(Code::busy, "it changes while its skeleton is taken: " +
                                               first_difference(then, now));
        member.kernel_state = std::move(after[i]);
        member.other_maps = std::move(maps_after[i].others);
        for (auto& pages : result->pages)
            if (pages.pid == member.pid) member.ranges = as_set(std::move(pages.ranges));
    }
    return check_skeleton();
}

// Why the target cannot make it: it may be that it has changed, and removed what it had. Of a tree
// that was quiet only for its skeleton the target has been asked before; and it may have something
// of the same name again.
Error Source::since_skeleton(const Error& refused) {
    std::vector<KernelState> now;
    std::vector<OwnMappings> maps;
    if (refused.code != Code::refused) return refused;
    if (request_.quiet) return because(Code::busy, refused.why);
    if (!look_quiet(now, maps).ok()) return refused;
    for (size_t i = 0; i < members_.size(); i++) {
        const auto &then = members_[i].kernel_state.fixed, &others = members_[i].other_maps;
        if (then == now[i].fixed && others == maps[i].others) continue;
        return because(Code::busy, "it has changed since its skeleton: " +
                                       first_difference(then, now[i].fixed) +
                                       first_difference(others, maps[i].others));
    }
    return refused;
}

Status Source::check_skeleton() {
    for (const auto& [name, content] : files_) {
        if (!name.starts_with("core-")) continue;
        auto timer = has_interval_timer(content);
        if (!timer) return timer.error();
        if (*timer) return because(Code::unsupported, "it has a timer (setitimer)", name);
    }
    return {};
}

// Everything that is there now and has its place in the skeleton; the rest comes with the rounds.
Status Source::send_first_pages(GhostWriter& writer, LiveMember& member) {
    PageChanges changes;
    GHOST_TRY(member.tracker->round(changes));
    auto scan = PageScan::open(member.pid);
    if (!scan) return scan.error();
    PageChanges all;
    GHOST_TRY(look_at_all(member.pid, *scan, all));
    const auto there = as_set(std::move(all.written));
    const auto first =
        request_.order == PageOrder::post_copy ? PageRuns() : intersect(there, member.ranges);
    member.again = subtract(there, first);
    std::vector<PageRun> runs, kept;
    for (std::pair<size_t, uint64_t> at; next_batch(first, at, runs);) {
        GHOST_TRY(read_batch(member.pid, runs, buffer_));
        std::vector<iovec> contents;
        kept.clear();
        char* from = buffer_.data();
        for (const auto& run : runs)
            for (uint64_t page = 0; page < run.bytes; page += 4096, from += 4096) {
                if (is_zero_page(from, 4096)) continue;
                if (!kept.empty() && kept.back().end() == run.start + page) {
                    kept.back().bytes += 4096;
                    contents.back().iov_len += 4096;
                } else {
                    kept.push_back({run.start + page, 4096});
                    contents.push_back({from, 4096});
                }
            }
        // a run's entry for every second page would be more than a chunk takes
        for (size_t done = 0; done < kept.size();) {
            const size_t part = std::min<size_t>(kept.size() - done, 2048);
            const auto begin = static_cast<std::ptrdiff_t>(done),
                       end = static_cast<std::ptrdiff_t>(done + part);
            GHOST_TRY(writer.pages(member.inner, {kept.begin() + begin, kept.begin() + end},
                                   {contents.begin() + begin, contents.begin() + end}));
            done += part;
        }
        round_bytes_ += bytes_of(runs);
        if (request_.progress) request_.progress(round_bytes_, bytes_of(first));
    }
    member.known = there;
    return {};
}

Status Source::send_ghost() {
    told_ = true;
    GhostPart part(link_);
    GhostWriter writer(part);
    const auto facts = facts_.by(files_);
    auto metadata = request_.metadata;
    if (request_.final_metadata) metadata.update(request_.final_metadata());
    put_needs(facts.needs, metadata);
    GHOST_TRY(
        writer.head(facts.host(), metadata.dump(-1, ' ', false, Json::error_handler_t::replace)));
    int number = 0;
    for (const auto& [name, content] : files_)
        GHOST_TRY(writer.skeleton_file(number++, name, content));
    HugeMemory huge;
    for (const auto& member : members_)
        if (!member.huge.empty()) huge[member.inner] = member.huge;
    if (!huge.empty()) GHOST_TRY(writer.skeleton_file(number, huge_memory_file, encode(huge)));
    uint64_t total = 0;
    for (const auto& member : members_) total += bytes_of(member.ranges);
    GHOST_TRY(writer.skeleton_end(total));
    const int64_t begin = monotonic_us();
    round_bytes_ = 0;
    // The init is restored last; its pages have no place before.
    for (auto member = members_.rbegin(); member != members_.rend(); ++member)
        GHOST_TRY(send_first_pages(writer, *member));
    GHOST_TRY(writer.end());
    GHOST_TRY(part.finalize());
    out_.stats.bytes += round_bytes_;
    rule_.after_round(round_bytes_, monotonic_us() - begin);
    return {};
}

Status Source::send_mappings(const LiveMember& member, const OwnMappings& maps) {
    return link_.send(
        LiveMessageType::mappings, member.inner, maps.list.size(), maps.heap_end,
        {{const_cast<OwnMapping*>(maps.list.data()), maps.list.size() * sizeof(OwnMapping)}});
}

Status Source::send_runs(LiveMessageType type, const LiveMember& member, const PageRuns& runs) {
    if (runs.empty()) return {};
    return link_.send(type, member.inner, runs.size(), 0,
                      {{const_cast<PageRun*>(runs.data()), runs.size() * sizeof(PageRun)}});
}

Status Source::send_copies(LiveMember& member, const OwnMappings& maps) {
    return own_copies(member.pid, maps, buffer_, member.copies, [&](PageRuns& runs, size_t bytes) {
        round_bytes_ += bytes;
        return link_.send(LiveMessageType::pages, member.inner, runs.size(), 0,
                          {{runs.data(), runs.size() * sizeof(PageRun)}, {buffer_.data(), bytes}});
    });
}

Status Source::send_pages(LiveMember& member, const PageRuns& pages) {
    std::vector<PageRun> runs;
    for (std::pair<size_t, uint64_t> at; next_batch(pages, at, runs);) {
        GHOST_TRY(read_batch(member.pid, runs, buffer_));
        const uint64_t bytes = bytes_of(runs);
        GHOST_TRY(
            link_.send(LiveMessageType::pages, member.inner, runs.size(), 0,
                       {{runs.data(), runs.size() * sizeof(PageRun)}, {buffer_.data(), bytes}}));
        round_bytes_ += bytes;
        if (request_.gets_on) request_.gets_on();
    }
    return {};
}

// busy: mappings of files, which differences do not carry, are not what they were.
Result<OwnMappings> Source::mappings_now(const LiveMember& member, bool last) {
    auto maps = own_mappings(member.pid);
    const bool may_differ = !last && request_.quiet;
    if (maps && !may_differ && maps->others != member.other_maps)
        return because(Code::busy, "mappings of files have changed: " +
                                       first_difference(member.other_maps, maps->others));
    return maps;
}

// Mappings first: pages of new ones have a place then, mostly.
Status Source::send_round(LiveMember& member) {
    auto maps = mappings_now(member, false);
    if (!maps) return maps.error();
    GHOST_TRY(send_mappings(member, *maps));
    PageChanges changes;
    GHOST_TRY(member.tracker->round(changes));
    GHOST_TRY(send_copies(member, *maps));
    const auto pages =
        subtract(unite(as_set(std::move(changes.written)), std::exchange(member.again, {})),
                 copies_in(*maps));
    member.known = unite(member.known, pages);
    GHOST_TRY(send_runs(LiveMessageType::zero, member, as_set(std::move(changes.zero))));
    return send_pages(member, pages);
}

Status Source::round(LiveMessageType end) {
    round_bytes_ = 0;
    GHOST_TRY(fault::pass(fault::Point::pages_sent_round, [this] { link_.interrupt(); }));
    for (auto& member : members_) GHOST_TRY(send_round(member));
    GHOST_TRY(link_.send(end));
    auto answer = link_.expect(LiveMessageType::synced);
    if (!answer) return answer.error();
    auto failed = answer->list<FailedRun>();
    if (!failed) return failed.error();
    for (const auto& one : *failed)
        for (auto& member : members_)
            if (member.inner == one.inner) send_again(member, one.run);
    for (auto& member : members_) make_set(member.again);
    out_.stats.rounds++;
    out_.stats.bytes += round_bytes_;
    if (request_.progress) request_.progress(out_.stats.bytes, out_.stats.bytes);
    return {};
}

Status Source::converge() {
    // One bad spell of a busy machine is not the process's.
    for (int hopeless = 0;;) {
        const int64_t begin = monotonic_us();
        GHOST_TRY(round(LiveMessageType::sync));
        const auto verdict = rule_.after_round(round_bytes_, monotonic_us() - begin);
        if (verdict == StoppingRule::Verdict::good) return {};
        if (verdict == StoppingRule::Verdict::go_on) continue;
        if (rule_.estimated_downtime_us() <= request_.longest_us) return {};
        if (++hopeless < 3) continue;
        rest_follows_ = request_.order == PageOrder::hybrid;
        if (rest_follows_) return {};
        return because(
            Code::refused,
            fmt::format(
                "it writes faster than can be copied: {:.0f} MB/s; it would be frozen for {} ms",
                rule_.dirty_rate() / 1e6, rule_.estimated_downtime_us() / 1000));
    }
}

// How they are scheduled, where that has changed since the skeleton, and for how long they sleep.
Status Source::send_placement(const PtraceSession& session) {
    std::map<pid_t, int> numbers;
    here_.threads.clear();
    for (const auto& process : session.processes()) {
        add_placements(process.pid, process.stopped, here_.threads);
        for (const auto& thread : process.threads) numbers[thread.tid] = thread.inner;
    }
    complete(numbers, here_.threads);
    for (const auto& [pid, pages] : session.add_waits(here_.threads)) {
        auto& at_once = member_of(pid)->used_at_once;
        at_once = unite(at_once, pages);
    }
    const auto text = encode(here_);
    for (const auto& [name, content] : files_)
        if (name == placement_file && content == text) return {};
    return link_.send_text(LiveMessageType::placement, text);
}

// Its threads as they go on at the target, and the files.
Status Source::send_state(PtraceSession& session) {
    for (const auto& process : session.processes()) {
        std::vector<ThreadState> threads;
        for (const auto& thread : process.threads) {
            auto signal = session.has_signal(thread);
            if (!signal) return signal.error();
            if (*signal) {
                transient_ = true;
                return because(Code::busy, "a signal is pending",
                               "process " + std::to_string(thread.tid));
            }
            auto state = session.state(thread);
            if (!state) return state.error();
            threads.push_back(std::move(*state));
        }
        auto* member = member_of(process.pid);
        auto packed = pack(threads);
        auto& files = member->kernel_state.files;
        GHOST_TRY(link_.send(
            LiveMessageType::state, member->inner, threads.size(), files.size(),
            {{packed.data(), packed.size()}, {files.data(), files.size() * sizeof(OpenFile)}}));
    }
    return {};
}

Status Source::send_last(LiveMember& member, int64_t& mark) {
    const auto lap = [&mark](int64_t& part) {
        const int64_t now = monotonic_us();
        part += now - std::exchange(mark, now);
    };
    auto& stats = out_.stats;
    auto maps = mappings_now(member, true);
    if (!maps) return maps.error();
    GHOST_TRY(send_mappings(member, *maps));
    lap(stats.mappings);
    PageChanges changes;
    auto scan = PageScan::open(member.pid);
    if (!scan) return scan.error();
    auto parts = member.tracker->slices(*scan, member.known, changes.gone);
    if (!parts) return parts.error();
    for (const auto& part : *parts) GHOST_TRY(Tracker::look(*scan, part, changes));
    GHOST_TRY(send_copies(member, *maps));
    lap(stats.scan);
    auto pages = unite(as_set(std::move(changes.written)), member.again);
    pages = intersect(pages, maps->areas());  // the rest would have no place
    member.known = unite(member.known, pages);
    auto zero = as_set(std::move(changes.zero));
    zero = unite(zero, as_set(std::move(changes.gone)));
    if (rest_follows_) pages = subtract(pages, name_deferred(member, *maps, pages));
    GHOST_TRY(send_runs(LiveMessageType::zero, member, subtract(zero, member.deferred)));
    GHOST_TRY(send_runs(LiveMessageType::missing, member, member.deferred));
    GHOST_TRY(send_pages(member, pages));
    lap(stats.send);
    return {};
}

// What of the pages is to follow: all but the main thread's stack, which is used at once.
PageRuns Source::name_deferred(LiveMember& member, const OwnMappings& maps, const PageRuns& pages) {
    PageRuns memory;
    for (const auto& map : maps.list)
        if (map.kind == own_memory) memory.push_back({map.start, map.end - map.start});
    make_set(memory);
    auto deferred = intersect(pages, memory);
    if (request_.order == PageOrder::hybrid && bytes_of(deferred) < deferred_worth)
        deferred.clear();
    deferred = intersect(in_pieces(std::move(deferred), deferred_pieces), memory);
    member.deferred = subtract(deferred, member.used_at_once);
    out_.stats.deferred_bytes += bytes_of(member.deferred);
    return member.deferred;
}

// Everything is frozen. Sends what is left, and gets the target's type.
Status Source::frozen(PtraceSession& session, int64_t begin) {
    auto& stats = out_.stats;
    stats.freeze = stats.state = stats.mappings = stats.files = stats.scan = stats.send = 0;
    int64_t mark = monotonic_us();
    stats.freeze = mark - begin;
    const auto lap = [&mark](int64_t& part) {
        const int64_t now = monotonic_us();
        part += now - std::exchange(mark, now);
    };
    at_point("source: frozen");
    if (session.processes().size() != members_.size()) return others_now();
    for (const auto& process : session.processes()) {
        auto* member = member_of(process.pid);
        if (member == nullptr) return others_now();
        const auto area = restartable_area(process.threads.front().tid);
        const uint64_t first = area.start / 4096 * 4096, end = area.start + area.bytes;
        member->used_at_once.clear();
        if (area.bytes > 0) member->used_at_once = {{first, (end - first + 4095) / 4096 * 4096}};
    }
    Descriptions descriptions;
    for (auto& member : members_) {
        auto kernel_state = kernel_state_of(member.pid, request_.externals, descriptions);
        if (!kernel_state) {
            transient_ = kernel_state.error().code == Code::busy;
            return kernel_state.error();
        }
        if (kernel_state->fixed != member.kernel_state.fixed)
            return because(Code::busy,
                           "it has changed since its skeleton: " +
                               first_difference(member.kernel_state.fixed, kernel_state->fixed));
        member.kernel_state.files = std::move(kernel_state->files);
    }
    lap(stats.files);
    GHOST_TRY(fault::pass(fault::Point::pages_sent_last, [this] { link_.interrupt(); }));
    GHOST_TRY(link_.send(LiveMessageType::last));
    round_bytes_ = stats.deferred_bytes = 0;
    for (auto& member : members_) member.deferred.clear();
    GHOST_TRY(send_placement(session));
    if (request_.final_metadata)
        GHOST_TRY(link_.send_text(
            LiveMessageType::metadata,
            request_.final_metadata().dump(-1, ' ', false, Json::error_handler_t::replace)));
    GHOST_TRY(send_state(session));
    lap(stats.state);
    for (auto& member : members_) GHOST_TRY(send_last(member, mark));
    GHOST_TRY(link_.send(LiveMessageType::settled));
    stats.last_bytes = round_bytes_;
    stats.bytes += round_bytes_;
    at_point("source: all sent");
    auto ready = link_.expect(LiveMessageType::ready);
    if (!ready) return ready.error();
    lap(stats.ready);
    return request_.leave_stopped ? hand_over(session, begin) : commit(session, begin);
}

// Whoever decides finds both trees stopped.
Status Source::hand_over(PtraceSession& session, int64_t begin) {
    keep_stopped(session);
    out_.outcome = LiveOutcome::exported;
    out_.stats.stop = monotonic_us() - begin;
    at_point("source: exported");
    return {};
}

Status Source::commit(PtraceSession& session, int64_t begin) {
    auto& stats = out_.stats;
    int64_t mark = monotonic_us();
    at_point("source: ready");
    if (request_.commit) GHOST_TRY(request_.commit());
    // From here on the death of this process must not let two of them run.
    GHOST_TRY(session.end_with_us());
    auto sent = link_.send(LiveMessageType::commit);
    stats.commit = monotonic_us() - mark;
    mark = monotonic_us();
    at_point("source: committed");
    if (!sent.ok()) {
        keep_stopped(session);
        return sent.error();
    }
    auto answer = link_.receive();
    if (answer && answer->type() == LiveMessageType::refused)
        return because(Code::refused, "the target does not go on: " + answer->payload);
    if (!answer || answer->type() != LiveMessageType::released) {
        keep_stopped(session);
        return answer ? answer->damaged() : answer.error();
    }
    stats.release = monotonic_us() - mark;
    stats.stop = monotonic_us() - begin;
    out_.outcome = LiveOutcome::moved;
    if (auto times = answer->list<ReleaseTimes>(); times && times->size() == 1) {
        stats.target_mappings = times->front().mappings;
        stats.target_pages = times->front().pages;
        stats.target_state = times->front().state;
        stats.target_release = times->front().release;
    }
    if (stats.deferred_bytes > 0) {
        // Without its pages the copy is nothing: they have to outlive this process.
        keep_stopped(session);
        out_.outcome = LiveOutcome::stranded;
        return {};
    }
    at_point("source: moved");
    session.kill_tree();
    return {};
}

Status Source::serve_page(const LiveLink::Message& wanted) {
    auto runs = wanted.list<PageRun>();
    if (!runs) return runs.error();
    for (auto& member : members_) {
        if (member.inner != wanted.head.inner_pid) continue;
        if (runs->size() != 1 || runs->front().bytes > batch_bytes ||
            bytes_of(intersect(*runs, member.deferred)) != runs->front().bytes)
            return wanted.damaged();
        const PagePiece piece{runs->front().start, runs->front().bytes, buffer_.data()};
        GHOST_TRY(read_pages(member.pid, {&piece, 1}, Vanished::is_error));
        out_.stats.served_bytes += piece.bytes;
        return link_.send(LiveMessageType::deferred, member.inner, 1, 0,
                          {{runs->data(), sizeof(PageRun)}, {buffer_.data(), bytes_of(*runs)}});
    }
    return wanted.damaged();
}

// The copy runs; the original is frozen, and has the pages.
Status Source::serve_deferred() {
    const RealtimePriority urgent;  // somebody waits for a page
    const int64_t begin = monotonic_us();
    at_point("source: pages follow");
    for (;;) {
        auto message = link_.receive();
        if (!message) return message.error();
        if (message->type() == LiveMessageType::want) {
            GHOST_TRY(serve_page(*message));
        } else if (message->type() == LiveMessageType::complete) {
            auto said = message->list<DeferredStats>();
            if (!said || said->size() != 1) return message->damaged();
            out_.stats.faults = said->front().faults;
            out_.stats.demand_bytes = said->front().demand_bytes;
            out_.stats.longest_fault = said->front().longest_us;
            out_.stats.deferred = monotonic_us() - begin;
            out_.stats.bytes += out_.stats.deferred_bytes;
            out_.outcome = LiveOutcome::moved;
            at_point("source: moved");
            return kill_tree(request_.root);
        } else if (message->type() == LiveMessageType::refused) {
            return because(Code::peer_lost, "the target has ended the tree: " + message->payload);
        } else {
            return message->damaged();
        }
    }
}

// Nobody knows whether the target goes on: the original is frozen until somebody does.
void Source::keep_stopped(PtraceSession& session) {
    out_.outcome = LiveOutcome::undecided;
    if (auto noted = note_placements(request_.root, here_.threads); !noted.ok())
        log::debug("live: {}", noted.error().message());
    session.leave_stopped();
}

Status Source::last_stop() {
    const RealtimePriority urgent;
    for (int i = 0;; i++) {
        transient_ = false;
        here_ = placement_here();
        here_.settings = settings_of(request_.root);
        const auto numbers = PtraceSession::numbers(request_.root);
        const int64_t begin = monotonic_us();
        Status status;
        {
            auto session = PtraceSession::take(request_.root, numbers, hold_limit_us);
            status = session ? frozen(*session, begin) : session.error();
            if (!session && status.error().code == Code::timeout) transient_ = true;
        }
        if (status.ok() || !transient_ || i == freezes) return status;
        log::debug("live: {}; once more", status.error().message());
        GHOST_TRY(round(LiveMessageType::sync));  // what was sent of that stop is as good as one
    }
}

Status Source::attempt() {
    out_.stats.attempts++;
    rule_ = StoppingRule({request_.downtime_us, 30, 3});
    files_.clear();
    told_ = false;
    GHOST_TRY(skeleton());
    GHOST_TRY(send_ghost());
    at_point("source: sent");
    auto held = link_.expect(LiveMessageType::held);
    if (!held) return since_skeleton(held.error());
    at_point("source: held");
    rest_follows_ = request_.order == PageOrder::post_copy;
    if (!rest_follows_) GHOST_TRY(converge());
    at_point("source: converged");
    GHOST_TRY(become_quiet());
    GHOST_TRY(last_stop());
    return out_.outcome == LiveOutcome::stranded ? serve_deferred() : Status();
}

// Of a process that has ended meanwhile nothing can be read: that is a tree that has changed.
Error Source::as_of_now(const Error& error) const {
    const bool ended = std::ranges::any_of(
        members_, [](const LiveMember& member) { return is_ending(member.pid); });
    return ended ? others_now() : error;
}

LiveExport Source::run() {
    const int64_t begin = monotonic_us();
    auto status = tell_clocks();
    while (status.ok()) {
        status = attempt();
        if (status.ok() || out_.outcome != LiveOutcome::stayed) break;
        status = as_of_now(status.error());
        if (status.error().code != Code::busy || out_.stats.attempts >= request_.attempts) {
            link_.send_text(LiveMessageType::give_up, status.error().message()).ok();
            break;
        }
        log::info("live: {}; anew", status.error().message());
        // A target that has heard of no skeleton yet still waits for the first.
        status = told_ ? link_.send(LiveMessageType::anew) : Status();
    }
    out_.stats.total = monotonic_us() - begin;
    if (!status.ok()) out_.error = status.error();
    if (out_.outcome == LiveOutcome::exported)
        out_.tracking = std::make_shared<TreeTracking>(std::move(members_));
    else if (out_.outcome != LiveOutcome::moved)
        stay(members_);
    return std::move(out_);
}

}  // namespace

Status check_live_here(const CriuSettings& criu) {
    if (knows_short_stop(criu)) return Tracker::check_here();
    return make_error(Code::unsupported, "move live", criu.program,
                      "criu was built without our changes");
}

LiveExport live_export(const LiveExportRequest& request, Resource& link) {
    const Status able = check_live_here(request.criu);
    if (able) return Source(request, link).run();
    return {LiveOutcome::stayed, {}, able.error(), {}};
}

}  // namespace ghost::core
