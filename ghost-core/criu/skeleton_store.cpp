// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/skeleton_store.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ghost-core/criu/criu_images.hpp"

namespace ghost::core {

namespace {

constexpr const char* large_folder = "/var/tmp";  // on a disk, if any folder is (hier(7))
constexpr const char* keeping = "keep what removed files of the tree hold in";

Status append(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const auto n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error(keeping, large_folder);
        bytes.remove_prefix(static_cast<size_t>(n));
    }
    return {};
}

}  // namespace

SkeletonStore::SkeletonStore(const Limits& limits)
    : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), limits_(limits) {}

SkeletonStore::~SkeletonStore() {
    for (auto& [name, file] : files_)
        if (!file.mapped.empty()) munmap(const_cast<char*>(file.mapped.data()), file.mapped.size());
}

void SkeletonStore::notify() {
    eventfd_write(event_.get(), 1);
}

void SkeletonStore::clear() {
    eventfd_t value = 0;
    eventfd_read(event_.get(), &value);
}

bool SkeletonStore::open(int file, std::string name) {
    std::lock_guard lock(mutex_);
    const auto [entry, fresh] = files_.try_emplace(std::move(name));
    open_[file] = &entry->second;
    return fresh;
}

Status SkeletonStore::move_to_disk(File& file) {
    file.large.reset(::open(large_folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
    if (!file.large) return sys_error(keeping, large_folder);
    GHOST_TRY(append(file.large.get(), file.content));
    in_memory_ -= file.content.size();
    file.content = {};
    return {};
}

Status SkeletonStore::data(int file, std::string_view bytes) {
    std::lock_guard lock(mutex_);
    File& to = *open_.at(file);
    bytes_ += bytes.size();
    to.size += bytes.size();
    const bool is_full = in_memory_ + bytes.size() > limits_.room;
    if (!to.large && to.size > (is_full ? limits_.small : limits_.file))
        GHOST_TRY(move_to_disk(to));
    if (to.large) return append(to.large.get(), bytes);
    if (in_memory_ + bytes.size() > limits_.most)
        return make_error(Code::corrupt, "read ghost", {},
                          "its files have more than any tree of processes");
    in_memory_ += bytes.size();
    to.content += bytes;
    return {};
}

Status SkeletonStore::close(int file) {
    std::lock_guard lock(mutex_);
    File* const closed = open_.at(file);
    const auto files = files_.find(std::string(files_image));
    if (files != files_.end() && closed == &files->second)
        closed->content = repair_files(std::move(closed->content));
    if (closed->large) {
        void* const at = mmap(nullptr, closed->size, PROT_READ, MAP_SHARED, closed->large.get(), 0);
        if (at == MAP_FAILED) return sys_error(keeping, large_folder);
        closed->mapped = {static_cast<const char*>(at), closed->size};
        closed->large.reset();  // or a tree with many such files needs many descriptors
    }
    closed->complete = true;
    open_.erase(file);
    notify();
    return {};
}

void SkeletonStore::end(uint64_t page_bytes) {
    std::lock_guard lock(mutex_);
    page_bytes_ = page_bytes;
    ended_ = true;
    notify();
}

SkeletonStore::Found SkeletonStore::find(const std::string& name, std::string_view& content) {
    std::lock_guard lock(mutex_);
    const auto file = files_.find(name);
    if (file == files_.end()) return ended_ ? Found::no : Found::not_yet;
    if (!file->second.complete) return Found::not_yet;
    const auto& found = file->second;
    content = found.mapped.empty() ? std::string_view(found.content) : found.mapped;
    return Found::yes;
}

uint64_t SkeletonStore::bytes() {
    std::lock_guard lock(mutex_);
    return bytes_;
}

uint64_t SkeletonStore::in_memory() {
    std::lock_guard lock(mutex_);
    return in_memory_;
}

uint64_t SkeletonStore::page_bytes() {
    std::lock_guard lock(mutex_);
    return page_bytes_;
}

}  // namespace ghost::core
