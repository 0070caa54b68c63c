// SPDX-License-Identifier: BSD-3-Clause
// What the kernel keeps of a process beside memory and registers, as /proc shows it: to find out
// whether a skeleton of it that was taken some time ago is still true.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"
#include "ghost-core/memory/page_set.hpp"

namespace ghost::core {

// Calls `each` with every line of a text, without its end.
template <typename Each>
void for_lines(std::string_view text, Each&& each) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        each(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

// A mapping whose differences can be made up for: private, of no file.
struct OwnMapping {
    uint64_t start = 0, end = 0;
    uint32_t access = 0;  // PROT_*
    uint32_t kind = 0;    // OwnKind
    bool operator==(const OwnMapping&) const = default;
};
enum OwnKind : uint32_t { own_memory = 0, own_stack = 1 };

struct OwnMappings {
    std::vector<OwnMapping> list;  // ascending; neighbours that differ in nothing are one
    uint64_t heap_end = 0;         // 0: there is no [heap]
    std::vector<PageRun> altered;  // private mappings of files that can be written to
    std::string others;            // all other mappings, as text: may not differ at all
    std::string shared;            // one that can be written to and has no file, if there is one

    PageRuns areas() const;  // of the list, as a set
};
Result<OwnMappings> own_mappings(pid_t pid);

// What can be given to a restored process without its help.
struct OpenFile {
    int32_t number = 0;
    uint32_t flags = 0;   // as of fcntl(F_GETFL)
    uint64_t offset = 0;  // of a file that has one
    uint32_t seekable = 0, reserved = 0;
};

struct KernelState {
    std::string fixed;  // may not differ; text, for comparison and for messages
    std::vector<OpenFile> files;
};

// Which descriptors of a tree's processes are one open file description (dup(2), fork(2)): they
// have its offset and flags in common. By kcmp(2); what cannot be compared is taken for another.
class Descriptions {
  public:
    struct Descriptor {
        pid_t pid = 0;
        int number = 0;
    };
    // The first one that was asked for and is the same; this one itself if there is none. `link`:
    // what /proc says that it is.
    Descriptor first(Descriptor one, const std::string& link);

  private:
    std::map<std::string, std::vector<Descriptor>> by_link_;  // in kcmp's order
};

// Looks at a process, the first or a further one of a tree. `outside`: CRIU's keys of descriptors
// whose other end is not in the tree
// ("pipe:[7]"). unsupported: it has something that changes by itself and that a skeleton taken
// earlier cannot follow (timers, memory shared without a file, sockets inside the tree with data on
// the way, …), named in the message. busy: the same, but it may be gone in a moment (a pending
// signal, data in a pipe).
Result<KernelState> kernel_state_of(pid_t pid, const std::vector<std::string>& outside,
                                    Descriptions& descriptions);

// Or has ended; between the end of its memory and this it is no zombie yet.
bool is_ending(pid_t pid);

// Whether it has any open; not if nobody can say.
bool has_sockets(pid_t pid);

// Only the files.
Result<std::vector<OpenFile>> open_files(pid_t pid);

// The first line that differs, for a message.
std::string first_difference(const std::string& before, const std::string& now);

}  // namespace ghost::core
