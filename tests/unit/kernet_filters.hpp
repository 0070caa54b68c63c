// SPDX-License-Identifier: BSD-3-Clause
// What suites of filters share: chains to try, folders, and a reader of backups.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/fd.hpp"
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

// Reads a backup record by record, also while it is being written, and holds one of them at a time.
class BackupReader {
  public:
    explicit BackupReader(std::string path) : path_(std::move(path)) {}

    // The next whole record; false if there is none, or none yet.
    bool next(Backed& record) {
        using kernet::filter::BackupRecord;
        if (!file_) file_.reset(open(path_.c_str(), O_RDWR | O_CLOEXEC));
        if (!file_ || !read(at_, &record.head, sizeof record.head) ||
            record.head.magic != BackupRecord{}.magic)
            return false;
        const uint64_t begin = at_ + sizeof record.head, end = size();
        if (begin > end || record.head.size > end - begin) return false;
        record.bytes.resize(record.head.size);
        if (!read(begin, record.bytes.data(), record.head.size) ||
            kernet::filter::backup_check(record.head, record.bytes.data()) != record.head.check)
            return false;
        at_ = begin + record.head.size;
        return true;
    }
    // Nothing comes behind the last record it gave.
    bool at_end() { return file_ && at_ == size(); }
    // What it has read needs no room on the disk any more; the file keeps its size, for its writer.
    void forget() {
        constexpr uint64_t block = 1 << 20;
        const uint64_t upto = at_ & ~(block - 1);
        if (upto - forgotten_ < 16 * block) return;
        const int freed =
            fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(forgotten_), static_cast<off_t>(upto - forgotten_));
        // (not every file system can)
        EXPECT_TRUE(freed == 0 || errno == EOPNOTSUPP) << path_ << ": " << std::strerror(errno);
        forgotten_ = upto;
    }

  private:
    uint64_t size() const {
        struct stat info {};
        return fstat(file_.get(), &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
    }
    bool read(uint64_t at, void* to, size_t size) const {
        return pread(file_.get(), to, size, static_cast<off_t>(at)) == static_cast<ssize_t>(size);
    }

    std::string path_;
    ghost::Fd file_;
    uint64_t at_ = 0, forgotten_ = 0;
};

// The whole records of a short backup, up to the first that is not.
inline std::vector<Backed> read_backup(const std::string& path) {
    std::vector<Backed> out;
    Backed record;
    for (BackupReader reader(path); reader.next(record);) out.push_back(std::move(record));
    return out;
}

}  // namespace kernettest
