// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/user_class.hpp"

#include <cerrno>
#include <dlfcn.h>
#include <fmt/format.h>

namespace ghost::core {
namespace {

// What a class may use of us. Its functions are called from within those of a class, of which this
// is the registry.
thread_local const ResourceRegistry* current_registry = nullptr;

int errno_of(const Error& error) {
    if (error.sys != 0) return -error.sys;
    switch (error.code) {
        case Code::invalid:
            return -EINVAL;
        case Code::refused:
            return -EACCES;
        case Code::not_found:
            return -ENOENT;
        case Code::timeout:
            return -ETIMEDOUT;
        case Code::peer_lost:
            return -EPIPE;
        case Code::corrupt:
            return -EBADMSG;
        default:
            return -EIO;
    }
}

int host_open(const char* specification, ghost_use use, void** resource) {
    if (current_registry == nullptr || specification == nullptr) return -EINVAL;
    auto made =
        current_registry->make(specification, use == GHOST_USE_WRITE ? Use::write : Use::read);
    if (!made) return errno_of(made.error());
    if (auto ready = (*made)->init(); !ready.ok()) return errno_of(ready.error());
    *resource = made->release();
    return 0;
}

int host_write(void* resource, const void* data, size_t size) {
    auto status = static_cast<Resource*>(resource)->write(data, size);
    return status.ok() ? 0 : errno_of(status.error());
}

ssize_t host_read(void* resource, void* data, size_t size) {
    auto got = static_cast<Resource*>(resource)->read(data, size);
    return got.ok() ? static_cast<ssize_t>(*got) : errno_of(got.error());
}

int host_finalize(void* resource) {
    auto status = static_cast<Resource*>(resource)->finalize();
    return status.ok() ? 0 : errno_of(status.error());
}

void host_close(void* resource) {
    delete static_cast<Resource*>(resource);
}

constexpr ghost_resource_host host = {host_open, host_write, host_read, host_finalize, host_close};

// An object of a user's class.
class UserResource : public Resource {
  public:
    UserResource(const ghost_resource_class& table, const ResourceRegistry& registry, Use use,
                 std::string parameters)
        : table_(table), registry_(registry), use_(use), parameters_(std::move(parameters)) {}
    ~UserResource() override {
        if (object_ != nullptr) table_.release(object_);
    }

    ResourceClass class_id() const override { return static_cast<ResourceClass>(table_.id); }
    Status init() override {
        current_registry = &registry_;
        const int status =
            table_.init(&object_, use_ == Use::write ? GHOST_USE_WRITE : GHOST_USE_READ,
                        parameters_.c_str(), &host);
        current_registry = nullptr;
        if (status != 0) object_ = nullptr;
        return result("open", status);
    }
    Status write(const void* data, size_t size) override {
        return result("write", table_.write(object_, data, size));
    }
    Result<size_t> read(void* data, size_t size) override {
        const auto got = table_.read(object_, data, size);
        if (got < 0) return result("read", static_cast<int>(got)).error();
        if (static_cast<size_t>(got) > size)
            return make_error(Code::internal, "read resource", label(), "more than asked for");
        return static_cast<size_t>(got);
    }
    Status finalize() override { return result("finalize", table_.finalize(object_)); }
    void interrupt() override {
        if (table_.interrupt != nullptr && object_ != nullptr) table_.interrupt(object_);
    }

  private:
    std::string label() const { return fmt::format("{}:{}", table_.name, parameters_); }
    Status result(const char* what, int status) const {
        if (status == 0) return {};
        const int error = status < 0 ? -status : EIO;
        return sys_error_of(error, fmt::format("{} resource", what), label(),
                            error == EBADMSG ? Code::corrupt : Code::io);
    }

    const ghost_resource_class& table_;
    const ResourceRegistry& registry_;
    Use use_;
    std::string parameters_;
    void* object_ = nullptr;
};

}  // namespace

Result<ResourceKind> user_class(void* library, const std::string& path) {
    using Entry = const ghost_resource_class* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(library, GHOST_RESOURCE_CLASS_SYMBOL));
    if (entry == nullptr)
        return make_error(Code::invalid, "load resource class", path,
                          "it has no function " GHOST_RESOURCE_CLASS_SYMBOL);
    return user_class(entry(), path);
}

Result<ResourceKind> user_class(const ghost_resource_class* table, const std::string& path) {
    if (table == nullptr || table->name == nullptr || table->init == nullptr ||
        table->read == nullptr || table->write == nullptr || table->finalize == nullptr ||
        table->release == nullptr)
        return make_error(Code::invalid, "load resource class", path, "its table has holes");
    ResourceKind kind;
    kind.id = table->id;
    kind.name = table->name;
    kind.make = [table](const ResourceRegistry& registry, Use use,
                        const ResourceParameters& parameters) {
        return Result<std::unique_ptr<Resource>>(
            std::make_unique<UserResource>(*table, registry, use, parameters.rest));
    };
    return kind;
}

}  // namespace ghost::core
