// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/copies.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>
#include <utility>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"

namespace ghost::plugin {
namespace {

constexpr NodeId coordinator = 0;
constexpr int64_t progress_us = 500'000;

// On the background thread. mpirun's node has it.
std::string keep_manifest(const std::string& folder, const std::string& name,
                          const std::string& text) {
    const auto keep = [&]() -> Status {
        GHOST_TRY(open_snapshot_folder(folder));
        GHOST_TRY(make_own_folder(folder + "/" + name));
        return write_file(folder + "/" + name + "/" + manifest_file, text, 0600);
    };
    if (!parse_snapshot_name(name)) return name + " is no snapshot's name";
    const Status kept = keep();
    return kept ? std::string() : kept.error().message();
}

}  // namespace

// --- processes ---

Result<Copies::Helper> Copies::start(const Said& said, std::function<void()> closed) {
    auto pid = std::make_shared<pid_t>(0);
    auto spawned =
        adapter_.spawn_helper({program_, "--copy", "--control-fd", "3"}, [pid](int) { *pid = 0; });
    if (!spawned) return spawned.error();
    *pid = spawned->pid;
    Helper helper;
    helper.pid = std::move(pid);
    auto reader = std::make_shared<schema::Reader>(from_copier, "a copier");
    helper.control = ControlConnection::open(
        adapter_, std::move(spawned->control),
        [reader, said](ControlMessage& m) {
            std::string complaint;
            if (const auto read = reader->read(m.text, complaint)) said(*read);
        },
        std::move(closed));
    return helper;
}

void Copies::end(Helper& helper) {
    if (!helper.control) return;
    if (*helper.pid > 0) ::kill(*helper.pid, SIGKILL);
    std::exchange(helper.control, nullptr)->close();
}

void Copies::stop() {
    stop_sending();
    for (auto& [node, one] : incoming_) end(one.helper);
    incoming_.clear();
}

void Copies::stop_sending() {
    under_way_ = false;
    for (auto& [node, one] : outgoing_) end(one.helper);
    outgoing_.clear();
    if (progress_timer_) adapter_.cancel(*std::exchange(progress_timer_, std::nullopt));
}

std::string Copies::proof() const {
    return fmt::format("{} {} copies", adapter_.secret(), adapter_.life());
}

// --- what is sent ---

void Copies::make(const MakeCopies& order) {
    if (order.seq < order_.seq) return log::info("late order for copies {} dropped", order.seq);
    // What another node has offered of this very order may be here before it.
    stop_sending();
    for (auto& [node, one] : incoming_)
        if (one.seq < order.seq) end(one.helper);
    std::erase_if(incoming_, [&](const auto& one) { return one.second.seq < order.seq; });
    order_ = order;
    under_way_ = true;
    for (const GhostCopy& copy : order.copies)
        if (copy.from == adapter_.self() && copy.to != copy.from)
            outgoing_[copy.to].files.push_back(copy.files);
    for (const XorStream& stream : order.streams)
        if (stream.from == adapter_.self()) outgoing_[stream.to].streams.push_back(stream);
    order_.copies.clear();
    order_.streams.clear();
    const std::string manifest = std::exchange(order_.manifest, {});
    if (manifest.empty() || adapter_.self() == coordinator) return offer();
    background_.run<std::string>([folder = order.folder, name = order.name,
                                  manifest] { return keep_manifest(folder, name, manifest); },
                                 [this, seq = order.seq](const std::string& why) {
                                     if (!under_way_ || order_.seq != seq) return;
                                     if (!why.empty()) return fail(why);
                                     offer();
                                 });
}

void Copies::offer() {
    for (const auto& [to, one] : outgoing_)
        adapter_.tell(to, CopyOffer{order_.seq, order_.folder, order_.name});
    finish_if_done();
}

// What is too long for one packet is said in several.
void Copies::say(ControlConnection& control, XorStream stream) {
    constexpr long most = 300;  // a file's name is short
    const auto all = std::exchange(stream.pieces, {});
    for (auto at = all.begin(); at != all.end();) {
        const auto end = at + std::min<long>(most, all.end() - at);
        stream.pieces.assign(at, end);
        control.tell(stream);
        at = end;
    }
}

void Copies::taken(NodeId by, const CopyTaken& answer) {
    const auto found = outgoing_.find(by);
    if (answer.seq != order_.seq || !under_way_ || found == outgoing_.end()) return;
    if (!answer.why.empty()) return fail(answer.why);
    Outgoing& one = found->second;
    if (one.helper.control) return;
    auto helper = start([this, by](const schema::Received& m) { sender_said(by, m); },
                        [this, by] {
                            if (!outgoing_[by].sent) fail("the process that sends copies has died");
                        });
    if (!helper) return fail(helper.error().message());
    one.helper = std::move(*helper);
    for (auto& files : one.files) one.helper.control->tell(CopyFiles{std::move(files)});
    one.files.clear();
    for (XorStream& stream : one.streams) say(*one.helper.control, std::move(stream));
    one.streams.clear();
    // What this node sends at once is one rate's.
    const uint64_t rate =
        order_.rate == 0 ? 0 : std::max<uint64_t>(1, order_.rate / outgoing_.size());
    one.helper.control->tell(
        CopySend{answer.host, answer.port, answer.token, proof(), order_.folder, rate});
}

void Copies::sender_said(NodeId to, const schema::Received& m) {
    Outgoing& one = outgoing_[to];
    if (m.is<CopyProgress>()) {
        one.bytes = m.as<CopyProgress>().bytes;
        one.total = m.as<CopyProgress>().total;
        return progressed();
    }
    if (!m.is<CopyDone>()) return;
    if (const std::string& why = m.as<CopyDone>().why; !why.empty()) return fail(why);
    one.sent = true;
    finish_if_done();
}

void Copies::progressed() {
    if (progress_timer_ || !under_way_) return;
    progress_timer_ = adapter_.after(progress_us, [this] {
        progress_timer_.reset();
        if (!under_way_) return;
        CopiesProgress all{order_.seq, 0, 0};
        for (const auto& [to, one] : outgoing_) {
            all.bytes += one.bytes;
            all.total += one.total;
        }
        adapter_.tell(coordinator, all);
    });
}

// Said once; the coordinator ends it everywhere.
void Copies::fail(const std::string& why) {
    if (!std::exchange(under_way_, false)) return;
    log::info("copies {}: {}", order_.seq, why);
    adapter_.tell(coordinator, CopiesMade{order_.seq, why});
}

void Copies::finish_if_done() {
    if (!under_way_) return;
    for (const auto& [to, one] : outgoing_)
        if (!one.sent) return;
    under_way_ = false;
    adapter_.tell(coordinator, CopiesMade{order_.seq, {}});
}

// --- what comes ---

void Copies::take(NodeId from, const CopyOffer& offer) {
    Incoming& one = incoming_[from];
    if (offer.seq < one.seq) return;
    end(one.helper);
    one = {};
    one.seq = offer.seq;
    auto helper = start([this, from](const schema::Received& m) { taker_said(from, m); },
                        [this, from, seq = offer.seq] {
                            refuse(from, seq, "the process that takes copies has died");
                        });
    if (!helper) return refuse(from, offer.seq, helper.error().message());
    one.helper = std::move(*helper);
    one.helper.control->tell(
        CopyTake{proof(), offer.folder, adapter_.parameter("btl_kernet_if_include").value_or("")});
}

void Copies::taker_said(NodeId from, const schema::Received& m) {
    Incoming& one = incoming_[from];
    if (m.is<CopyListens>()) {
        const auto& at = m.as<CopyListens>();
        one.told = true;
        std::string host = at.host;
        for (const NodeInfo& node : adapter_.nodes())
            if (node.id == adapter_.self() && host.empty()) host = node.name;
        return adapter_.tell(from, CopyTaken{one.seq, host, at.port, at.token, {}});
    }
    if (!m.is<CopyDone>()) return;
    const std::string& why = m.as<CopyDone>().why;
    if (!why.empty()) log::info("copies {} of node {}: {}", one.seq, from, why);
    if (!why.empty() && !one.told) refuse(from, one.seq, why);
    one.told = true;
}

// What the source hears otherwise it hears from its own end of the connection.
void Copies::refuse(NodeId from, uint64_t seq, const std::string& why) {
    Incoming& one = incoming_[from];
    if (one.seq != seq || std::exchange(one.told, true)) return;
    adapter_.tell(from, CopyTaken{seq, {}, 0, {}, why});
}

}  // namespace ghost::plugin
