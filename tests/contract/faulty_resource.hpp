// SPDX-License-Identifier: BSD-3-Clause
// Wraps another resource and misbehaves at a chosen byte or operation; for tests.
#pragma once

#include <cerrno>

#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

class FaultyResource : public Resource {
  public:
    enum class Fault {
        none,
        fail_write,    // the write that reaches byte `at` fails, after what is before it
        fail_read,     // the read that reaches byte `at` fails
        end_read,      // reading ends at byte `at` as if there were no more
        flip_read,     // one bit of byte `at` is read wrong
        flip_write,    // one bit of byte `at` is written wrong
        short_read,    // reads never give more than 7 bytes, all right otherwise
        short_write,   // writes come in pieces of at most 4099 bytes, all right otherwise
        cut,           // the operation (init, write, read, finalize) number `at`, from 0, and all
                       // after it fail, a write after its first half
        fail_finalize  // finalize fails
    };

    // `inner` must outlive it. `bit`: for flips. Failures have errno `error`: ENOSPC, EIO, …;
    // those of `cut` are Code::peer_lost.
    FaultyResource(Resource& inner, Fault fault, uint64_t at, int bit = 0, int error = EIO)
        : inner_(inner), fault_(fault), at_(at), bit_(bit), error_(error) {}

    ResourceClass class_id() const override { return ResourceClass::faulty; }
    Status init() override;
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override;

    void interrupt() override { inner_.interrupt(); }

    uint64_t position() const { return position_; }      // bytes
    uint64_t operations() const { return operations_; }  // so far

  private:
    bool is_cut() { return operations_++ >= at_ && fault_ == Fault::cut; }
    Error cut_error() const;
    Status write_in_pieces(const char* data, size_t size);
    Status write_flipped(const char* data, size_t size);

    Resource& inner_;
    Fault fault_;
    uint64_t at_;
    int bit_;
    int error_;
    uint64_t position_ = 0;
    uint64_t operations_ = 0;
};

}  // namespace ghost::core
