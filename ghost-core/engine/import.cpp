// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <atomic>
#include <csignal>
#include <deque>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/json_text.hpp"
#include "base/log.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/engine/chain_reader.hpp"
#include "ghost-core/engine/lock_handover.hpp"
#include "ghost-core/engine/migration.hpp"
#include "ghost-core/memory/buffers.hpp"
#include "ghost-core/memory/queue.hpp"
#include "ghost-core/memory/userfault.hpp"
#include "ghost-core/memory/workers.hpp"
#include "ghost-core/criu/restore.hpp"
#include "ghost-core/criu/shared_memory.hpp"
#include "ghost-core/criu/skeleton_store.hpp"
#include "ghost-core/criu/stopped_tree.hpp"
#include "ghost-core/criu/realtime_priority.hpp"

namespace ghost::core {
namespace {

// Pages that come while criu still makes the tree wait in these, 64 MiB; more stay in the network.
constexpr size_t import_buffers = 64;
constexpr int64_t progress_us = 5000;
constexpr int64_t retry_us = 200;  // for pages that have no place yet
constexpr int64_t idle_us = 100000;

struct PageChunk {
    ChainPages pages;
    Chunk chunk;             // to be checked
    char* buffer = nullptr;  // none where the contents are used in the ghost's own place
    uint64_t done = 0;       // bytes of its pages that are in place
};

// The threads of one import beside the caller's, which serves criu: one receives the stream, one
// for each processor fills pages in.
class Import {
  public:
    Import(Resource& in, ChainReader& reader, BufferPool& pool)
        : in_(in), reader_(reader), pool_(pool) {}

    Result<HeldTree> run(RestoreRequest request, const std::vector<InheritFd>& inherit,
                         const Progress& progress);
    // Before run(): as of the ghost's head, and what to look by once more when the tree is stopped:
    // until then it removes what it has, and makes it again.
    void lacks(std::vector<Shortcoming> by_the_head,
               std::function<std::vector<Shortcoming>()> look) {
        lacks_ = std::move(by_the_head);
        look_ = std::move(look);
    }
    // After run(): fields of the metadata that the head could not have.
    void take_last_metadata(Json& metadata);

  private:
    void receive();
    Status receive_chunks();
    Status check_needs_at_stop(std::string_view text);
    Status check_needs();
    void look_again();
    Status take_skeleton(const Chunk& chunk, const char* buffer);
    std::shared_ptr<HugePages> huge_pages(pid_t root);
    std::shared_ptr<const TreePlacement> placement();
    Status fill_shared_memory(const std::vector<InheritFd>& inherit);
    Status take_locks(pid_t root);
    void fill();
    Status fill_chunks();
    Result<bool> place(PageChunk& chunk);
    Result<bool> place_kept();
    bool keep_waiting(const PageChunk& chunk, bool first);
    Status make_room(const PageChunk& chunk);
    void stop();

