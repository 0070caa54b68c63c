// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/coordinator/operations/mend.hpp"

#include <fmt/format.h>
#include <utility>

#include "base/file.hpp"
#include "pmix-plugin/coordinator/operations/snapshot_history.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {
namespace {

using S = MendState;

// The newest one, if it has copies or parity.
KeptSnapshot* with_copies(const Job& job) {
    auto& kept = job.snapshots.kept();
    if (kept.empty() || !kept.front().own || !kept.front().run->outlives_nodes()) return nullptr;
    return &kept.front();
}

}  // namespace

void MendOperation::begin() {
    data_.started = job_.settings.now();
    take_number();
    look();
}

void MendOperation::look() {
    const KeptSnapshot* one = with_copies(job_);
    if (one == nullptr || !job_.adapter.job_running()) return finish(S::done);
    data_.path = one->path();
    if (one->run->xor_of > 0) {
        parity_ = plan_parity(job_, *one, seq());
        return parity_.streams.empty() ? finish(S::done) : order_copies();
    }
    const auto ring = partners(job_);
    for (const auto& [rank, holders] : one->holders) {
        std::vector<NodeId> live;
        for (const NodeId node : holders)
            if (job_.liveness.alive(node)) live.push_back(node);
        const auto files = one->run->files.find(rank);
        if (live.size() != 1 || files == one->run->files.end()) continue;
        if (const auto next = ring.find(live.front()); next != ring.end())
            copies_.push_back({rank, live.front(), next->second, files->second});
    }
    copies_.empty() ? finish(S::done) : order_copies();
}

void MendOperation::order_copies() {
    const KeptSnapshot* one = with_copies(job_);
    const auto nodes = job_.liveness.live_nodes();
    missing_ = {nodes.begin(), nodes.end()};
    if (change(S::copying))
        job_.adapter.tell_all(MakeCopies{seq(),
                                         one->folder,
                                         one->run->name,
                                         job_.policy.copy_rate,
                                         copies_,
                                         {},
                                         parity_.streams});
}

void MendOperation::message(NodeId from, const schema::Received& m) {
    if (m.is<CopiesMade>()) return copies_made(from, m.as<CopiesMade>());
    if (!m.is<CopiesProgress>()) return;
    wait_on();
    data_.bytes = m.as<CopiesProgress>().bytes;
    data_.total = m.as<CopiesProgress>().total;
}

void MendOperation::copies_made(NodeId from, const CopiesMade& m) {
    if (data_.state != S::copying) return;
    if (!m.why.empty())
        return finish(S::failed, fmt::format("{}: {}", job_.liveness.name_of(from), m.why));
    missing_.erase(from);
    if (!missing_.empty()) return;
    if (KeptSnapshot* one = job_.snapshots.find(data_.path)) {
        for (const GhostCopy& copy : copies_) one->holders[copy.rank].insert(copy.to);
        for (const auto& [rank, node] : parity_.rebuilt) one->holders[rank].insert(node);
        if (!parity_.sets.empty()) one->parity = parity_.sets;
        if (one->run->sign.empty()) note_in_manifest();
    }
    // What has been made of parity has none yet.
    if (parity_.rebuilt.empty()) return finish(S::done);
    take_number();
    if (change(S::looking)) look();
}

// Of one that is signed nothing can be changed.
void MendOperation::note_in_manifest() const {
    std::map<RankId, std::string> where;
    for (const GhostCopy& copy : copies_) where[copy.rank] = job_.liveness.name_of(copy.to);
    for (const auto& [rank, node] : parity_.rebuilt) where[rank] = job_.liveness.name_of(node);
    job_.background.run([path = data_.path, where = std::move(where), sets = parity_.sets] {
        auto manifest = read_manifest(path);
        if (!manifest) return log::warning("{}", manifest.error().message());
        for (auto& rank : manifest->ranks)
            if (const auto copy = where.find(rank.rank); copy != where.end())
                rank.copy = copy->second;
        if (!sets.empty()) manifest->parity = {sets};
        const std::string text =
            manifest_json(std::move(*manifest)).dump(1, ' ', false, Json::error_handler_t::replace);
        if (Status done = write_file(path + "/" + manifest_file, text + "\n", 0600); !done)
            log::warning("{}", done.error().message());
    });
}

void MendOperation::expired() {
    finish(S::failed, fmt::format("nothing was heard for {} s", limit_us() / 1'000'000));
}

// Another one follows.
void MendOperation::node_lost(NodeId node) {
    if (data_.state == S::copying)
        finish(S::failed, fmt::format("node {} is lost", job_.liveness.name_of(node)));
}

void MendOperation::stop(const std::string& why) {
    data_.why = why;
    hand_over();
}

void MendOperation::show(Json& ps) const {
    ps["mending"] = {{"snapshot", data_.path},
                     {"bytes", data_.bytes},
                     {"total", data_.total},
                     {"parity", !parity_.streams.empty()}};
}

void MendOperation::finish(S state, const std::string& why) {
    data_.why = why;
    if (!why.empty())
        log::warning("copies of snapshot {} that were lost could not be made again: {}", data_.path,
                     why);
    conclude(state);
    hand_over();
}

Request mend_request(Job& job) {
    Request request;
    request.scope = {false, {}, true};
    request.next = [&job, begun = false]() mutable -> Operations {
        if (std::exchange(begun, true)) return {};
        return one_operation(std::make_unique<MendOperation>(job));
    };
    return request;
}

}  // namespace ghost::plugin
