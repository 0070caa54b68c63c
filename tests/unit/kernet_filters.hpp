// SPDX-License-Identifier: BSD-3-Clause
// What suites of filters share: chains to try, folders, and a reader of backups.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernet-btl/filter/backup_format.hpp"

namespace kernettest {

// The example of docs/examples, as it was built.
inline std::string checked_filter() {
    return std::filesystem::absolute("docs/examples/.libs/checked_filter.so").string();
}

// A folder of the test's own.
struct Folder {
    Folder() {
        char name[] = "/tmp/ghost-filter-XXXXXX";
        if (mkdtemp(name) != nullptr) path = name;
    }
    ~Folder() {
        std::error_code ignored;
        if (!path.empty()) std::filesystem::remove_all(path, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string path;
};

// FOLDER and CHECKED stand for places of the run.
inline constexpr const char* all_chains[] = {
    "crypto",
    "compress",
    "compress=zstd",
    "backup=FOLDER",
    "so:CHECKED",
    "so:CHECKED=3,compress=zstd,backup=FOLDER",
    "backup=FOLDER,crypto,compress,so:CHECKED=200",
};

inline std::string with_places(std::string chain, const Folder& folder) {
    auto put = [&chain](const std::string& name, const std::string& place) {
        for (size_t at; (at = chain.find(name)) != std::string::npos;)
            chain.replace(at, name.size(), place);
    };
    put("FOLDER", folder.path);
    put("CHECKED", checked_filter());
    return chain;
}

// As a part of a test's name.
inline std::string case_name(std::string chain) {
    std::replace_if(
        chain.begin(), chain.end(), [](char c) { return !std::isalnum(c); }, '_');
    return chain;
}

struct Backed {
    kernet::filter::BackupRecord head;
    std::vector<uint8_t> bytes;
};

// The whole records of a backup, up to the first that is not.
inline std::vector<Backed> read_backup(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(in), {}};
    std::vector<Backed> out;
    for (size_t at = 0; all.size() - at >= sizeof(kernet::filter::BackupRecord);) {
        Backed record;
        std::memcpy(&record.head, all.data() + at, sizeof record.head);
        at += sizeof record.head;
        if (record.head.magic != kernet::filter::BackupRecord{}.magic ||
            record.head.size > all.size() - at) {
            break;
        }
        record.bytes.assign(all.begin() + static_cast<ptrdiff_t>(at),
                            all.begin() + static_cast<ptrdiff_t>(at + record.head.size));
        at += record.head.size;
        if (kernet::filter::backup_check(record.head, record.bytes.data()) != record.head.check)
            break;
        out.push_back(std::move(record));
    }
    return out;
}

}  // namespace kernettest
