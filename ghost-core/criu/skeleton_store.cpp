// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/skeleton_store.hpp"

#include <sys/eventfd.h>

#include "ghost-core/criu/criu_images.hpp"

namespace ghost::core {

SkeletonStore::SkeletonStore() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

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

void SkeletonStore::data(int file, std::string_view bytes) {
    std::lock_guard lock(mutex_);
    open_.at(file)->content += bytes;
    bytes_ += bytes.size();
}

void SkeletonStore::close(int file) {
    std::lock_guard lock(mutex_);
    File* const closed = open_.at(file);
    const auto files = files_.find(std::string(files_image));
    if (files != files_.end() && closed == &files->second)
        closed->content = repair_files(std::move(closed->content), changing_);
    closed->complete = true;
    open_.erase(file);
    notify();
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
    content = file->second.content;
    return Found::yes;
}

uint64_t SkeletonStore::bytes() {
    std::lock_guard lock(mutex_);
    return bytes_;
}

uint64_t SkeletonStore::page_bytes() {
    std::lock_guard lock(mutex_);
    return page_bytes_;
}

}  // namespace ghost::core
