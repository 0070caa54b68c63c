// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/file_list.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>

#include "base/encoding.hpp"
#include "base/json.hpp"
#include "ghost-core/format/files.hpp"

namespace ghost::plugin {

std::vector<ListedFile> files_for_ghost(const std::vector<core::WrittenFile>& files) {
    std::vector<ListedFile> out;
    for (const auto& file : files) {
        ListedFile& one = out.emplace_back();
        const bool is_text = bytes_json(file.path).is_string();
        (is_text ? one.path : one.path_hex) = is_text ? file.path : encode_hex(file.path);
        one.size = file.size;
        if (!file.contents) continue;
        one.mode = file.contents->mode;
        one.owner = file.contents->owner;
        one.group = file.contents->group;
        one.contents = {file.contents->bytes};
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

std::string path_of(const ListedFile& file) {
    return file.path_hex ? decode_hex(*file.path_hex).value_or("") : file.path.value_or("");
}

core::FileContents contents_of(const ListedFile& file) {
    return {file.contents->data, file.mode.value_or(0), file.owner.value_or(0),
            file.group.value_or(0)};
}

}  // namespace ghost::plugin
