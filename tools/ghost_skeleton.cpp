// SPDX-License-Identifier: BSD-3-Clause
#include "tools/ghost_skeleton.hpp"

#include <cstring>
#include <fmt/format.h>
#include <unistd.h>

#include "ghost-core/format/format.hpp"
#include "ghost-core/criu/protobuf.hpp"

namespace ghost::tools {
namespace {

constexpr size_t magics = 8;             // two magic numbers open an image of CRIU
constexpr size_t kept_limit = 16 << 20;  // bytes of one image file that are looked at
constexpr size_t all_kept = 128 << 20;   // of all, whatever a packed ghost unpacks to
constexpr size_t most_files = 1 << 20;
constexpr size_t longest_comm = 15;  // proc_pid_comm(5)

// Calls `entry` with each message of an image: u32 length, message.
template <typename Entry>
void for_each_message(std::string_view image, Entry&& entry) {
    if (image.size() < magics) return;
    image.remove_prefix(magics);
    while (image.size() >= sizeof(uint32_t)) {
        uint32_t size = 0;
        std::memcpy(&size, image.data(), sizeof size);
        image.remove_prefix(sizeof size);
        if (size > image.size()) return;
        entry(image.substr(0, size));
        image.remove_prefix(size);
    }
}

// comm of core.proto: task_core_entry (3), comm (6).
std::string name_in_core(std::string_view image) {
    std::string out;
    for_each_message(image, [&](std::string_view message) {
        core::ProtoReader core(message);
        while (auto field = core.next()) {
            if (field->number != 3) continue;
            core::ProtoReader task(field->text);
            while (auto inner = task.next())
                if (inner->number == 6) out = inner->text.substr(0, longest_comm);
        }
    });
    return out;
}

// A repeated number: one by one, or packed into bytes.
int count_numbers(const core::ProtoField& field) {
    if (field.text.empty()) return 1;
    int count = 0;
    for (const char c : field.text) count += (c & 0x80) == 0;
    return count;
}

}  // namespace

void SkeletonFiles::open(int file, std::string_view name) {
    if (names_.size() >= most_files) return;
    names_[file] = name;
    sizes_[names_[file]] = 0;
}

void SkeletonFiles::data(int file, std::string_view bytes) {
    const auto found = names_.find(file);
    if (found == names_.end()) return;
    const auto& name = found->second;
    sizes_[name] += bytes.size();
    if (name != "pstree.img" && !name.starts_with("core-")) return;
    auto& content = contents_[name];
    if (content.size() + bytes.size() > kept_limit || kept_ + bytes.size() > all_kept) return;
    content += bytes;
    kept_ += bytes.size();
}

std::vector<SkeletonProcess> SkeletonFiles::processes() const {
    std::vector<SkeletonProcess> out;
    const auto tree = contents_.find("pstree.img");
    if (tree == contents_.end()) return out;
    std::map<int, std::string> comms;  // a process may be named again and again
    for_each_message(tree->second, [&](std::string_view message) {
        SkeletonProcess process;
        core::ProtoReader entry(message);
        while (auto field = entry.next()) {
            if (field->number == 1) process.pid = static_cast<int>(field->value);
            if (field->number == 2) process.parent = static_cast<int>(field->value);
            if (field->number == 5) process.threads += count_numbers(*field);
        }
        const auto [comm, first] = comms.try_emplace(process.pid);
        if (const auto image = contents_.find(fmt::format("core-{}.img", process.pid));
            first && image != contents_.end())
            comm->second = name_in_core(image->second);
        process.name = comm->second;
        out.push_back(std::move(process));
    });
    return out;
}

Status read_skeleton(int fd, uint64_t first, SkeletonFiles& out) {
    std::string payload;
    for (uint64_t at = first; first != 0;) {
        core::ChunkHeader header;
        if (pread(fd, &header, sizeof header, static_cast<off_t>(at)) != sizeof header)
            return sys_error("read skeleton of ghost");
        if (header.size > core::chunk_limit)
            return make_error(Code::corrupt, "read ghost", {},
                              fmt::format("damaged at byte {}", at));
        const auto type = static_cast<core::ChunkType>(header.type);
        if (type == core::ChunkType::skeleton_end || type == core::ChunkType::end) break;
        if (type == core::ChunkType::skeleton_open || type == core::ChunkType::skeleton_data) {
            payload.resize(header.size);
            if (pread(fd, payload.data(), payload.size(), static_cast<off_t>(at + sizeof header)) !=
                static_cast<ssize_t>(payload.size()))
                return sys_error("read skeleton of ghost");
            if (type == core::ChunkType::skeleton_open)
                out.open(header.number, payload);
            else
                out.data(header.number, payload);
        }
        at += sizeof header + header.size;
    }
    return {};
}

}  // namespace ghost::tools
