// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/snapshot_job.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <sys/stat.h>
#include <thread>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/log.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/engine/node_memory.hpp"
#include "ghost-core/engine/tree_facts.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/resource/compress.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/sign.hpp"
#include "ghost-core/resource/tee.hpp"
#include "pmix-plugin/snapshots/manifest.hpp"
#include "pmix-plugin/wrapper/tree_parts.hpp"
#include "pmix-plugin/wrapper/file_list.hpp"

namespace ghost::plugin {
namespace {

// Beside the copy itself, for what is written on the way and to leave others some.
constexpr uint64_t spare_bytes = 64 << 20;
// What an incremental copy takes is known only afterwards: taken to be this part of the memory.
constexpr uint64_t incremental_part = 4;
// A message may not grow beyond any size; what is left out is in the ghost's metadata.
constexpr size_t most_file_bytes = 96 * 1024;
// Of files open for writing the ghost takes those along that are no larger than was asked for,
// which costs the rank that is frozen for it some hundredths of a millisecond each, or 1 ms/MiB.
constexpr uint64_t most_of_such = 16, most_hashed = 256;

core::ContentsLimit carried_files(uint64_t each) {
    each = std::min(each, most_carried);
    return {each, std::min(each * most_of_such, most_carried), most_hashed};
}

Error called_off() {
    return because(Code::refused, "the snapshot was called off");
}

// "zstd,level=3"
Result<std::unique_ptr<core::Resource>> compressed(const std::string& how,
                                                   std::unique_ptr<core::Resource> inner) {
    if (how.empty() || how == "none") return inner;
    const auto comma = how.find(',');
    const std::string name = how.substr(0, comma), option = ",level=";
    int level = 0;
    if (comma != std::string::npos && how.compare(comma, option.size(), option) == 0)
        level = std::atoi(how.c_str() + comma + option.size());
    if (name == "lz4")
        return core::CompressResource::writer(std::move(inner), core::Compression::lz4, level);
    if (name == "zstd")
        return core::CompressResource::writer(std::move(inner), core::Compression::zstd, level);
    return because(Code::invalid, "there is no such compression", how);
}

}  // namespace

std::vector<std::string> SnapshotOrder::paths() const {
    std::vector<std::string> out{path()};
    if (!second.empty()) out.push_back(second + "/" + file);
    return out;
}

std::vector<std::string> SnapshotOrder::parents() const {
    std::vector<std::string> out;
    for (const std::string& parent : chain) {
        out.push_back(folder + "/../" + parent);
        if (!second.empty()) out.push_back(second + "/../" + parent);
    }
    return out;
}

SnapshotJob::SnapshotJob(SnapshotOrder order, Tree tree, core::Checkpointer& checkpointer)
    : order_(std::move(order)), tree_(std::move(tree)), checkpointer_(checkpointer) {
    agent_ = order_.agent;
}

Failed SnapshotJob::failure(const Error& error) const {
    return tree_.who.failed(order_.seq, stage_, error.message());
}

Outgoing SnapshotJob::run(const Say& say, const Progress& progress) {
    say_ = &say;
    progress_ = &progress;
    Outgoing answer = take();
    const bool frozen_before = order_.stays() && captured_;
    if (told_to_freeze() && !woken_ && !frozen_before) wake();
    std::lock_guard lock(mutex_);
    paced_ = nullptr;
    out_.reset();
    return answer;
}

Outgoing SnapshotJob::take() {
    auto fine = check(false);
    if (!fine) return failure(fine.error());
    sharing_ = std::move(*fine);
    stage_ = Stage::prepare;
    if (Status fine = fault::pass(fault::Point::wrapper_snap_prepares); !fine)
        return failure(fine.error());
    if (auto opened = open(); !opened.ok()) return failure(opened.error());
    memory_ = core::memory_of_tree(tree_.root);
    incremental_ =
        order_.incremental && parents_are_there() && checkpointer_.may_be_incremental(tree_.root);
    const bool at_once = must_be_direct();
    if (at_once) incremental_ = false;
    return at_once ? direct() : copied();
}

// On a node's own disk nobody else can look for them.
bool SnapshotJob::parents_are_there() const {
    for (const std::string& path : order_.parents()) {
        if (::access(path.c_str(), F_OK) == 0) continue;
        log::info("snapshot {}: {} is gone, this is a full one", order_.name, path);
        return false;
    }
    return true;
}

Result<Sharing> SnapshotJob::check(bool sockets) const {
    return check_rank(tree_.root, tree_.who, tree_.externals, order_.shared, sockets);
}

Status SnapshotJob::open() {
    std::unique_ptr<core::Resource> place;
    for (const std::string& path : order_.paths()) {
        auto file = std::make_unique<core::FileResource>(path, core::Use::write);
        if (place)
            place = std::make_unique<core::TeeResource>(std::move(place), std::move(file),
                                                        core::Use::write);
        else
            place = std::move(file);
    }
    auto paced = std::make_unique<core::PacedResource>(std::move(place), order_.rate,
                                                       [this](uint64_t bytes) { in_file(bytes); });
    auto* const brake = paced.get();
    auto out = compressed(order_.compress, std::move(paced));
    GHOST_TRY(out);
    if (order_.key) *out = core::SignResource::writer(std::move(*out), order_.key);
    GHOST_TRY((*out)->init());
    std::lock_guard lock(mutex_);
    out_ = std::move(*out);
    paced_ = brake;
    return {};
}

// Without room for a second copy the tree is frozen until everything is on the disk.
bool SnapshotJob::must_be_direct() const {
    const uint64_t need = spare_bytes + (incremental_ ? memory_ / incremental_part : memory_);
    // What the checkpointer holds is among what is available: it has been offered.
    const uint64_t have =
        order_.memory != 0 ? order_.memory : core::memory_available() / order_.sharers;
    if (have < need)
        log::info("snapshot {}: {} bytes for a copy, {} are there: the rank is frozen meanwhile",
                  order_.name, need, have);
    return have < need;
}

Status SnapshotJob::wait_for_order(bool direct) {
    (*say_)(SnapReady{order_.seq, direct, memory_, kind(), sharing_.parts});
    {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return command_ != Command::none; });
        if (command_ == Command::off) return called_off();
    }
    GHOST_TRY(fault::pass(fault::Point::wrapper_snap_freezes));
    stage_ = Stage::check;
    auto now = check(true);
    GHOST_TRY(now);
    GHOST_TRY(sharing_.confirm(*now));
    stage_ = Stage::freeze;
    return {};
}

