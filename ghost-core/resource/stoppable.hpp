// SPDX-License-Identifier: BSD-3-Clause
// Another resource, until somebody no longer wants the export or import that uses it.
#pragma once

#include <functional>
#include <utility>

#include "ghost-core/resource/resource.hpp"

namespace ghost::core {

class Stoppable final : public Resource {
  public:
    using Check = std::function<Status()>;
    // `go_on` is asked before every read and write, `finish` before finalize(): an error of theirs
    // is the call's. `inner` must outlive this.
    Stoppable(Resource& inner, Check go_on, Check finish = {})
        : inner_(inner), go_on_(std::move(go_on)), finish_(std::move(finish)) {}
    ResourceClass class_id() const override { return inner_.class_id(); }
    Status init() override { return inner_.init(); }
    Status write(const void* data, size_t size) override {
        GHOST_TRY(go_on_());
        return inner_.write(data, size);
    }
    Status write_gather(iovec* pieces, size_t count) override {
        GHOST_TRY(go_on_());
        return inner_.write_gather(pieces, count);
    }
    Result<char*> room(size_t size) override {
        GHOST_TRY(go_on_());
        return inner_.room(size);
    }
    Result<size_t> read(void* data, size_t size) override {
        GHOST_TRY(go_on_());
        return inner_.read(data, size);
    }
    const char* in_place(size_t size) override { return inner_.in_place(size); }
    Status finalize() override {
        if (finish_) GHOST_TRY(finish_());
        return inner_.finalize();
    }
    void interrupt() override { inner_.interrupt(); }
    Space* space() override { return inner_.space(); }
    bool holds(const void* data) const override { return inner_.holds(data); }

  private:
    Resource& inner_;
    Check go_on_, finish_;
};

}  // namespace ghost::core
