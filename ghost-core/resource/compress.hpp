// SPDX-License-Identifier: BSD-3-Clause
// Compresses what goes to another resource: lz4 or zstd, by several threads.
//
// Each MiB is a frame of its own, before which a skippable frame (both formats know those) tells
// the sizes: `zstd -d` and `lz4 -d` read the whole, and frames can be unpacked in parallel.
#pragma once

#include <memory>

#include "ghost-core/resource/units.hpp"

namespace ghost::core {

enum class Compression : uint32_t { lz4 = 1, zstd = 2 };

class CompressResource : public UnitResource {
  public:
    // `level`: of the library, 0 its default; faster the lower. Reading finds out algorithm and
    // level itself.
    static std::unique_ptr<Resource> writer(std::unique_ptr<Resource> inner, Compression algorithm,
                                            int level = 0);
    static std::unique_ptr<Resource> reader(std::unique_ptr<Resource> inner);
    // Whether a resource that begins with these 12 bytes is a compressed one.
    static bool is_mine(const char* start);
    static constexpr size_t start_bytes = 12;

    ~CompressResource() override;
    ResourceClass class_id() const override { return ResourceClass::compress; }
    void interrupt() override { inner_->interrupt(); }

  private:
    CompressResource(std::unique_ptr<Resource> inner, Use use, Compression algorithm, int level);
    Status open() override { return inner_->init(); }
    void work(Slot& slot) override;
    Status emit(Slot& slot) override;
    Result<bool> load(Slot& slot) override;
    Status close() override;
    void pack(Slot& slot);
    void unpack(Slot& slot);

    std::unique_ptr<Resource> inner_;
    Compression algorithm_;
    int level_;
    struct Tools;
    std::unique_ptr<Tools[]> tools_;  // of each slot
};

}  // namespace ghost::core
