// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/remote_read.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <vector>

#include "base/fd.hpp"
#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

constexpr size_t pieces_at_once = 512;  // process_vm_readv(2) takes 1024

// A page its owner may not read: only /proc/PID/mem gives those. False: it is not there.
Result<bool> read_by_force(pid_t pid, uint64_t start, char* to, uint64_t bytes) {
    const Fd memory(open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
    if (!memory) return sys_error("open memory of process", std::to_string(pid));
    while (bytes > 0) {
        const auto got = pread(memory.get(), to, bytes, static_cast<off_t>(start));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        start += static_cast<uint64_t>(got);
        to += got;
        bytes -= static_cast<uint64_t>(got);
    }
    return true;
}

class Reading {
  public:
    Reading(pid_t pid, std::span<const PagePiece> pieces, Vanished vanished)
        : pid_(pid), pieces_(pieces), vanished_(vanished) {}

    Status run() {
        while (piece_ < pieces_.size()) {
            const auto got = read_some();
            if (got < 0 && errno == EINTR) continue;
            if (got < 0 && errno == ESRCH && vanished_ == Vanished::is_left) return {};
            if (got < 0 && errno != EFAULT)
                return sys_error("read memory of process", std::to_string(pid_));
            if (got > 0)
                skip(static_cast<uint64_t>(got));
            else
                GHOST_TRY(read_one_page());
        }
        return {};
    }

  private:
    ssize_t read_some() const {
        std::array<iovec, pieces_at_once> local, remote;
        size_t count = 0;
        uint64_t done = done_;
        for (size_t i = piece_; i < pieces_.size() && count < pieces_at_once; i++, count++) {
            const auto& piece = pieces_[i];
            local[count] = {piece.to + done, piece.bytes - done};
            remote[count] = {reinterpret_cast<void*>(piece.start + done), piece.bytes - done};
            done = 0;
        }
        return process_vm_readv(pid_, local.data(), count, remote.data(), count, 0);
    }

    Status read_one_page() {
        const auto& piece = pieces_[piece_];
        const uint64_t bytes = std::min<uint64_t>(piece.bytes - done_, this_page_size());
        auto there = read_by_force(pid_, piece.start + done_, piece.to + done_, bytes);
        if (!there) return there.error();
        if (!*there && vanished_ == Vanished::is_error)
            return make_error(Code::io,
                              fmt::format("read page {:#x} of process", piece.start + done_),
                              std::to_string(pid_));
        skip(bytes);
        return {};
    }

    void skip(uint64_t bytes) {
        while (bytes > 0) {
            const uint64_t part = std::min(bytes, pieces_[piece_].bytes - done_);
            bytes -= part;
            done_ += part;
            if (done_ == pieces_[piece_].bytes) {
                piece_++;
                done_ = 0;
            }
        }
    }

    const pid_t pid_;
    const std::span<const PagePiece> pieces_;
    const Vanished vanished_;
    size_t piece_ = 0;   // the next byte is in this piece,
    uint64_t done_ = 0;  // after so many bytes of it
};

}  // namespace

Status read_pages(pid_t pid, std::span<const PagePiece> pieces, Vanished vanished) {
    return Reading(pid, pieces, vanished).run();
}

}  // namespace ghost::core
