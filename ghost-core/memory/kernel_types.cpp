// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/kernel_types.hpp"

#include <algorithm>
#include <fcntl.h>
#include <linux/btf.h>
#include <mutex>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace ghost::core {
namespace {

constexpr const char* description = "/sys/kernel/btf/vmlinux";
constexpr int deepest_name = 16;  // of typedef and const

// Of the kernel's own text, which is taken to be sound where its head is.
const btf_type& type_at(const std::string& text, size_t at) {
    return *reinterpret_cast<const btf_type*>(text.data() + at);
}

// Bytes behind a type's description that belong to it.
size_t more_of(const btf_type& type) {
    const size_t count = BTF_INFO_VLEN(type.info);
    switch (BTF_INFO_KIND(type.info)) {
        case BTF_KIND_INT:
        case BTF_KIND_VAR:
        case BTF_KIND_DECL_TAG:
            return sizeof(uint32_t);
        case BTF_KIND_ARRAY:
            return sizeof(btf_array);
        case BTF_KIND_STRUCT:
        case BTF_KIND_UNION:
            return count * sizeof(btf_member);
        case BTF_KIND_ENUM:
            return count * sizeof(btf_enum);
        case BTF_KIND_ENUM64:
            return count * sizeof(btf_enum64);
        case BTF_KIND_FUNC_PROTO:
            return count * sizeof(btf_param);
        case BTF_KIND_DATASEC:
            return count * sizeof(btf_var_secinfo);
        default:
            return 0;
    }
}

bool has_members(const btf_type& type) {
    const auto kind = BTF_INFO_KIND(type.info);
    return kind == BTF_KIND_STRUCT || kind == BTF_KIND_UNION;
}

}  // namespace

std::shared_ptr<const KernelTypes> KernelTypes::get() {
    static std::mutex mutex;
    static std::weak_ptr<const KernelTypes> last;
    std::lock_guard lock(mutex);
    auto out = last.lock();
    if (out) return out;
    if (auto types = read()) last = out = std::make_shared<KernelTypes>(std::move(*types));
    return out;
}

std::optional<KernelTypes> KernelTypes::read() {
    const Fd file(open(description, O_RDONLY | O_CLOEXEC));
    struct stat info {};
    if (!file || fstat(file.get(), &info) != 0) return std::nullopt;
    KernelTypes out;
    out.text_.resize(static_cast<size_t>(info.st_size));
    for (size_t size = 0; size < out.text_.size();) {
        const auto got = ::read(file.get(), &out.text_[size], out.text_.size() - size);
        if (got <= 0) return std::nullopt;
        size += static_cast<size_t>(got);
    }
    if (!out.index()) return std::nullopt;
    return out;
}

bool KernelTypes::index() {
    if (text_.size() < sizeof(btf_header)) return false;
    const auto& head = *reinterpret_cast<const btf_header*>(text_.data());
    strings_ = size_t{head.hdr_len} + head.str_off;
    size_t at = size_t{head.hdr_len} + head.type_off;
    const size_t end = at + head.type_len;
    if (head.magic != BTF_MAGIC || end > text_.size() || strings_ + head.str_len > text_.size())
        return false;
    at_.reserve(head.type_len / sizeof(btf_type));
    at_.push_back(0);  // the first one is void, and not described
    while (at + sizeof(btf_type) <= end) {
        at_.push_back(at);
        at += sizeof(btf_type) + more_of(type_at(text_, at));
    }
    return at == end;
}

std::string_view KernelTypes::name_at(uint32_t offset) const {
    return text_.c_str() + std::min(strings_ + offset, text_.size());
}

std::optional<uint32_t> KernelTypes::find(uint32_t kind, std::string_view name) const {
    for (uint32_t i = 1; i < at_.size(); i++) {
        const auto& type = type_at(text_, at_[i]);
        if (BTF_INFO_KIND(type.info) == kind && name_at(type.name_off) == name) return i;
    }
    return std::nullopt;
}

// Without its other names, and const.
uint32_t KernelTypes::plain(uint32_t type) const {
    for (int i = 0; i < deepest_name && type != 0 && type < at_.size(); i++) {
        const auto& one = type_at(text_, at_[type]);
        const auto kind = BTF_INFO_KIND(one.info);
        if (kind != BTF_KIND_TYPEDEF && kind != BTF_KIND_CONST && kind != BTF_KIND_VOLATILE) break;
        type = one.type;
    }
    return type < at_.size() ? type : 0;
}

std::optional<uint32_t> KernelTypes::member(uint32_t& type, std::string_view name) const {
    if (type == 0) return std::nullopt;
    const auto& whole = type_at(text_, at_[type]);
    if (!has_members(whole)) return std::nullopt;
    const auto* members = reinterpret_cast<const btf_member*>(&whole + 1);
    for (uint32_t i = 0; i < BTF_INFO_VLEN(whole.info); i++) {
        const auto its = name_at(members[i].name_off);
        const uint32_t bits = BTF_INFO_KFLAG(whole.info) ? BTF_MEMBER_BIT_OFFSET(members[i].offset)
                                                         : members[i].offset;
        uint32_t inner = plain(members[i].type);
        if (its == name) {
            type = inner;
            return bits / 8;
        }
        if (!its.empty()) continue;
        if (const auto deeper = member(inner, name)) {
            type = inner;
            return bits / 8 + *deeper;
        }
    }
    return std::nullopt;
}

std::optional<uint32_t> KernelTypes::function(std::string_view name) const {
    return find(BTF_KIND_FUNC, name);
}

std::optional<uint32_t> KernelTypes::offset(std::string_view structure,
                                            std::initializer_list<std::string_view> members) const {
    auto type = find(BTF_KIND_STRUCT, structure);
    uint32_t out = 0;
    for (const auto name : members) {
        const auto at = type ? member(*type, name) : std::nullopt;
        if (!at) return std::nullopt;
        out += *at;
    }
    return out;
}

}  // namespace ghost::core
