// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/supervisor/departure.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/own_file.hpp"
#include "ghost-core/engine/node_memory.hpp"
#include "ghost-core/engine/preflight.hpp"

namespace ghost::core {
namespace {

constexpr int64_t turn_limit_us = 10'000'000;
constexpr useconds_t retry_us = 1000;

// Two exports of one tree would meet in it; the other one may be that of a killed command, which is
// still putting things in order. A byte of a file of this user's for each tree, by the number of
// its first process: a lock goes with the descriptor, and nobody else can have it.
Result<Fd> take_turn(pid_t root) {
    auto folder = private_folder();
    if (!folder) return folder.error();
    auto out = open_own_file(*folder + "/exports", O_RDWR | O_CREAT);
    if (!out) return out;
    const struct flock turn {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = root, .l_len = 1, .l_pid = 0
    };
    const int64_t limit = monotonic_us() + turn_limit_us;
    for (auto wanted = turn; ::fcntl(out->get(), F_OFD_SETLK, &wanted) != 0; wanted = turn) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR) return sys_error("take a turn");
        if (monotonic_us() > limit)
            return make_error(Code::busy, "export process", std::to_string(root),
                              "somebody else exports it");
        ::usleep(retry_us);
    }
    return out;
}

}  // namespace

Status check_exportable(const PlainTree& tree) {
    auto lines = why_not_exportable(tree);
    if (!lines) return lines.error();
    if (lines->empty()) return {};
    std::string all;
    for (const auto& line : *lines) all += (all.empty() ? "" : "; ") + line;
    return make_error(Code::refused, "take the process out of its system", {}, all);
}

Status check_importable_here(ExportRequest& request, const Resource& out) {
    if (out.class_id() == ResourceClass::network) return {};
    Looks looks(request.root, request.ghosts);
    std::vector<Shortcoming> lacking;
    do {
        GHOST_TRY(looks.look());
        auto needs = looks.lasting().needs;
        if (needs) needs->memory = 0, needs->removed.clear();  // which it gives back
        lacking = check_target(needs, looks.lasting().host());
    } while (!lacking.empty() && looks.may_look());
    if (!lacking.empty())
        return make_error(Code::refused, "make a ghost that could be imported on this node", {},
                          describe(lacking));
    request.facts = looks.latest();
    return {};
}

Status deal_with_original(const PlainTree& tree, Then then) {
    switch (then) {
        case Then::go_on:
            return resume_tree(tree.root);
        case Then::stop:
            halt_tree(tree.root);
            return {};
        case Then::kill:
            end_plain(tree);
            return {};
    }
    return {};
}

Result<Departure> Departure::begin(pid_t pid, const std::string& program) {
    auto tree = find_plain(pid);
    if (!tree) return tree.error();
    auto turn = take_turn(tree->root);
    if (!turn) return turn.error();
    GHOST_TRY(check_exportable(*tree));
    WorkFolder folder;
    GHOST_TRY(folder.make("plain"));
    CriuSettings criu{program, folder.path()};
    return Departure{std::move(*tree), std::move(*turn), std::move(folder), std::move(criu)};
}

Result<Guard> Departure::guard() const {
    return Guard::start({.duty = Guard::Duty::resume, .root = tree.root, .folder = folder.path()});
}

Result<ExportRequest> Departure::request(Ghosts ghosts) const {
    GHOST_TRY(warm_up_once(criu));
    return plain_export(tree, criu, ghosts);
}

namespace {

// What every way of leaving is told alike.
template <typename Request>
Request of_tree(const ExportRequest& request) {
    Request out;
    out.root = request.root;
    out.externals = request.externals;
    out.metadata = request.metadata;
    out.criu = request.criu;
    out.progress = request.progress;
    return out;
}

}  // namespace

CheckpointRequest checkpoint_request(const ExportRequest& request) {
    auto out = of_tree<CheckpointRequest>(request);
    out.defer_above_us = CheckpointRequest::worth_it_us;
    return out;
}

LiveExportRequest live_request(const ExportRequest& request, PageOrder order) {
    auto out = of_tree<LiveExportRequest>(request);
    out.order = order;
    return out;
}

uint64_t memory_of(const ExportRequest& request) {
    return request.facts && request.facts->needs ? request.facts->needs->memory : 0;
}

bool has_room(const ExportRequest& request) {
    return memory_available() > memory_of(request) * 5 / 4;
}

ExportStats export_stats(const CheckpointStats& made) {
    ExportStats out;
    out.skeleton_bytes = made.skeleton_bytes;
    out.page_bytes = made.page_bytes;
    out.zero_bytes = made.zero_bytes;
    out.frozen_us = made.pause_us;
    out.skeleton_us = made.skeleton_us;
    out.pages_us = made.copy_us + made.write_us;
    out.total_us = made.total_us;
    out.not_deferred = made.not_deferred;
    return out;
}

}  // namespace ghost::core