    Resource& in_;
    ChainReader& reader_;
    BufferPool& pool_;
    SkeletonStore skeleton_;
    std::vector<Shortcoming> lacks_;  // until the skeleton says what of it is needed
    std::function<std::vector<Shortcoming>()> look_;
    int needs_file_ = -1;  // number of that skeleton file
    FaultFiller filler_;
    ImportState state_;
    Queue<PageChunk> pages_;
    // Chunks of processes that have no place for them yet.
    std::mutex kept_mutex_;
    std::map<int, std::deque<PageChunk>> kept_;
    std::atomic<size_t> kept_count_ = 0;
    std::atomic<int64_t> skeleton_in_us_ = 0, first_page_us_ = 0, last_page_us_ = 0;
};

// What the tree has let go of since the head left it need not be here, what it has got since does.
Status Import::check_needs_at_stop(std::string_view text) {
    const auto changed = schema::decode<NeedsAtStop>(text);
    if (!changed) return changed.error();
    std::erase_if(lacks_, [&](const Shortcoming& one) {
        return std::ranges::find(changed->released, one.path) != changed->released.end();
    });
    look_again();
    std::ranges::move(check_names(*changed), std::back_inserter(lacks_));
    return check_needs();
}

void Import::look_again() {
    if (lacks_.empty()) return;
    const auto now = look_();
    std::erase_if(lacks_, [&](const Shortcoming& one) {
        return std::ranges::find(now, one.path, &Shortcoming::path) == now.end();
    });
}

Status Import::check_needs() {
    if (lacks_.empty()) return {};
    return make_error(Code::refused, "import here", {},
                      "this node lacks what the ghost needs: " + describe(lacks_));
}

// Whether all that is needed is here is known before criu has anything of the skeleton.
Status Import::take_skeleton(const Chunk& chunk, const char* buffer) {
    const std::string_view payload(buffer, chunk.size);
    switch (chunk.type) {
        case ChunkType::skeleton_open:
            if (payload == needs_at_stop_file)
                needs_file_ = chunk.number;
            else {
                look_again();
                GHOST_TRY(check_needs());
            }
            if (payload == lock_handover_file) reader_.goes_on();
            if (!skeleton_.open(chunk.number, std::string(payload)))
                return make_error(Code::corrupt, "read ghost", std::string(payload),
                                  "a skeleton file comes twice");
            break;
        case ChunkType::skeleton_data:
            GHOST_TRY(skeleton_.data(chunk.number, payload));
            break;
        case ChunkType::skeleton_close:
            GHOST_TRY(skeleton_.close(chunk.number));
            if (chunk.number != needs_file_) break;
            if (std::string_view text;
                skeleton_.find(std::string(needs_at_stop_file), text) == SkeletonStore::Found::yes)
                GHOST_TRY(check_needs_at_stop(text));
            break;
        default:
            skeleton_in_us_ = monotonic_us();
            skeleton_.end(chunk.offset);
            break;
    }
    return {};
}

Status Import::receive_chunks() {
    char* buffer = pool_.take();
    while (buffer != nullptr) {
        ChainPages pages;
        auto chunk = reader_.next(buffer, pages);
        if (!chunk) return chunk.error();
        const auto cut = [this] { reader_.interrupt(); };
        if (chunk->type == ChunkType::end) {
            GHOST_TRY(fault::pass(fault::Point::pages_received_last, cut));
            break;
        }
        if (chunk->type == ChunkType::pages) {
            if (first_page_us_ == 0)
                GHOST_TRY(fault::pass(fault::Point::pages_received_first, cut));
            if (first_page_us_ == 0) first_page_us_ = monotonic_us();
            const bool in_place = chunk->contents != nullptr;
            if (!pages_.push({std::move(pages), *chunk, in_place ? nullptr : buffer})) break;
            if (!in_place) buffer = pool_.take();
        } else {
            GHOST_TRY(take_skeleton(*chunk, buffer));
        }
    }
    pages_.finish();  // the stream has been checked to its last byte, but for the pages' checksums
    return {};
}

void Import::receive() {
    if (auto status = receive_chunks(); !status.ok()) {
        state_.fail(status.error());
        pages_.close();
        filler_.stop();
    }
}

// True when all of it is in place, and its buffer given back.
Result<bool> Import::place(PageChunk& chunk) {
    const auto& pages = chunk.pages;
    // Contents in their own place have only the runs before them.
    const auto* const payload =
        chunk.chunk.contents ? reinterpret_cast<const char*>(pages.runs.data()) : chunk.buffer;
    GHOST_TRY(GhostReader::check(chunk.chunk, payload));
    chunk.chunk.check.reset();
    auto done = filler_.put(pages.inner_pid, pages.runs, pages.contents, chunk.done);
    if (!done) return done.error();
    chunk.done = *done;
    if (*done < pages.bytes) return false;
    if (chunk.buffer) pool_.give(chunk.buffer);
    return true;
}

// False: nothing of this process waits, so this need not either.
bool Import::keep_waiting(const PageChunk& chunk, bool first) {
    std::lock_guard lock(kept_mutex_);
    auto& waiting = kept_[chunk.pages.inner_pid];
    if (!first && waiting.empty()) return false;
    waiting.push_back(chunk);
    kept_count_++;
    return true;
}

// What waits must not hold up what comes behind it: that may be just what CRIU needs before it
// makes a place for this.
Status Import::make_room(const PageChunk& chunk) {
    if (chunk.buffer && kept_count_ > import_buffers / 2) return pool_.grow();
    return {};
}

// One chunk of those that wait; false if none of them has a place yet.
Result<bool> Import::place_kept() {
    std::unique_lock lock(kept_mutex_);
    for (auto& [pid, chunks] : kept_) {  // nothing is ever taken out of the map
        if (chunks.empty()) continue;
        PageChunk chunk = std::move(chunks.front());
        chunks.pop_front();
        lock.unlock();
        auto placed = place(chunk);
        if (!placed) return placed.error();
        if (*placed) {
            kept_count_--;
            return true;
        }
        lock.lock();
        chunks.push_front(std::move(chunk));
    }
    return false;
}

// What waits goes first once it has a place; until then what comes behind it is tried.
Status Import::fill_chunks() {
    using Waited = Queue<PageChunk>::Waited;
    for (Waited waited = Waited::got; waited != Waited::over || kept_count_ > 0;) {
        if (state_.failure()) return {};
        if (kept_count_ > 0) {
            auto placed = place_kept();
            if (!placed) return placed.error();
            if (*placed) continue;
        }
        PageChunk chunk;
        waited = pages_.pop_within(kept_count_ > 0 ? retry_us : idle_us, chunk);
        if (waited == Waited::over && kept_count_ > 0) usleep(retry_us);
        if (waited != Waited::got) continue;
        if (kept_count_ > 0 && keep_waiting(chunk, false)) {
            GHOST_TRY(make_room(chunk));
            continue;
        }
        auto placed = place(chunk);
        if (!placed) return placed.error();
        if (*placed) continue;
        keep_waiting(chunk, true);
        GHOST_TRY(make_room(chunk));
    }
    return {};
}

void Import::fill() {
    Workers fillers;
    // There is nothing to fill in while the source takes the skeleton: get the buffers warm.
    pool_.populate([this] { return first_page_us_ != 0 || state_.failure().has_value(); });
    auto status = fillers.each(fillers.count(), [this](size_t) {
        auto filled = fill_chunks();
        if (!filled.ok()) state_.fail(filled.error());  // the others see it
        return filled;
    });
    if (status.ok() && !state_.failure()) status = filler_.complete();
    last_page_us_ = monotonic_us();
    if (!status.ok()) state_.fail(status.error());
    state_.finish_pages();
}

// The ghost's list is a wish only; nothing depends on it.
std::shared_ptr<HugePages> Import::huge_pages(pid_t root) {
    std::string_view text;
    if (skeleton_.find(huge_memory_file, text) != SkeletonStore::Found::yes) return nullptr;
    auto memory = decode_huge_memory(text);
    auto tasks = list_tree(root);
    if (!memory || !tasks) {
        log::warning("import: no huge pages: {}",
                     (memory ? tasks.error() : memory.error()).message());
        return nullptr;
    }
    auto out = std::make_shared<HugePages>();
    for (const auto& task : *tasks) out->add(task.pid, (*memory)[task.inner]);
    return out;
}

void Import::take_last_metadata(Json& metadata) {
    std::string_view text;
    if (skeleton_.find(std::string(last_metadata_file), text) != SkeletonStore::Found::yes) return;
    const Json fields = parse_json(std::string(text));
    if (fields.is_object()) metadata.update(fields);
}

std::shared_ptr<const TreePlacement> Import::placement() {
    std::string_view text;
    if (skeleton_.find(placement_file, text) != SkeletonStore::Found::yes)
        return std::make_shared<TreePlacement>();
    auto placement = decode_placement(text);
    if (!placement) log::warning("import: {}", placement.error().message());
    return std::make_shared<TreePlacement>(placement ? std::move(*placement) : TreePlacement());
}

// Nobody who has it runs yet.
Status Import::fill_shared_memory(const std::vector<InheritFd>& inherit) {
    for (const auto& [fd, key, memory] : inherit) {
        std::string_view contents;
        if (!memory.empty() &&
            skeleton_.find(shared_memory_file(memory), contents) == SkeletonStore::Found::yes)
            GHOST_TRY(fill_shared(fd, contents));
    }
    return {};
}

Status Import::take_locks(pid_t root) {
    std::string_view image, none;
    if (skeleton_.find(std::string(locks_image), image) != SkeletonStore::Found::yes) return {};
    auto locks = locks_in(image);
    if (!locks) return locks.error();
    TreeLocks its(root, std::move(*locks));
    const bool gets_them =
        skeleton_.find(std::string(lock_handover_file), none) == SkeletonStore::Found::yes;
    return gets_them ? receive_locks(in_, its) : take_kept(its);
}

void Import::stop() {
    reader_.interrupt();
    pages_.close();
    pool_.close();
    filler_.stop();
}

Result<HeldTree> Import::run(RestoreRequest request, const std::vector<InheritFd>& inherit,
                             const Progress& progress) {
    for (const auto& entry : inherit) request.inherit.emplace_back(entry.fd, entry.key);
    HeldTree held;
    const int64_t begin = monotonic_us();
    Restorer restorer(std::move(request), skeleton_, filler_, state_);
    GHOST_TRY(restorer.start());
    std::thread receiver([this] { receive(); });
    std::thread filler([this] { fill(); });
    int64_t told = begin;
    auto root = restorer.run([&] {
        if (!progress || monotonic_us() - told < progress_us) return;
        progress(filler_.filled(), skeleton_.page_bytes());
        told = monotonic_us();
    });
    if (!root) {
        state_.fail(root.error());
        stop();
    }
    receiver.join();
    filler.join();
    if (!root) return root.error();
    held.root = *root;
    Status made = fill_shared_memory(inherit);
    if (made.ok()) made = take_locks(*root);
    if (!made.ok()) {
        destroy_tree(held);
        return made.error();
    }
    held.bytes = filler_.filled();
    held.skeleton_bytes = skeleton_.bytes();
    held.skeleton_us = restorer.tree_made_us() - skeleton_in_us_;
    held.pages_us = first_page_us_ == 0 ? 0 : last_page_us_ - first_page_us_;
    held.userfaults = std::make_shared<std::map<int, Fd>>(restorer.userfaults());
    held.huge = huge_pages(*root);
    held.placement = placement();
    held.total_us = monotonic_us() - begin;
    return held;
}

}  // namespace

struct Importer::State {
    explicit State(Resource& source) : in(source), reader(source) {}
    Resource& in;
    ChainReader reader;
    std::optional<ParentRef> parent;  // that is to be given next
    Json metadata;
    GhostMetadata known;
    std::string host;
    pid_t plain_root = 0;
    std::optional<ClockShift> clocks;
    bool takes_time = false;
    bool keeps_userfaults = false;
    std::vector<Shortcoming> lacks;
    std::function<void(pid_t)> tells_root;
    std::function<void()> gets_on;
};

Importer::Importer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Importer::Importer(Importer&&) noexcept = default;
Importer& Importer::operator=(Importer&&) noexcept = default;
Importer::~Importer() = default;

Result<Importer> Importer::open(Resource& in, bool check) {
    auto state = std::make_unique<State>(in);
    GhostHead head;
    GHOST_TRY(state->reader.head(head));
    state->parent = head.parent;
    if (check) GHOST_TRY(check_host(head.host));
    state->host = head.host;
    state->metadata = parse_json(head.metadata);
    if (state->metadata.is_discarded())
        return make_error(Code::corrupt, "read ghost", {}, "metadata is not JSON");
    auto known = known_in(state->metadata);
    if (!known) return known.error();
    state->known = std::move(*known);
    return Importer(std::move(state));
}

const Json& Importer::metadata() const {
    return state_->metadata;
}

const GhostMetadata& Importer::known() const {
    return state_->known;
}

const std::optional<ParentRef>& Importer::parent() const {
    return state_->parent;
}

Status Importer::add_parent(Resource& in) {
    return state_->reader.add(in, state_->parent);
}

const std::string& Importer::host() const {
    return state_->host;
}

void Importer::expect_plain(pid_t root) {
    state_->plain_root = root;
}

void Importer::lacks(std::vector<Shortcoming> by_the_head) {
    state_->lacks = std::move(by_the_head);
}

void Importer::set_clocks(int64_t monotonic_ns, int64_t boottime_ns) {
    state_->clocks = ClockShift{monotonic_ns, boottime_ns};
}

void Importer::keep_userfaults() {
    state_->keeps_userfaults = true;
}

void Importer::tell_root(std::function<void(pid_t)> told) {
    state_->tells_root = std::move(told);
}

void Importer::tell_steps(std::function<void()> gets_on) {
    state_->gets_on = std::move(gets_on);
}

void Importer::take_time() {
    state_->takes_time = true;
}

Result<HeldTree> Importer::hold(const CriuSettings& criu, const std::vector<InheritFd>& inherit,
                                const Progress& progress) {
    std::optional<RealtimePriority> urgent;
    if (!state_->takes_time) urgent.emplace();
    if (state_->parent)
        return make_error(Code::invalid, "import ghost", state_->parent->name,
                          "it is incremental and needs its parent");
    auto pool = BufferPool::make(import_buffers);
    if (!pool) return pool.error();
    RestoreRequest request;
    request.criu = criu;
    request.plain_root = state_->plain_root;
    request.clocks = state_->clocks;
    request.keep_userfaults = state_->keeps_userfaults;
    request.tells_root = state_->tells_root;
    request.gets_on = state_->gets_on;
    Import import(state_->in, state_->reader, *pool);
    const auto look = [this] { return check_target(state_->known.needs, state_->host); };
    import.lacks(std::move(state_->lacks), look);
    auto held = import.run(std::move(request), inherit, progress);
    if (held) import.take_last_metadata(state_->metadata);
    return held;
}

void leave_named(Importer& importer, std::vector<Shortcoming>& lacking) {
    const auto named = std::ranges::stable_partition(
        lacking, [](const Shortcoming& one) { return one.path.empty(); });
    importer.lacks({std::make_move_iterator(named.begin()), std::make_move_iterator(named.end())});
    lacking.erase(named.begin(), named.end());
}

Status release_tree(const HeldTree& held) {
    auto tasks = list_tree(held.root);
    if (!tasks) return tasks.error();
    give_settings(*tasks, held.placement->settings);
    const auto waits = take_up_waits(*tasks, held.placement->threads);
    place(*tasks, *held.placement);
    std::set<pid_t> stay;
    for (const auto& task : *tasks)
        if (was_stopped(task.inner, held.placement->threads)) stay.insert(task.pid);
    GHOST_TRY(continue_tasks(*tasks, stay, waits));
    if (held.huge) held.huge->start();
    return {};
}

void destroy_tree(HeldTree& held) {
    kill_and_reap(held.root);
    held.root = 0;
    held.huge.reset();
}

Status kill_tree(pid_t root) {
    if (root <= 1) return make_error(Code::invalid, "end tree", std::to_string(root));
    calm_tree(root);
    if (kill(root, SIGKILL) != 0) return sys_error("end tree", std::to_string(root));
    return {};
}

}  // namespace ghost::core
