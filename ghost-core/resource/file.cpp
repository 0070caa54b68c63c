// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/file.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/fd.hpp"
#include "base/own_file.hpp"
#include "ghost-core/resource/buffer.hpp"
#include "ghost-core/resource/slot_threads.hpp"

namespace ghost::core {
namespace {

constexpr size_t block = 2 << 20;  // bytes of one transfer, a huge page: one piece for the device
constexpr size_t in_flight = 4;    // transfers
// More blocks than that: a device that is told of several transfers may report them all at once,
// and goes idle unless what comes next is there at that moment.
constexpr size_t most_blocks = 2 * in_flight;
constexpr size_t alignment = 4096;  // O_DIRECT wants at most that of disks and file systems
// Blocks are allocated ahead in such steps: transfers that make a file longer exclude each other
// (ext4), and a full disk is found earlier.
constexpr uint64_t allocation_step = 256 << 20;

std::string folder_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

size_t aligned(size_t size) {
    return (size + alignment - 1) / alignment * alignment;
}

bool set_direct(int fd, bool direct) {
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

// Whether most of the file is in the page cache, by looking at some places of it.
bool is_cached(int fd, uint64_t size) {
    constexpr uint64_t places = 64;
    void* base = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) return false;
    uint64_t there = 0;
    for (uint64_t i = 0; i < places; i++) {
        unsigned char resident = 0;
        const uint64_t at = size / places * i / alignment * alignment;
        if (mincore(static_cast<char*>(base) + at, 1, &resident) == 0) there += resident & 1;
    }
    munmap(base, size);
    return there > places / 2;
}

}  // namespace

struct FileResource::State {
    struct Slot {
        char* data = nullptr;
        uint64_t offset = 0;
        size_t size = 0;  // write: filled; read: got
        int error = 0;    // errno
    };

    Fd fd;
    bool plain = false;     // no regular file: neither name nor place, no transfers in flight
    std::string temporary;  // its name, if it needs one
    Fd replaced;            // what had the name before
    AlignedMemory memory;
    std::vector<Slot> slots;
    std::atomic<bool> direct = false;
    uint64_t file_size = 0;  // read
    uint64_t at = 0;         // bytes written or given so far
    uint64_t allocated = 0;
    bool allocates = true;
    std::unique_ptr<SlotThreads> workers;  // last: its threads use what is above

    ~State() {
        workers.reset();
        if (!temporary.empty()) unlink(temporary.c_str());
    }
    Status start(size_t count, bool writes);
    size_t current() const { return at / block % slots.size(); }
    void write_slot(Slot& slot);
    void read_slot(Slot& slot);
    void send(size_t slot);
    int first_error();
    void allocate(uint64_t end);
    Status open_new(const std::string& path);
    Status give_name(const std::string& path);
};

Status FileResource::State::start(size_t count, bool writes) {
    GHOST_TRY(memory.allocate(count * block));
    slots.resize(count);
    for (size_t i = 0; i < count; i++) {
        slots[i].data = memory.data() + i * block;
        slots[i].offset = i * block;
    }
    workers = std::make_unique<SlotThreads>(count, in_flight, [this, writes](size_t slot) {
        writes ? write_slot(slots[slot]) : read_slot(slots[slot]);
    });
    return {};
}

void FileResource::State::write_slot(Slot& slot) {
    // The last transfer is a whole number of sectors too; finalize cuts what is too much.
    const size_t size = direct ? aligned(slot.size) : slot.size;
    if (size > slot.size) std::memset(slot.data + slot.size, 0, size - slot.size);
    size_t done = 0;
    while (done < size) {
        const auto put =
            pwrite(fd.get(), slot.data + done, size - done, static_cast<off_t>(slot.offset + done));
        if (put < 0 && errno == EINTR) continue;
        // a file system that takes the flag and then not the transfer, or a part of a sector
        if (put < 0 && errno == EINVAL && direct.exchange(false)) {
            set_direct(fd.get(), false);
            continue;
        }
        if (put <= 0) {
            slot.error = put < 0 ? errno : EIO;
            return;
        }
        done += static_cast<size_t>(put);
    }
}

void FileResource::State::read_slot(Slot& slot) {
    slot.size = 0;
    while (slot.size < block) {
        const auto got = pread(fd.get(), slot.data + slot.size, block - slot.size,
                               static_cast<off_t>(slot.offset + slot.size));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EINVAL && direct.exchange(false)) {
            set_direct(fd.get(), false);
            continue;
        }
        if (got < 0) slot.error = errno;
        if (got <= 0) return;
        slot.size += static_cast<size_t>(got);
        if (slot.offset + slot.size >= file_size) return;
    }
}

