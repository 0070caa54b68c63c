// SPDX-License-Identifier: BSD-3-Clause
// Ghost from C++17: owners of what ghost.h gives. Header only; link with libghost (pkg-config
// ghost).
//
//   auto g = ghost::Ghost::make();
//   if (auto done = g->plug("zstd:/var/ghosts/a"); !done) …done.failure().text…
//   if (auto done = g->export_process(pid); !done) …
//
// ghost.h says of each function who owns what, how it fails, and what threads, fork(2) and signal
// handlers may do. An object that was moved from may only be destroyed or assigned to.
#pragma once

#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../ghost.h"
#include "result.hpp"

namespace ghost {
inline namespace v2 {

// Why a call failed: errno, and ghost_error() at that time.
using Failure = FailureOf<ghost_error>;
// A value, or why there is none.
template <typename T>
using Result = ResultOf<T, Failure>;
using Done = Result<std::monostate>;

namespace detail {

template <auto function>
struct Free {
    template <typename T>
    void operator()(T* object) const {
        function(object);
    }
};

inline Done done(int result) {
    if (result < 0) return Failure::of_call();
    return std::monostate();
}

// Of a call that gives bytes or a process number.
template <typename T, typename Got>
Result<T> value(Got got) {
    if (got < 0) return Failure::of_call();
    return static_cast<T>(got);
}

}  // namespace detail

// A ghost in memory; it grows.
class Buffer {
  public:
    // `size` bytes of it are touched at once.
    static Result<Buffer> make(size_t size = 0) {
        Buffer out(ghost_buffer_create(size));
        if (!out.buffer_) return Failure::of_call();
        return out;
    }
    size_t size() const { return ghost_buffer_size(get()); }
    Result<size_t> read(void* data, size_t size) {
        return detail::value<size_t>(ghost_buffer_read(get(), data, size));
    }
    Done write(const void* data, size_t size) {
        return detail::done(ghost_buffer_write(get(), data, size));
    }
    void rewind() { ghost_buffer_rewind(get()); }
    void clear() { ghost_buffer_clear(get()); }
    ghost_buffer* get() const { return buffer_.get(); }

  private:
    explicit Buffer(ghost_buffer* buffer) : buffer_(buffer) {}
    std::unique_ptr<ghost_buffer, detail::Free<ghost_buffer_free>> buffer_;
};

// A file that is written or read, complete or absent.
class File {
  public:
    static Result<File> open(const std::string& path) {
        File out(ghost_file_open(path.c_str()));
        if (!out.file_) return Failure::of_call();
        return out;
    }
    Result<size_t> read(void* data, size_t size) {
        return detail::value<size_t>(ghost_file_read(get(), data, size));
    }
    Done write(const void* data, size_t size) {
        return detail::done(ghost_file_write(get(), data, size));
    }
    // Gives what was written its name. The destructor does that too, and nobody hears of a failure.
    Done close() { return detail::done(ghost_file_close(file_.release())); }
    ghost_file* get() const { return file_.get(); }

  private:
    explicit File(ghost_file* file) : file_(file) {}
    std::unique_ptr<ghost_file, detail::Free<ghost_file_close>> file_;
};

// Bytes to and from another node.
class Connection {
  public:
    static Result<Connection> open(const std::string& node, const std::string& channel, int port) {
        return of(ghost_connection_open(node.c_str(), channel.c_str(), port));
    }
    // Waits for one that connects.
    static Result<Connection> wait(const std::string& channel, int port) {
        return of(ghost_connection_open(nullptr, channel.c_str(), port));
    }
    Result<size_t> read(void* data, size_t size) {
        return detail::value<size_t>(ghost_connection_read(get(), data, size));
    }
    Done write(const void* data, size_t size) {
        return detail::done(ghost_connection_write(get(), data, size));
    }
    ghost_connection* get() const { return connection_.get(); }

  private:
    explicit Connection(ghost_connection* connection) : connection_(connection) {}
    static Result<Connection> of(ghost_connection* connection) {
        Connection out(connection);
        if (!out.connection_) return Failure::of_call();
        return out;
    }
    std::unique_ptr<ghost_connection, detail::Free<ghost_connection_close>> connection_;
};

class Ghost {
  public:
    static Result<Ghost> make() {
        Ghost out(ghost_create());
        if (!out.ghost_) return Failure::of_call();
        return out;
    }
    // "file:/a", "zstd:/a", "stripe:/a;/b", "mine:parameters".
    Done plug(const std::string& specification) {
        return detail::done(ghost_plug_specification(get(), specification.c_str()));
    }
    // A class by its id, with its parameters.
    Done plug(uint32_t class_id, const std::string& parameters) {
        if (auto plugged = detail::done(ghost_plug(get(), class_id)); !plugged) return plugged;
        return detail::done(ghost_set_parameters(get(), parameters.c_str()));
    }
    // The buffer or file must outlive the export or import.
    Done plug(Buffer& buffer) {
        if (auto plugged = detail::done(ghost_plug(get(), GHOST_MEMORY)); !plugged) return plugged;
        return detail::done(ghost_associate_buffer(get(), buffer.get()));
    }
    Done plug(File& file) {
        if (auto plugged = detail::done(ghost_plug(get(), GHOST_FILE)); !plugged) return plugged;
        return detail::done(ghost_associate_file(get(), file.get()));
    }
    // Node: for an export the host to connect to; an import waits for it.
    Done plug_network(const std::string& node, const std::string& channel, int port) {
        if (auto plugged = detail::done(ghost_plug(get(), GHOST_NETWORK)); !plugged) return plugged;
        return detail::done(ghost_associate_network(get(), node.c_str(), channel.c_str(), port));
    }
    Done mode(ghost_mode how) { return detail::done(ghost_set_mode(get(), how)); }
    Done track(bool tracking) { return detail::done(ghost_set_tracking(get(), tracking ? 1 : 0)); }
    // Import what another user has made, too.
    Done trust_owner(bool trust) {
        return detail::done(ghost_set_trust_owner(get(), trust ? 1 : 0));
    }
    // The file of a secret key; NULL: exports do not sign.
    Done sign_with(const char* file) { return detail::done(ghost_set_sign_key(get(), file)); }
    // The file of a public key; NULL: signatures are not looked at.
    Done signed_by(const char* file) { return detail::done(ghost_set_verify_key(get(), file)); }
    // The parent must outlive the exports and imports; it may be moved. nullptr: a full ghost.
    Done based_on(Ghost& parent) { return detail::done(ghost_set_parent(get(), parent.get())); }
    Done based_on(std::nullptr_t) { return detail::done(ghost_set_parent(get(), nullptr)); }
    Done then(ghost_then what) { return detail::done(ghost_set_then(get(), what)); }
    // NULL: nothing is called.
    Done on_progress(ghost_progress progress, void* argument) {
        return detail::done(ghost_set_progress(get(), progress, argument));
    }
    // By any thread, and by signal handlers.
    void cancel() { ghost_cancel(get()); }
    Done export_process(pid_t process) {
        return detail::done(ghost_export_process(get(), process));
    }
    Result<pid_t> import_process() { return detail::value<pid_t>(ghost_import_process(get())); }
    ghost_statistics statistics() const {
        ghost_statistics out{};
        out.size = sizeof out;
        ghost_get_statistics(get(), &out);
        return out;
    }
    ghost_object* get() const { return ghost_.get(); }

  private:
    explicit Ghost(ghost_object* ghost) : ghost_(ghost) {}
    std::unique_ptr<ghost_object, detail::Free<ghost_free>> ghost_;
};

// Processes by their numbers.
inline Result<pid_t> start_process(const std::vector<std::string>& program) {
    std::vector<char*> words;
    for (const auto& word : program) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    return detail::value<pid_t>(ghost_start_process(words.data()));
}
// Its status, as of wait(2).
inline Result<int> wait_process(pid_t process) {
    int status = 0;
    if (ghost_wait_process(process, &status) != 0) return Failure::of_call();
    return status;
}
inline Done resume_process(pid_t process) {
    return detail::done(ghost_resume_process(process));
}
inline Done destroy_process(pid_t process) {
    return detail::done(ghost_destroy_process(process));
}
// Whether this process is a clone; a failure where nobody can tell.
inline Result<bool> is_clone() {
    return detail::value<bool>(ghost_is_clone());
}

// Classes of one's own.
inline Done register_class(const ghost_resource_class& table) {
    return detail::done(ghost_register_class(&table));
}
inline Done load_class(const std::string& shared_object) {
    return detail::done(ghost_load_class(shared_object.c_str()));
}

}  // namespace v2
}  // namespace ghost
