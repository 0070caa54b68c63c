// SPDX-License-Identifier: BSD-3-Clause
// Buffers of one chunk each, reused warm: copying into fresh memory costs ten times as much.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

#include "base/result.hpp"

namespace ghost::core {

class BufferPool {
  public:
    // `count` buffers of chunk_limit bytes out of one mapping, in huge pages where the kernel has
    // them; touched only when used. All threads may use one pool.
    static Result<BufferPool> make(size_t count);
    BufferPool(BufferPool&& other) noexcept;
    BufferPool& operator=(BufferPool&&) = delete;
    ~BufferPool();

    // The buffer that was given back last, so that few are touched; waits for one. Null once
    // closed.
    char* take();
    void give(char* buffer);
    void close();
    // Touches the buffers, which takes time better spent before they are needed, until all are
    // touched or `enough` says so. Those in use keep their content.
    void populate(const std::function<bool()>& enough);
    // One more buffer, for a user who has to keep some for long.
    Status grow();

    static size_t buffer_size();

  private:
    BufferPool() = default;

    static Result<char*> map(size_t bytes);

    struct Mapping {
        char* base = nullptr;
        size_t bytes = 0;
    };
    std::vector<Mapping> mappings_;
    std::mutex mutex_;
    std::condition_variable ready_;
    std::vector<char*> free_;
    bool closed_ = false;
};

}  // namespace ghost::core