Status FileResource::State::open_new(const std::string& path) {
    const auto folder = folder_of(path);
    fd = Fd(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!fd) {
        temporary = path + ".XXXXXX";
        fd = Fd(mkostemp(temporary.data(), O_CLOEXEC));
        if (!fd) {
            temporary.clear();
            return sys_error("create ghost", path);
        }
    }
    direct = set_direct(fd.get(), true);
    return start(most_blocks, true);
}

void FileResource::State::allocate(uint64_t end) {
    while (allocates && allocated < end) {
        // what fails here fails again, and is told, when it is written
        allocates = fallocate(fd.get(), 0, static_cast<off_t>(allocated),
                              static_cast<off_t>(allocation_step)) == 0;
        allocated += allocation_step;
    }
}

void FileResource::State::send(size_t slot) {
    allocate(slots[slot].offset + slots[slot].size);
    workers->start(slot);
}

// After all transfers; 0 if there is none.
int FileResource::State::first_error() {
    workers->wait_all();
    for (const auto& slot : slots)
        if (slot.error != 0) return slot.error;
    return 0;
}

Status FileResource::State::give_name(const std::string& path) {
    if (temporary.empty()) {
        // linkat() does not replace what has the name, rename() does
        const auto source = fmt::format("/proc/self/fd/{}", fd.get());
        for (int tries = 0; temporary.empty(); tries++) {
            auto name = fmt::format("{}.{:x}.{}", path, getpid(), tries);
            if (linkat(AT_FDCWD, source.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0)
                temporary = std::move(name);  // needs no memory: it is removed if it is not renamed
            else if (errno != EEXIST || tries > 100)
                return sys_error("name ghost", path);
        }
    }
    // Giving back the blocks of a large file takes as long as writing a fifth of it, and somebody
    // may stand until this is done: they go when this object does.
    replaced = Fd(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (rename(temporary.c_str(), path.c_str()) != 0) return sys_error("name ghost", path);
    temporary.clear();
    const auto folder = folder_of(path);
    const Fd dir(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!dir || fsync(dir.get()) != 0) return sys_error("flush folder", folder);
    return {};
}

FileResource::FileResource(std::string path, Use use, Whose whose)
    : path_(std::move(path)), use_(use), whose_(whose), state_(std::make_unique<State>()) {}

FileResource::~FileResource() = default;

Status FileResource::open_to_read() {
    if (whose_ != Whose::anybodys) {
        auto own = whose_ == Whose::own ? open_own_file(path_) : open_trusted_file(path_);
        if (!own) return own.error();
        state_->fd = std::move(*own);
    } else {
        state_->fd = Fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    }
    if (state_->fd) return {};
    return sys_error("open ghost", path_, errno == ENOENT ? Code::not_found : Code::io);
}

Status FileResource::init() {
    struct stat info {};
    auto& state = *state_;
    if (use_ == Use::read) {
        GHOST_TRY(open_to_read());
        if (fstat(state.fd.get(), &info) != 0) return sys_error("look at", path_);
    }
    const bool there = use_ == Use::read || stat(path_.c_str(), &info) == 0;
    if (there && S_ISDIR(info.st_mode))
        return make_error(Code::invalid, "use a folder as ghost", path_);
    state.plain = there && !S_ISREG(info.st_mode);
    if (use_ == Use::write && !state.plain) return state.open_new(path_);
    if (use_ == Use::write) state.fd = Fd(open(path_.c_str(), O_WRONLY | O_CLOEXEC));
    if (!state.fd) return sys_error("open ghost", path_);
    if (state.plain) return {};
    state.file_size = static_cast<uint64_t>(info.st_size);
    if (!is_cached(state.fd.get(), state.file_size))
        state.direct = set_direct(state.fd.get(), true);
    const size_t blocks = (state.file_size + block - 1) / block;
    GHOST_TRY(state.start(std::clamp<size_t>(blocks, 1, most_blocks), false));
    for (size_t slot = 0; slot < state.slots.size(); slot++) state.workers->start(slot);
    return {};
}

Error FileResource::fail(int error) {
    const auto tried =
        fmt::format("write ghost (after {} bytes; nothing is left of it)", state_->at);
    state_ = std::make_unique<State>();  // the space is needed
    failed_ = error;
    return sys_error_of(error, tried, path_);
}

Status FileResource::write_plain(const char* data, size_t size) {
    while (size > 0) {
        const auto done = ::write(state_->fd.get(), data, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return fail(done < 0 ? errno : EIO);
        data += done;
        state_->at += static_cast<uint64_t>(done);
        size -= static_cast<size_t>(done);
    }
    return {};
}

Status FileResource::write(const void* data, size_t size) {
    if (failed_ != 0) return sys_error_of(failed_, "write ghost", path_);
    const auto* from = static_cast<const char*>(data);
    auto& state = *state_;
    if (state.plain) return write_plain(from, size);
    while (size > 0) {
        const size_t number = state.current(), within = state.at % block;
        auto& slot = state.slots[number];
        if (within == 0) {
            state.workers->go_before_caller();
            state.workers->wait(number);
            if (slot.error != 0) return fail(slot.error);
            slot.offset = state.at;
        }
        const size_t part = std::min(size, block - within);
        std::memcpy(slot.data + within, from, part);
        slot.size = within + part;
        state.at += part;
        if (slot.size == block) state.send(number);
        from += part;
        size -= part;
    }
    return {};
}

Result<size_t> FileResource::read(void* data, size_t size) {
    auto& state = *state_;
    if (state.plain || state.slots.empty()) {
        for (;;) {
            const auto got = ::read(state.fd.get(), data, size);
            if (got >= 0) return static_cast<size_t>(got);
            if (errno != EINTR) return sys_error("read ghost", path_);
        }
    }
    const size_t number = state.current(), within = state.at % block;
    auto& slot = state.slots[number];
    if (within == 0) state.workers->go_before_caller();
    state.workers->wait(number);
    if (slot.size <= within && slot.error != 0)
        return sys_error_of(slot.error, fmt::format("read ghost at byte {}", state.at), path_);
    const size_t part = slot.size > within ? std::min(size, slot.size - within) : 0;
    if (part == 0) return size_t{0};
    std::memcpy(data, slot.data + within, part);
    state.at += part;
    if (within + part == block) {
        slot.offset += state.slots.size() * block;
        state.workers->start(number);
    }
    return part;
}

Status FileResource::finalize() {
    if (failed_ != 0) return sys_error_of(failed_, "write ghost", path_);
    auto& state = *state_;
    if (use_ == Use::read || state.plain) return {};
    if (state.at % block != 0) state.send(state.current());
    if (const int error = state.first_error(); error != 0) return fail(error);
    if (ftruncate(state.fd.get(), static_cast<off_t>(state.at)) != 0 || fsync(state.fd.get()) != 0)
        return fail(errno);
    return state.give_name(path_);
}

}  // namespace ghost::core
