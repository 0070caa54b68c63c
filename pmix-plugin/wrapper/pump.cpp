// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/pump.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace ghost::plugin {
namespace {

constexpr size_t chunk = 64 * 1024;  // a pipe's capacity, pipe(7)
constexpr int turns = 32;            // of one pump before the others have theirs

}  // namespace

Interest Pump::interest() const {
    if (!empty()) return {sink_, true};
    if (source_ < 0 || ended_ || paused_) return {};
    return {source_, false};
}

bool Pump::fill() {
    if (source_ < 0 || ended_ || paused_ || !empty()) return false;
    begin_ = end_ = 0;
    return read_source();
}

// Behind what is there.
bool Pump::read_source() {
    if (buffer_.size() < end_ + chunk) buffer_.resize(end_ + chunk);
    const ssize_t n = ::read(source_, buffer_.data() + end_, chunk);
    dry_ = n < 0 && (errno == EAGAIN || errno == EINTR);
    // EIO is the end of a pty: every slave is closed and all was read (pty(7)).
    ended_ = n == 0 || (n < 0 && !dry_);
    if (n <= 0) return false;
    const auto size = static_cast<size_t>(n);
    char* const data = buffer_.data() + end_;
    const size_t skipped = meter_ ? meter_->pass({data, size}) : 0;
    if (skipped > 0) std::copy(data + skipped, data + size, data);
    taken_ += size;
    end_ += size - skipped;
    return true;
}

void Pump::draw_in() {
    if (source_ < 0) return;
    while (!ended_ && read_source()) {
    }
}

bool Pump::flush() {
    if (empty()) return false;
    if (broken_) {
        begin_ = end_;
        return true;
    }
    ssize_t n = ::write(sink_, buffer_.data() + begin_, end_ - begin_);
    if (n > 0) {
        begin_ += static_cast<size_t>(n);
        return true;
    }
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        broken_ = true;
        return true;
    }
    return false;
}

bool Pump::run() {
    bool moved = false;
    for (int i = 0; i < turns; ++i) {
        bool now = flush();
        now = fill() || now;
        if (!now) break;
        moved = true;
    }
    return moved;
}

std::string Pump::take_pending() {
    std::string out(buffer_.data() + begin_, end_ - begin_);
    begin_ = end_ = 0;
    return out;
}

void Pump::put_back(const std::string& bytes) {
    std::string all = bytes + take_pending();
    buffer_.assign(all.begin(), all.end());
    end_ = all.size();
}

std::string read_available(int fd) {
    std::string out;
    char buffer[chunk];
    for (;;) {
        ssize_t n = ::read(fd, buffer, sizeof buffer);
        if (n > 0) {
            out.append(buffer, static_cast<size_t>(n));
        } else if (n == 0 || errno != EINTR) {
            return out;
        }
    }
}

void set_nonblocking(int fd) {
    int flags = ::fcntl(fd, F_GETFL);
    if (flags >= 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace ghost::plugin
