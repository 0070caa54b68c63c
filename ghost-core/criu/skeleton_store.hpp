// SPDX-License-Identifier: BSD-3-Clause
// The image files of a skeleton on their way from the stream to criu.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace ghost::core {

// One thread puts in, another one looks.
class SkeletonStore {
  public:
    // Bytes. A small ghost can be packed zeros, and its files are many or large.
    struct Limits {
        uint64_t file = 64 << 20;   // one that grows beyond goes to a disk
        uint64_t room = 256 << 20;  // when all in memory have this, those beyond `small` do too
        uint64_t small = 1 << 20;
        uint64_t most = uint64_t{1} << 30;  // in memory
    };
    SkeletonStore() : SkeletonStore(Limits()) {}
    explicit SkeletonStore(const Limits& limits);
    ~SkeletonStore();

    // As the chunks of the stream, which the reader has checked.
    // False: a file of this name was there already.
    bool open(int file, std::string name);
    // io: what is large goes to a disk (/var/tmp), which may be full; corrupt: small files have
    // more than all memory that they may have.
    Status data(int file, std::string_view bytes);
    Status close(int file);
    void end(uint64_t page_bytes);

    enum class Found { yes, no, not_yet };
    // A file that is there is complete; `content` stays valid as long as the store.
    Found find(const std::string& name, std::string_view& content);

    // Readable after any change; clear() it before looking.
    int fd() const { return event_.get(); }
    void clear();

    uint64_t bytes();       // stored so far
    uint64_t in_memory();   // of them
    uint64_t page_bytes();  // to come beside the skeleton; known at its end

  private:
    // In memory, or from some size on in a file without a name that is mapped when it is complete:
    // what a removed file of the tree holds may be more than the memory there is.
    struct File {
        std::string content;
        Fd large;
        uint64_t size = 0;
        std::string_view mapped;
        bool complete = false;
    };
    Status move_to_disk(File& file);
    void notify();

    std::mutex mutex_;
    Fd event_;
    std::map<std::string, File> files_;
    std::map<int, File*> open_;
    const Limits limits_;
    uint64_t bytes_ = 0, in_memory_ = 0, page_bytes_ = 0;
    bool ended_ = false;
};

}  // namespace ghost::core
