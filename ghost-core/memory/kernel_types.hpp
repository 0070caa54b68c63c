// SPDX-License-Identifier: BSD-3-Clause
// Where the running kernel keeps things: its description of its own types (BTF,
// Documentation/bpf/btf.rst of Linux), for programs that it is given to run (bpf(2)).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ghost::core {

class KernelTypes {
  public:
    // Takes 20 ms, unless somebody has them already. Null where the kernel describes none, or they
    // may not be read. Any thread.
    static std::shared_ptr<const KernelTypes> get();

    // The number of a function's description.
    std::optional<uint32_t> function(std::string_view name) const;
    // Bytes from the beginning of a structure to a member, to a member of that one, and so on.
    std::optional<uint32_t> offset(std::string_view structure,
                                   std::initializer_list<std::string_view> members) const;

  private:
    static std::optional<KernelTypes> read();
    bool index();
    std::optional<uint32_t> find(uint32_t kind, std::string_view name) const;
    std::string_view name_at(uint32_t offset) const;
    uint32_t plain(uint32_t type) const;
    // Also of one in a member without a name. Its type is left in `type`.
    std::optional<uint32_t> member(uint32_t& type, std::string_view name) const;

    std::string text_;
    size_t strings_ = 0;
    std::vector<size_t> at_;  // where the description of a type is, by its number
};

// Collects places that are of use only if all are known.
class KernelPlaces {
  public:
    KernelPlaces() : types_(KernelTypes::get()) {}

    void function(uint32_t& to, std::string_view name) {
        put(to, types_ ? types_->function(name) : std::nullopt);
    }
    void offset(uint32_t& to, std::string_view structure,
                std::initializer_list<std::string_view> members) {
        put(to, types_ ? types_->offset(structure, members) : std::nullopt);
    }
    bool all() const { return all_; }

  private:
    void put(uint32_t& to, std::optional<uint32_t> found) {
        all_ = all_ && found.has_value();
        to = found.value_or(0);
    }

    const std::shared_ptr<const KernelTypes> types_;
    bool all_ = true;
};

}  // namespace ghost::core
