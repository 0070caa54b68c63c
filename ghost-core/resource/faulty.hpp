// Wraps another resource and misbehaves at a chosen byte; for tests.
#pragma once

#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

class FaultyResource : public Resource {
  public:
    enum class Fault {
        none,
        fail_write,  // the write that reaches byte `at` fails
        fail_read,   // the read that reaches byte `at` fails
        end_read,    // reading ends at byte `at` as if there were no more
        flip_read,   // one bit of byte `at` is read wrong
        short_read,  // reads never give more than 7 bytes, all right otherwise
    };

    // `inner` must outlive it.
    FaultyResource(Resource& inner, Fault fault, uint64_t at, int bit = 0)
        : inner_(inner), fault_(fault), at_(at), bit_(bit) {}

    ResourceClass class_id() const override { return ResourceClass::faulty; }
    Status init() override { return inner_.init(); }
    Status write(const void* data, size_t size) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override { return inner_.finalize(); }

    void interrupt() override { inner_.interrupt(); }

    uint64_t position() const { return position_; }

  private:
    Resource& inner_;
    Fault fault_;
    uint64_t at_;
    int bit_;
    uint64_t position_ = 0;
};

}  // namespace ghost::core
