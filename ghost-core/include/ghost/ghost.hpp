// SPDX-License-Identifier: BSD-3-Clause
// Ghost from C++: owners of what ghost.h gives. Header only; link with libghost (pkg-config ghost).
//
//   ghost::v1::Ghost g;
//   if (auto done = g.plug("zstd:/var/ghosts/a"); !done) …done.message()…
//   if (auto done = g.export_process(pid); !done) …
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "../ghost.h"

namespace ghost::v1 {

// Success, or why not.
class [[nodiscard]] Done {
  public:
    Done() = default;
    // Of a C call's result: negative means failed, and ghost_error() says why.
    static Done of(int64_t result) {
        Done out;
        if (result < 0) out.message_ = ghost_error();
        out.ok_ = result >= 0;
        return out;
    }
    explicit operator bool() const { return ok_; }
    const std::string& message() const { return message_; }

  private:
    bool ok_ = true;
    std::string message_;
};

namespace detail {
template <auto function>
struct Free {
    template <typename T>
    void operator()(T* object) const {
        function(object);
    }
};
}  // namespace detail

// A ghost in memory. Growing; empty() if there was no memory for it.
class Buffer {
  public:
    explicit Buffer(size_t size = 0) : buffer_(ghost_buffer_create(size)) {}
    bool empty() const { return !buffer_; }
    size_t size() const { return ghost_buffer_size(buffer_.get()); }
    ssize_t read(void* data, size_t size) { return ghost_buffer_read(data, buffer_.get(), size); }
    Done write(const void* data, size_t size) {
        return Done::of(ghost_buffer_write(buffer_.get(), data, size));
    }
    void rewind() { ghost_buffer_rewind(buffer_.get()); }
    void clear() { ghost_buffer_clear(buffer_.get()); }
    ghost_buffer* get() const { return buffer_.get(); }

  private:
    std::unique_ptr<ghost_buffer, detail::Free<ghost_buffer_free>> buffer_;
};

struct Statistics : ghost_statistics {};

class Ghost {
  public:
    Ghost() : ghost_(ghost_create()) {}

    // "file:/a", "zstd:/a", "stripe:/a;/b", "mine:parameters"; docs/API.md.
    Done plug(const std::string& specification) {
        return Done::of(ghost_plug_specification(specification.c_str(), ghost_.get()));
    }
    // The buffer must outlive the export or import.
    Done plug(Buffer& buffer) {
        return Done::of(ghost_associate_buffer(buffer.get(), ghost_.get()));
    }
    // Node: for an export the host to connect to; an import waits for it.
    Done plug_network(const std::string& node, const std::string& channel, int port) {
        return Done::of(ghost_associate_network(node.c_str(), channel.c_str(), port, ghost_.get()));
    }
    Done then(ghost_then what) { return Done::of(ghost_set_then(ghost_.get(), what)); }
    Done export_process(pid_t process) {
        return Done::of(ghost_export_process(ghost_.get(), process));
    }
    // The process's number in `process`.
    Done import_process(pid_t& process) {
        process = ghost_import_process(ghost_.get());
        return Done::of(process);
    }
    Statistics statistics() const {
        Statistics out{};
        ghost_get_statistics(ghost_.get(), &out);
        return out;
    }
    ghost_object* get() const { return ghost_.get(); }

  private:
    using Free = detail::Free<ghost_free>;
    std::unique_ptr<ghost_object, Free> ghost_;
};

}  // namespace ghost::v1
