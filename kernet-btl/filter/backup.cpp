// SPDX-License-Identifier: BSD-3-Clause
// Filter `backup`: a copy of every message in a file (backup_format.hpp). It only looks: whatever
// goes wrong with the file, the message goes its way.
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "kernet-btl/filter/backup_format.hpp"
#include "kernet-btl/filter/builtin.hpp"

namespace kernet::filter {

uint64_t backup_check(const BackupRecord& head, const void* bytes) {
    return XXH64(bytes, head.size, XXH64(&head, offsetof(BackupRecord, check), 0));
}

namespace {

constexpr int64_t try_again_us = 1'000'000;

Status make_folder(const std::string& folder) {
    if (mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) return {};
    return ghost::sys_error("make its folder", folder);
}

class Backup final : public Filter {
  public:
    Backup(const SocketId& socket, const std::string& folder)
        : rank_(socket.rank),
          peer_(socket.peer),
          folder_(folder),
          path_(folder + "/" + socket.job + "-" + std::to_string(rank_) + "-" +
                std::to_string(peer_) + ".backup") {}
    ~Backup() override {
        if (missing_ > 0)
            ghost::log::warning("kernet: {} messages or pieces of them are not in {}", missing_,
                                path_);
    }

    bool only_looks() const override { return true; }
    void look(const MessageId& id, const uint8_t* bytes, size_t size) override;
    void suspend() override { file_.reset(); }
    void wakeup() override { try_at_ = 0; }

    size_t encode(const MessageId&, const uint8_t*, size_t, uint8_t*) override { return 0; }
    Result<size_t> decode(const MessageId&, const uint8_t*, size_t, uint8_t*, size_t) override {
        return ghost::make_error(ghost::Code::internal, "decode with a filter that only looks");
    }

  private:
    bool open();
    bool append(BackupRecord& record, const uint8_t* bytes);
    void fail(const char* what);

    uint32_t rank_, peer_;
    std::string folder_, path_;
    ghost::Fd file_;
    off_t end_ = 0;                 // of the last whole record
    rlim_t limit_ = RLIM_INFINITY;  // beyond it a write would be a signal, by default a deadly one
    int64_t try_at_ = 0;            // not before, after a failure
    uint64_t missing_ = 0;
    bool reported_ = false;
};

void Backup::look(const MessageId& id, const uint8_t* bytes, size_t size) {
    if (file_ || (ghost::monotonic_us() >= try_at_ && open())) {
        BackupRecord record;
        record.kind = id.from == rank_ ? BackupKind::sent : BackupKind::received;
        record.tag = id.tag;
        record.part = static_cast<uint8_t>(id.part);
        record.number = id.number;
        record.size = size;
        if (append(record, bytes)) return;
    }
    missing_++;
}

bool Backup::open() {
    if (!make_folder(folder_)) {
        fail("make the folder of");
        return false;
    }
    file_.reset(
        ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat info {};
    if (!file_ || fstat(file_.get(), &info) != 0) {
        fail("open");
        return false;
    }
    if (!S_ISREG(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
        errno = EPERM;
        fail("take for its own");
        return false;
    }
    end_ = info.st_size;
    rlimit limit{RLIM_INFINITY, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &limit);
    limit_ = limit.rlim_cur;
    BackupRecord record;
    record.number = static_cast<uint64_t>(getpid());
    return append(record, nullptr);
}

bool Backup::append(BackupRecord& record, const uint8_t* bytes) {
    record.rank = rank_;
    record.peer = peer_;
    record.time_us = ghost::realtime_us();
    record.check = backup_check(record, bytes);
    const iovec parts[] = {{&record, sizeof record}, {const_cast<uint8_t*>(bytes), record.size}};
    const auto whole = static_cast<ssize_t>(sizeof record + record.size);
    const bool fits = static_cast<rlim_t>(end_ + whole) <= limit_;
    const ssize_t wrote = fits ? writev(file_.get(), parts, 2) : 0;
    if (wrote == whole) {
        end_ += whole;
        return true;
    }
    if (wrote >= 0) errno = fits ? ENOSPC : EFBIG;
    fail("write to");
    return false;
}

// Says so once; the end of what cannot be written whole is taken off.
void Backup::fail(const char* what) {
    const int error = errno;
    if (file_ && error != EPERM && ftruncate(file_.get(), end_) != 0)
        ghost::log::debug("kernet: {} keeps a part of a record", path_);
    file_.reset();
    try_at_ = ghost::monotonic_us() + try_again_us;
    if (reported_) return;
    reported_ = true;
    ghost::log::error(
        "kernet: filter backup cannot {} {}: {}; the job goes on, messages will be missing there",
        what, path_, std::strerror(error));
}

class BackupRecipe final : public Recipe {
  public:
    explicit BackupRecipe(std::string folder) : folder_(std::move(folder)) {}
    std::string name() const override { return "backup=" + folder_; }
    Status prepare() override {
        GHOST_TRY(make_folder(folder_));
        if (access(folder_.c_str(), W_OK | X_OK) == 0) return {};
        return ghost::sys_error("write into", folder_);
    }
    std::unique_ptr<Filter> make(const SocketId& socket) const override {
        return std::make_unique<Backup>(socket, folder_);
    }

  private:
    std::string folder_;
};

}  // namespace

Made make_backup(const std::string& option) {
    if (option.empty() || option.front() != '/')
        return ghost::because(ghost::Code::invalid, "it needs a folder that begins with /");
    return Made(std::make_unique<BackupRecipe>(option));
}

}  // namespace kernet::filter
