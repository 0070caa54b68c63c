// SPDX-License-Identifier: BSD-3-Clause
// A filter out of a user's shared object (ghost_filter.h).
#include <cstdlib>
#include <dlfcn.h>

#include "base/log.hpp"
#include "kernet-btl/filter/builtin.hpp"
#include "kernet-btl/include/ghost/ghost_filter.h"

namespace kernet::filter {

namespace {

ghost_filter_message message_of(const MessageId& id) {
    return {id.from, id.to, id.number, id.tag, static_cast<uint8_t>(id.part)};
}

class Users final : public Filter {
  public:
    Users(const ghost_filter& filter, void* state) : filter_(filter), state_(state) {}
    ~Users() override { filter_.close(state_); }

    size_t bound(size_t size) const override { return filter_.bound(state_, size); }

    size_t encode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out) override {
        const ghost_filter_message message = message_of(id);
        const ssize_t made = filter_.encode(state_, &message, in, size, out);
        if (made >= 0 && static_cast<size_t>(made) <= bound(size)) return static_cast<size_t>(made);
        ghost::log::error(
            "kernet: filter {} cannot encode message {} to rank {}: it can neither be sent nor "
            "left out, this rank ends",
            filter_.name, id.number, id.to);
        std::abort();
    }

    Result<size_t> decode(const MessageId& id, const uint8_t* in, size_t size, uint8_t* out,
                          size_t room) override {
        const ghost_filter_message message = message_of(id);
        const ssize_t made = filter_.decode(state_, &message, in, size, out, room);
        if (made >= 0 && static_cast<size_t>(made) <= room) return static_cast<size_t>(made);
        return ghost::make_error(ghost::Code::corrupt, "decode a message in filter", filter_.name);
    }

    void suspend() override {
        if (filter_.suspend) filter_.suspend(state_);
    }
    void wakeup() override {
        if (filter_.wakeup) filter_.wakeup(state_);
    }

  private:
    const ghost_filter& filter_;
    void* state_;
};

class UsersRecipe final : public Recipe {
  public:
    UsersRecipe(std::string path, std::string option)
        : path_(std::move(path)), option_(std::move(option)) {}

    // Nodes may have it in different builds, but not in different versions.
    std::string name() const override {
        const std::string what = filter_ ? std::string("so:") + filter_->name : "so:" + path_;
        return option_.empty() ? what : what + "=" + option_;
    }
    Status prepare() override;
    std::unique_ptr<Filter> make(const SocketId& socket) const override;

  private:
    std::string path_, option_;
    const ghost_filter* filter_ = nullptr;
};

Status UsersRecipe::prepare() {
    // Never closed: sockets and the user's own threads may be in it until the process ends.
    void* object = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!object) return ghost::make_error(ghost::Code::unsupported, "load it", {}, dlerror());
    const auto get = reinterpret_cast<const ghost_filter* (*)()>(dlsym(object, "ghost_filter_get"));
    if (!get) return ghost::because(ghost::Code::invalid, "it has no ghost_filter_get()");
    const ghost_filter* filter = get();
    if (!filter) return ghost::because(ghost::Code::refused, "it cannot be used here");
    if (filter->version != GHOST_FILTER_VERSION) {
        return ghost::because(ghost::Code::unsupported, "it is for version " +
                                                            std::to_string(filter->version) +
                                                            " of ghost_filter.h, this is " +
                                                            std::to_string(GHOST_FILTER_VERSION));
    }
    if (!filter->name || !filter->open || !filter->close || !filter->bound || !filter->encode ||
        !filter->decode) {
        return ghost::because(ghost::Code::invalid, "it leaves out functions it must have");
    }
    filter_ = filter;
    return {};
}

std::unique_ptr<Filter> UsersRecipe::make(const SocketId& socket) const {
    const ghost_filter_socket whose{socket.job.c_str(), socket.rank, socket.peer, option_.c_str()};
    void* state = filter_->open(&whose);
    if (!state) {
        ghost::log::error("kernet: filter {} has no state for rank {}: this rank ends",
                          filter_->name, socket.peer);
        std::abort();
    }
    return std::make_unique<Users>(*filter_, state);
}

}  // namespace

Made make_shared_object(const std::string& option) {
    const size_t end = option.find('=');
    std::string path = option.substr(0, end);
    if (path.empty() || path.front() != '/')
        return ghost::because(ghost::Code::invalid, "the path must begin with /");
    return Made(std::make_unique<UsersRecipe>(
        std::move(path), end == std::string::npos ? "" : option.substr(end + 1)));
}

}  // namespace kernet::filter
