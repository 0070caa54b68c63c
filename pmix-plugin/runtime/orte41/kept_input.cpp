// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/runtime/orte41/kept_input.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "pmix-plugin/runtime/orte41/output.h"

namespace ghost::plugin::orte41 {
namespace {

Result<Fd> file_without_name(const std::string& folder) {
    const std::string name = fresh_name(folder + "/input");
    auto file = open_own_file(name, O_RDWR | O_CREAT | O_EXCL);
    if (file) ::unlink(name.c_str());
    return file;
}

}  // namespace

void KeptInput::begin(std::function<std::string()> folder) {
    folder_ = std::move(folder);
    const auto hear = [](void* kept, const char* data, size_t size) noexcept {
        static_cast<KeptInput*>(kept)->heard({data, size});
    };
    if (ghost_input_overhear(hear, this) != 0) log::warning("standard input cannot be kept");
}

void KeptInput::heard(std::string_view data) {
    const Status kept = is_file() ? Status() : keep(data);
    heard_ += data.size();
    if (kept) return;
    cut(heard_);
    if (!std::exchange(failed_, true))
        log::warning("{}; until the next snapshot the job cannot go on from its last one",
                     kept.error().message());
}

Status KeptInput::keep(std::string_view data) {
    if (!file_) {
        auto made = file_without_name(folder_());
        if (!made) return made.error();
        file_ = std::move(*made);
    }
    const Status kept = write_at(file_.get(), data.data(), data.size(), heard_, "it");
    return kept ? kept : sys_error_of(kept.error().sys, "keep standard input");
}

bool KeptInput::has_since(uint64_t place) const {
    if (ghost_input_is_overheard() == 0 || place > heard_) return false;
    struct stat info {};
    if (is_file())
        return ::fstat(STDIN_FILENO, &info) == 0 &&
               start_.offset + heard_ <= static_cast<uint64_t>(info.st_size);
    return place >= gone_;
}

std::string KeptInput::read(uint64_t place, size_t most) const {
    const int fd = is_file() ? STDIN_FILENO : file_.get();
    std::string out(std::min<uint64_t>(most, heard_ - std::min(place, heard_)), '\0');
    const auto got = read_at(fd, out.data(), out.size(), start_.offset + place, "standard input");
    out.resize(got ? *got : 0);
    return out;
}

void KeptInput::forget_before(uint64_t place) {
    if (place < gone_) return;
    failed_ = false;
    cut(place);
}

void KeptInput::cut(uint64_t place) {
    gone_ = place;
    // Best effort: a file system that cannot has more of it.
    if (file_)
        (void)::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                          static_cast<off_t>(gone_));
}

}  // namespace ghost::plugin::orte41
