// Memory for ghosts: in huge pages where there are any, touched ahead of need, used again warm.
// Fresh memory costs 6.6 µs for each 4 KiB page at its first touch, warm memory nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// A growing sequence of bytes, aligned to 2 MiB. One thread at a time.
class MemoryBuffer {
  public:
    enum class Kind {
        own,     // of this process
        shared,  // a memfd, which other processes can map: fd()
    };

    explicit MemoryBuffer(Kind kind = Kind::own) : kind_(kind) {}
    ~MemoryBuffer();
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
    void clear() { size_ = 0; }
    // Says how much another process has written to the shared memory; within the capacity.
    Status set_size(uint64_t bytes);

    char* data() { return base_; }
    const char* data() const { return base_; }
    uint64_t size() const { return size_; }
    uint64_t capacity() const { return capacity_; }
    std::span<const char> content() const { return {base_, size_}; }
    int fd() const { return memfd_.get(); }  // -1 if not shared or still empty

  private:
    Status map(uint64_t bytes);

    Kind kind_;
    Fd memfd_;
    char* base_ = nullptr;
    uint64_t capacity_ = 0;  // mapped
    uint64_t size_ = 0;
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
