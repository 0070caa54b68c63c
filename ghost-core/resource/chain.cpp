// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/chain.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/format/chain.hpp"
#include "ghost-core/format/summary.hpp"
#include "ghost-core/resource/compress.hpp"

namespace ghost::core {
namespace {

constexpr size_t folder_limit = 10000;  // files of a folder that are looked at

Error about(Error error, const std::string& specification) {
    if (error.object.empty()) error.object = specification;
    return error;
}

Result<OpenGhost> open_one(const ResourceRegistry& registry, const std::string& specification,
                           const std::shared_ptr<SecretKey>& key) {
    auto in = registry.open(specification, key);
    if (!in) return in.error();
    auto opened = OpenGhost::open(std::move(*in));
    if (opened.ok()) return opened;
    return about(opened.error(), specification);
}

std::string folder_of(const std::string& specification) {
    const auto path = specification.substr(specification.rfind(':') + 1);
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// Whether a file may be the ghost with this id: at once for what is not packed.
bool may_be(const std::string& path, const Hash128& id) {
    FileHeader header;
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd || pread(fd.get(), &header, sizeof header, 0) != sizeof header) return false;
    if (header.magic == ghost_magic) return header.id == id;
    const auto* start = reinterpret_cast<const char*>(&header);
    return CompressResource::is_mine(start) || EncryptResource::is_mine(start) ||
           SignResource::is_mine(start);
}

// Where the parent may be, likeliest first.
std::vector<std::string> places(const ParentRef& parent, const std::string& child,
                                const std::vector<std::string>& candidates) {
    std::vector<std::string> out = candidates;
    const auto folder = std::filesystem::path(folder_of(child));
    if (!parent.name.empty()) out.push_back(folder / parent.name);
    std::error_code ignored;
    size_t looked = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        if (++looked > folder_limit) break;
        if (!entry.is_regular_file(ignored)) continue;
        const std::string path = entry.path();
        if (std::find(out.begin(), out.end(), path) == out.end() && may_be(path, parent.id))
            out.push_back(path);
    }
    return out;
}

// The digest of a file that is not packed is known before all of it is read.
Status check_digest_early(const ParentRef& parent, const std::string& path) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    FileHeader header;
    if (!fd || pread(fd.get(), &header, sizeof header, 0) != sizeof header ||
        header.magic != ghost_magic)
        return {};
    auto summary = read_summary(fd.get());
    if (!summary) return summary.error();
    return check_parent_digest(parent, summary->contents);
}

Status open_parent(const ResourceRegistry& registry, const std::shared_ptr<SecretKey>& key,
                   const std::vector<std::string>& candidates, Chain& chain) {
    const auto parent = *chain.ghosts.back().head.parent;
    const auto child = chain.names.back();
    std::optional<Error> why;
    for (const auto& place : places(parent, child, candidates)) {
        auto found = open_one(registry, place, key);
        if (!found) {
            if (!why && found.error().code != Code::not_found) why = found.error();
            continue;
        }
        auto fits = check_parent_head(parent, found->head);
        if (fits.ok()) fits = check_digest_early(parent, place);
        if (!fits.ok()) {
            if (!why || found->head.id == parent.id) why = fits.error();
            continue;
        }
        chain.ghosts.push_back(std::move(*found));
        chain.names.push_back(place);
        return {};
    }
    if (why) return *why;
    return make_error(
        Code::not_found, "read incremental ghost", child,
        fmt::format("its parent {}(id {}) is not beside it",
                    parent.name.empty() ? "" : "\"" + parent.name + "\" ", parent.id.hex()));
}

}  // namespace

Result<Chain> open_chain(const ResourceRegistry& registry, const std::string& specification,
                         std::shared_ptr<SecretKey> key,
                         const std::vector<std::string>& candidates) {
    Chain chain;
    auto newest = open_one(registry, specification, key);
    if (!newest) return newest.error();
    chain.ghosts.push_back(std::move(*newest));
    chain.names.push_back(specification);
    // generations fall by one with each step, so this ends
    while (chain.ghosts.back().head.parent)
        GHOST_TRY(open_parent(registry, key, candidates, chain));
    return chain;
}

// Bytes from the merging thread to the reading one.
class ChainResource::Pipe : public ByteSink {
  public:
    Status write(const void* data, size_t size) override {
        const auto* bytes = static_cast<const char*>(data);
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return waiting_ < limit || stopped_; });
        if (stopped_)
            return make_error(Code::peer_lost, "merge ghosts", {}, "nobody reads any more");
        parts_.emplace_back(bytes, bytes + size);
        waiting_ += size;
        changed_.notify_all();
        return {};
    }
    Result<size_t> read(void* data, size_t size) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !parts_.empty() || ended_ || stopped_; });
        if (stopped_) return make_error(Code::peer_lost, "read ghost", {}, "interrupted");
        if (parts_.empty()) {
            if (failure_) return *failure_;
            return size_t{0};
        }
        auto& part = parts_.front();
        const size_t count = std::min(size, part.size() - at_);
        std::memcpy(data, part.data() + at_, count);
        at_ += count;
        if (at_ == part.size()) {
            waiting_ -= part.size();
            parts_.pop_front();
            at_ = 0;
            changed_.notify_all();
        }
        return count;
    }
    void end(const Status& status) {
        std::lock_guard lock(mutex_);
        ended_ = true;
        if (!status.ok()) failure_ = status.error();
        changed_.notify_all();
    }
    void stop() {
        std::lock_guard lock(mutex_);
        stopped_ = true;
        changed_.notify_all();
    }

  private:
    static constexpr size_t limit = 4 << 20;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::vector<char>> parts_;  // none is empty
    size_t waiting_ = 0, at_ = 0;
    bool ended_ = false, stopped_ = false;
    std::optional<Error> failure_;
};

ChainResource::ChainResource(Chain chain)
    : chain_(std::move(chain)), pipe_(std::make_unique<Pipe>()) {}

ChainResource::~ChainResource() {
    pipe_->stop();
    if (merger_.joinable()) merger_.join();
}

Status ChainResource::init() {
    if (!merger_.joinable())
        merger_ = std::thread([this] { pipe_->end(merge_ghosts(chain_.ghosts, *pipe_)); });
    return {};
}

Status ChainResource::write(const void*, size_t) {
    return make_error(Code::invalid, "write a chain of ghosts");
}

Result<size_t> ChainResource::read(void* data, size_t size) {
    return size == 0 ? Result<size_t>(size_t{0}) : pipe_->read(data, size);
}

void ChainResource::interrupt() {
    pipe_->stop();
}

Result<std::unique_ptr<Resource>> open_full(const ResourceRegistry& registry,
                                            const std::string& specification,
                                            std::shared_ptr<SecretKey> key,
                                            const std::vector<std::string>& candidates) {
    {
        auto in = registry.open(specification, key);
        if (!in) return in.error();
        auto one = std::make_unique<PeekableResource>(std::move(*in));
        GhostHead head;
        if (auto read = GhostReader(*one).head(head); !read.ok())
            return about(read.error(), specification);
        if (!head.parent) {
            one->begin_again();
            return std::unique_ptr<Resource>(std::move(one));
        }
    }
    auto chain = open_chain(registry, specification, key, candidates);
    if (!chain) return chain.error();
    auto out = std::make_unique<ChainResource>(std::move(*chain));
    GHOST_TRY(out->init());
    return std::unique_ptr<Resource>(std::move(out));
}

}  // namespace ghost::core
