// SPDX-License-Identifier: BSD-3-Clause
// Memory for ghosts: in huge pages where there are any, touched ahead of need, used again warm.
// Fresh memory costs 6.6 µs for each 4 KiB page at its first touch, warm memory nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/format/bytes.hpp"

namespace ghost::core {

// A growing sequence of bytes in memory aligned to 2 MiB. One thread at a time.
//
// The bytes lie one behind the other as long as they are only appended. Space taken ahead (Space)
// becomes part of the sequence when it is named (refer()); then the sequence has several parts, and
// another process needs their list (layout()) to read it.
class MemoryBuffer : public Space {
  public:
    enum class Kind {
        own,     // of this process
        shared,  // a memfd, which other processes can map: fd()
    };

    explicit MemoryBuffer(Kind kind = Kind::own) : kind_(kind) {}
    ~MemoryBuffer() override;
    MemoryBuffer(const MemoryBuffer&) = delete;
    MemoryBuffer& operator=(const MemoryBuffer&) = delete;
    // Takes over the mapping of a memfd of `size` bytes (of Kind::shared): its content is the
    // buffer's.
    static Result<std::unique_ptr<MemoryBuffer>> adopt(Fd memfd);

    // Room for so many bytes without moving or asking the kernel again; content is kept.
    Status reserve(uint64_t bytes);
    // Touches so many bytes of it (from the start), by `threads` threads; reserves them. The time
    // for this is before a freeze.
    Status populate(uint64_t bytes, unsigned threads);
    Status append(const void* data, size_t size);
    // The same without data: returns where the caller puts it.
    Result<char*> extend(size_t size);
    // No content, the memory stays warm.
    void clear();
    // Says how much another process has written to the shared memory; within the capacity.
    Status set_size(uint64_t bytes);

    // From now on it stays where it is, however it grows. False: there is no address space for it.
    bool settle();
    // After settle(). Nothing is content yet.
    Result<Piece> take(uint64_t bytes) override;
    Status warm(uint64_t bytes) override;
    void reset() override { clear(); }
    bool holds(const void* data) const;
    // What was taken, or a part of it, becomes the next bytes of the sequence.
    void refer(const void* data, size_t size);

    // A part of the sequence.
    struct Extent {
        uint64_t offset = 0;  // from data()
        uint64_t bytes = 0;
    };
    struct Layout {
        uint64_t at = 0;     // offset of a list of Extent,
        uint64_t count = 0;  // so many; 0: the sequence begins at data() and has one part
    };
    // Puts the list behind everything else in the memory, for who adopts it.
    Result<Layout> layout();
    // The same as set_size() for a sequence of several parts. corrupt: they are not within the
    // memory, or not `bytes` in all.
    Status set_layout(const Layout& layout, uint64_t bytes);

    char* data() { return base_; }
    const char* data() const { return base_; }
    uint64_t size() const { return size_; }
    uint64_t capacity() const { return capacity_; }
    const std::vector<Extent>& extents() const { return extents_; }
    int fd() const { return memfd_.get(); }  // -1 if not shared or still empty

  private:
    Status map(uint64_t bytes);
    Status grow(uint64_t bytes);
    void note(uint64_t offset, uint64_t bytes);

    Kind kind_;
    Fd memfd_;
    char* base_ = nullptr;
    uint64_t reserved_ = 0;  // of address space, from base_ on; 0: not settled
    uint64_t capacity_ = 0;  // mapped
    uint64_t used_ = 0;      // of that, appended or taken
    uint64_t size_ = 0;      // of the sequence
    std::vector<Extent> extents_;
};

// `bytes` of private memory aligned to 2 MiB that children do not inherit, given back at the end.
class AlignedMemory {
  public:
    AlignedMemory() = default;
    ~AlignedMemory();
    AlignedMemory(const AlignedMemory&) = delete;
    AlignedMemory& operator=(const AlignedMemory&) = delete;
    Status allocate(size_t bytes);
    char* data() const { return start_; }

  private:
    char* base_ = nullptr;
    char* start_ = nullptr;
    size_t mapped_ = 0;
};

}  // namespace ghost::core
