// SPDX-License-Identifier: BSD-3-Clause
// What resources over resources share: the stream is cut into units, which threads work on while
// the owner's thread takes or gives bytes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ghost-core/resource/resource.hpp"
#include "ghost-core/resource/slot_threads.hpp"

namespace ghost::core {

class UnitResource : public Resource {
  public:
    Status init() final;
    Status write(const void* data, size_t size) final;
    Result<size_t> read(void* data, size_t size) final;
    Status finalize() final;

  protected:
    static constexpr size_t unit_bytes = 1 << 20;

    struct Slot {
        size_t index = 0;
        uint64_t number = 0;    // of the unit: 0, 1, 2, …
        std::vector<char> raw;  // the unit; `size` bytes of it
        size_t size = 0;
        std::vector<char> coded;     // for the class: how it looks in the resource below
        std::optional<Error> error;  // set by work()
    };

    UnitResource(Use use, size_t slots) : use_(use), slots_(slots) {}
    // A subclass calls this in its destructor: work() must not run any longer.
    void stop() { workers_.reset(); }

    // All in the owner's thread but work().
    virtual Status open() = 0;                  // before the first unit
    virtual void work(Slot& slot) = 0;          // write: after it is filled; read: after load()
    virtual Status emit(Slot& slot) = 0;        // write: in order, after work()
    virtual Result<bool> load(Slot& slot) = 0;  // read: in order; false: there are no more
    virtual Status close() = 0;                 // write: after the last emit()

    Use use() const { return use_; }

  private:
    Slot& slot_at(uint64_t number) { return slots_[number % slots_.size()]; }
    Status finish(Slot& slot);
    Status refill(Slot& slot);
    Status check_rest();

    Use use_;
    std::vector<Slot> slots_;
    uint64_t unit_ = 0;             // being filled or given
    size_t within_ = 0;             // bytes of it so far
    uint64_t emitted_ = 0;          // units
    uint64_t loaded_ = 0;           // units
    std::optional<Error> failure_;  // write
    bool ended_ = false;            // read: load() has said so
    std::unique_ptr<SlotThreads> workers_;
};

}  // namespace ghost::core