void SnapshotJob::freeze(RankStdio stdio, const SnapFreeze& order) {
    {
        std::lock_guard lock(mutex_);
        if (command_ != Command::none) return;
        command_ = Command::freeze;
        stdio_ = std::move(stdio);
        frozen_for_ = order;
        if (order.agent) agent_ = order.agent;
    }
    changed_.notify_all();
}

Status SnapshotJob::wait_for_sharers() {
    (*say_)(Still{order_.seq});
    return sharers_.wait() ? Status() : Status(called_off());
}

// Until all are frozen one of them may still write there, and none goes on before it is saved.
Status SnapshotJob::save_shared() {
    if (frozen_for_.unit.empty()) return {};
    GHOST_TRY(wait_for_sharers());
    auto contents = sharing_.contents(frozen_for_.saves);
    GHOST_TRY(contents);
    shared_ = std::move(*contents);
    return wait_for_sharers();
}

void SnapshotJob::write() {
    {
        std::lock_guard lock(mutex_);
        if (command_ != Command::freeze) return;
        command_ = Command::write;
    }
    changed_.notify_all();
}

void SnapshotJob::wait_to_write() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return command_ != Command::freeze || called_off_; });
}

void SnapshotJob::call_off() {
    {
        std::lock_guard lock(mutex_);
        if (command_ == Command::none) command_ = Command::off;
        called_off_ = true;
        if (paced_ != nullptr) paced_->interrupt();
    }
    sharers_.call_off();
    changed_.notify_all();
}

bool SnapshotJob::told_to_freeze() {
    std::lock_guard lock(mutex_);
    return command_ == Command::freeze || command_ == Command::write;
}

// By any thread. False: it was called off.
bool SnapshotJob::in_copy(uint64_t bytes) {
    copied_ += bytes;
    (*progress_)(copied_, std::max<uint64_t>(memory_, copied_));
    std::lock_guard lock(mutex_);
    return command_ != Command::off;
}

// What is done of the ghost is told in large steps only, what is in the file in small ones; packed
// it is less.
void SnapshotJob::in_ghost(uint64_t bytes, uint64_t total) {
    total_ = total;
    done_ = std::max<uint64_t>(done_, bytes);
    (*progress_)(done_, total_);
}

void SnapshotJob::in_file(uint64_t bytes) {
    if (total_ == 0) return;  // the head
    done_ = std::max<uint64_t>(done_, std::min<uint64_t>(bytes, total_));
    (*progress_)(done_, total_);
}

void SnapshotJob::wake() {
    std::optional<AgentThread> agent;
    {
        std::lock_guard lock(mutex_);
        agent = agent_;
    }
    woken_ = true;
    if (auto woken = wake_agent(tree_.root, agent); !woken.ok())
        log::warning("{}", woken.error().message());
}

Json SnapshotJob::early_metadata() const {
    RankMetadata metadata = tree_.who.metadata(order_.seq);
    metadata.snapshot = order_.name;
    Json out = schema::to_json(metadata);
    if (auto needs = core::needs_of(tree_.root)) out["needs"] = schema::to_json(*needs);
    return out;
}

// The tree is frozen. criu, if it still works in it, has its log open there.
void SnapshotJob::look_at_it() {
    {
        std::lock_guard lock(mutex_);
        if (stdio_) tree_.note_output(*stdio_);
    }
    auto files = core::written_files(tree_.root, carried_files(order_.carried));
    if (!files) return log::warning("{}", files.error().message());
    files_ = std::move(*files);
    std::erase_if(files_, [&](const core::WrittenFile& file) {
        return file.path.starts_with(tree_.work_dir + "/");
    });
}

