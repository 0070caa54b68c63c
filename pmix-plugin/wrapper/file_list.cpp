// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/file_list.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>

#include "base/encoding.hpp"
#include "ghost-core/format/files.hpp"

namespace ghost::plugin {
namespace {

Json row(const core::WrittenFile& file) {
    Json path = bytes_json(file.path);
    if (path.is_string()) return {{"path", std::move(path)}, {"size", file.size}};
    return {{"path_hex", encode_hex(file.path)}, {"size", file.size}};
}

}  // namespace

Json files_for_ghost(const std::vector<core::WrittenFile>& files) {
    Json out = Json::array();
    for (const auto& file : files) {
        Json& one = out.emplace_back(row(file));
        if (!file.contents) continue;
        one["mode"] = file.contents->mode;
        one["owner"] = file.contents->owner;
        one["group"] = file.contents->group;
        one["contents"] = encode_base64(file.contents->bytes);
    }
    return out;
}

std::vector<SeenFile> files_for_manifest(const std::vector<core::WrittenFile>& files, size_t limit,
                                         bool& all) {
    std::vector<SeenFile> out;
    for (const auto& file : files) {
        SeenFile one{.path = {file.path},
                     .size = file.size,
                     .file = core::file_identity(file.path, file.device, file.inode),
                     .changed = file.changed_ns,
                     .taken = file.taken_us,
                     .hash = file.contents ? file.contents->hash() : std::string(),
                     .begin = file.hash,
                     .modified = file.modified_ns};
        const size_t size = schema::encode(one).size() + 1;
        all = size <= limit;
        if (!all) break;
        limit -= size;
        out.push_back(std::move(one));
    }
    return out;
}

std::vector<ListedFile> files_in(const Json& metadata) {
    std::vector<ListedFile> out;
    for (const auto& file : metadata.value("files", Json::array())) {
        ListedFile& one = out.emplace_back();
        const auto hex = file.value("path_hex", std::string());
        one.path = hex.empty() ? file.value("path", std::string()) : decode_hex(hex).value_or("");
        one.size = file.value("size", uint64_t{0});
        if (!file.contains("contents")) continue;
        one.contents = {decode_base64(file.value("contents", std::string())).value_or(""),
                        file.value("mode", uint32_t{0}), file.value("owner", uint32_t{0}),
                        file.value("group", uint32_t{0})};
    }
    return out;
}

}  // namespace ghost::plugin
