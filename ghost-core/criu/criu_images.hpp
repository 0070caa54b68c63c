// SPDX-License-Identifier: BSD-3-Clause
// What is needed to know of CRIU's image files (images/*.proto of CRIU).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "ghost-core/format/format.hpp"

namespace ghost::core {

// The inner pid a file "pagemap-PID.img" belongs to; 0 for every other name.
int pagemap_owner(std::string_view name);

// The images of single threads, by their names, in "cores-PID.img" (packaging/criu,
// ghost-threads.c). corrupt.
Result<std::vector<std::pair<std::string, std::string>>> cores_in(std::string_view cores);

// The pages that the skeleton names but does not hold (entries with PE_LAZY), merged, ascending.
Result<std::vector<PageRun>> lazy_ranges(std::string_view pagemap);

// The image of open files as it is given to a restore; returned as it is if it is not understood:
// - Files have no sizes any more: criu would refuse one that has grown since, a log for instance.
//   What they have to be has been checked before (host facts).
// - A periodic timerfd that had fired and not been read is armed again: what the kernel shows of it
//   (fdinfo) has no time left, and criu would restore it disarmed.
inline constexpr std::string_view files_image = "files.img";
std::string repair_files(std::string image);

// What a tree had a name of when its skeleton was taken: files, folders, named pipes.
struct NamedFile {
    std::string path;
    uint32_t mode = 0;     // st_mode
    bool written = false;  // or may be
    bool is_open = false;  // else only mapped, or a working folder
};
// Of all that it had open, mapped or for a working folder, but for what had been removed. Empty if
// the skeleton is not understood.
std::vector<NamedFile> named_files(
    const std::vector<std::pair<std::string, std::string>>& skeleton);

// The same image with what `name` makes of the path of each file; the first error of that.
using RenameFile = std::function<Result<std::string>(const std::string& path)>;
Result<std::string> rename_files(std::string image, const RenameFile& name);

// The same image where the other ends of Unix sockets that are outside of the tree are closed, as
// far as `closes` says so of the inode at the tree's end; the first error of that.
using CloseEnd = std::function<Result<bool>(uint64_t inode)>;
Result<std::string> close_outer_ends(std::string image, const CloseEnd& closes);

// A lock that a process has on a file (flock(2), fcntl(2)).
struct FileLock {
    // Of a process, a whole file, or an open file: F_SETLK, flock(), F_OFD_SETLK.
    enum class Kind : uint8_t { process, whole, open_file };
    Kind kind = Kind::process;
    bool exclusive = false;
    int process = 0;  // as numbered in the tree
    int descriptor = -1;
    int64_t start = 0, bytes = 0;  // 0 bytes: to the end of the file, wherever that is
};

inline constexpr std::string_view locks_image = "filelocks.img";
// corrupt.
Result<std::vector<FileLock>> locks_in(std::string_view image);
// The same image with what stays criu's: leases.
std::string without_locks(std::string_view image);

// Whether core-PID.img has an interval timer that runs (setitimer(2)). corrupt.
Result<bool> has_interval_timer(std::string_view core);

// timens-ID.img with other clocks; `old` gives its begin.
std::string clocks_image(std::string_view old, int64_t monotonic_ns, int64_t boottime_ns);

}  // namespace ghost::core