Json SnapshotJob::final_metadata() {
    std::lock_guard lock(mutex_);
    return schema::to_json(RankMetadata{.agent = agent_,
                                        .stdio = stdio_,
                                        .shared = sharing_.metadata(frozen_for_.unit),
                                        .files = files_for_ghost(files_)});
}

Outgoing SnapshotJob::copied() {
    core::CheckpointRequest request;
    request.root = tree_.root;
    request.externals = sharing_.with_keys(tree_.externals);
    request.metadata = early_metadata();
    request.criu = {tree_.who.criu, tree_.work_dir};
    request.progress = [this](uint64_t bytes, uint64_t total) { in_ghost(bytes, total); };
    request.copying = [this](uint64_t bytes) { return in_copy(bytes); };
    request.incremental = incremental_;
    request.name = order_.file;
    request.keep_tracking = order_.then != Then::kill;
    request.leave_stopped = order_.stays();
    // All ranks of the node do rounds while the last one gets ready.
    const int64_t processors = std::max(1u, std::thread::hardware_concurrency());
    request.rest_us *= 1 + static_cast<int64_t>(order_.sharers) / processors;
    request.wait_to_freeze = [this] { return wait_for_order(false); };
    request.while_stopped = [this] { return look_at_it(), save_shared(); };
    request.final_metadata = [this] { return final_metadata(); };
    request.final_files = [this] { return std::move(shared_); };
    request.captured = [this](const core::CheckpointStats& stats) {
        if (!order_.stays()) wake();
        (void)fault::pass(fault::Point::init_snap_captured, fault::Process{tree_.root});
        (void)fault::pass(fault::Point::wrapper_snap_captured);
        captured_ = true;
        stage_ = Stage::write;
        (*progress_)(0, memory_);  // what is told from now on is of the file
        (*say_)(SnapCaptured{.seq = order_.seq,
                             .pause_us = stats.pause_us,
                             .skeleton_us = stats.skeleton_us,
                             .memory_us = stats.memory_us,
                             .last_bytes = stats.last_bytes,
                             .rounds = static_cast<uint64_t>(stats.rounds)});
        wait_to_write();
    };
    auto stats = checkpointer_.run(request, *out_);
    if (!stats) return failure(stats.error());
    return written(stats->page_bytes, stats->zero_bytes, stats->as_parent.digest.hex());
}

Outgoing SnapshotJob::direct() {
    const core::CriuSettings criu{tree_.who.criu, tree_.work_dir};
    checkpointer_.clear();
    if (auto warm = core::warm_up(criu); !warm.ok()) return failure(warm.error());
    core::ExportRequest request;
    request.root = tree_.root;
    request.metadata = early_metadata();
    auto facts = core::facts_of(tree_.root, request.ghosts);
    if (!facts) return failure(facts.error());
    request.facts = std::move(*facts);
    if (auto order = wait_for_order(true); !order.ok()) return failure(order.error());
    request.externals = sharing_.with_keys(tree_.externals);
    request.final_metadata = [this] { return look_at_it(), final_metadata(); };
    request.criu = criu;
    request.progress = [this](uint64_t bytes, uint64_t total) { in_ghost(bytes, total); };
    request.gets_on = [this] { in_ghost(done_, total_); };
    request.while_stopped = [this]() -> Result<core::SkeletonFiles> {
        GHOST_TRY(save_shared());
        return std::move(shared_);
    };
    auto stats = core::export_tree(request, *out_);
    if (!stats) return failure(stats.error());
    captured_ = true;
    if (!order_.stays()) {
        if (auto runs = core::resume_tree(tree_.root); !runs.ok()) return failure(runs.error());
        wake();
    }
    (*say_)(SnapCaptured{.seq = order_.seq,
                         .pause_us = stats->frozen_us,
                         .skeleton_us = stats->skeleton_us,
                         .memory_us = stats->pages_us,
                         .last_bytes = stats->page_bytes});
    return written(stats->page_bytes, stats->zero_bytes, stats->digest.hex());
}

Outgoing SnapshotJob::written(uint64_t page_bytes, uint64_t zero_bytes, const std::string& digest) {
    stage_ = Stage::write;
    if (Status fine = fault::pass(fault::Point::wrapper_snap_written); !fine)
        return failure(fine.error());
    struct stat info {};
    const bool there = ::stat(order_.path().c_str(), &info) == 0;
    if (!there) return failure(sys_error("find what was written", order_.path()));
    Written out;
    out.seq = order_.seq;
    out.rank = tree_.who.rank;
    out.file = order_.file;
    out.kind = kind();
    if (incremental_) out.chain = order_.chain;
    if (!out.chain.empty()) out.parent = out.chain.front();
    out.digest = digest;
    if (order_.key) out.signer = order_.key->public_key().hex();
    out.bytes = static_cast<uint64_t>(info.st_size);
    out.page_bytes = page_bytes;
    out.zero_bytes = zero_bytes;
    out.memory = memory_;
    out.stdin_bytes = stdio_ ? stdio_->taken : -1;
    out.files = files_for_manifest(files_, most_file_bytes, out.all_files);
    return out;
}

}  // namespace ghost::plugin
