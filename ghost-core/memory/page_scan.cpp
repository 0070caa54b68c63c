// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/page_scan.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ghost-core/format/host.hpp"

namespace ghost::core {
namespace {

// linux/fs.h of 6.7; the headers of the distribution may be older than its kernel.
struct ScanArguments {
    uint64_t size, flags, start, end, walk_end, vector, vector_size, max_pages;
    uint64_t inverted, mask, any_of, result;
};
struct ScanRegion {
    uint64_t start, end, categories;
};
constexpr unsigned long pagemap_scan = _IOWR('f', 16, ScanArguments);
constexpr uint64_t protect_matching = 1, check_registered = 2;
constexpr uint64_t is_written = 1 << 1, is_of_file = 1 << 2, page_is_present = 1 << 3,
                   is_swapped = 1 << 4, is_zero_frame = 1 << 5, is_huge = 1 << 6;
constexpr uint64_t is_guard = 1 << 8;  // from 6.16 on; looks like a swapped page otherwise
// The kernel gets memory for so many at every call: more than some 300 and it is whole pages (12 KB
// for 512), which costs as much as looking at some hundred pages.
constexpr size_t regions_at_once = 256;
// So many in one call: the kernel holds the process's mappings meanwhile, and whoever wants to map
// or unmap waits. 32 MiB are some 0.5 ms.
constexpr uint64_t pages_at_once = 8192;
constexpr uint64_t near_bytes = 2 << 20;  // between mappings that are looked at in one go
// In areas of this size on there may be little (a reserved heap, a shadow memory): the kernel
// passes over what has no page table, 1 TiB in some us, while a call for each piece takes 0.1 s.
constexpr uint64_t sparse_bytes = uint64_t{1} << 30;

// A kernel takes no category it does not know: 0 then.
uint64_t guard() {
    static const bool known = [] {
        const Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
        ScanArguments arguments{};
        ScanRegion region{};
        arguments.size = sizeof arguments;
        arguments.vector = reinterpret_cast<uint64_t>(&region);
        arguments.vector_size = 1;
        arguments.any_of = arguments.result = is_guard;
        return ioctl(pagemap.get(), pagemap_scan, &arguments) >= 0;
    }();
    return known ? is_guard : 0;
}

// What an entry of the page map tells, in the words of PAGEMAP_SCAN (pagemap.rst). Which pages are
// of zeros or huge it does not say, and guard pages are younger than PAGEMAP_SCAN.
uint64_t categories_of(uint64_t entry) {
    constexpr uint64_t protected_bit = uint64_t{1} << 57, file_bit = uint64_t{1} << 61,
                       swapped_bit = uint64_t{1} << 62, present_bit = uint64_t{1} << 63;
    return ((entry & protected_bit) == 0 ? is_written : 0) |
           ((entry & file_bit) != 0 ? is_of_file : 0) |
           ((entry & swapped_bit) != 0 ? is_swapped : 0) |
           ((entry & present_bit) != 0 ? page_is_present : 0);
}

// What is asked about pages that are there.
uint64_t details() {
    return is_zero_frame | is_huge | guard();
}

// One line of /proc/PID/maps: "start-end rwxp offset major:minor inode   name".
struct MapsLine {
    uint64_t start = 0, end = 0;
    bool ours = false;
    bool special = false;  // the kernel's own: vdso and the like
};

MapsLine parse_line(std::string_view line) {
    MapsLine out;
    const char* const stop = line.data() + line.size();
    auto at = std::from_chars(line.data(), stop, out.start, 16).ptr;
    if (at == stop) return {};
    at = std::from_chars(at + 1, stop, out.end, 16).ptr;
    const auto rest = line.substr(static_cast<size_t>(at - line.data()));
    out.special = rest.find(" [v") != std::string_view::npos;
    // " rwxp 00000000 00:00 0 " and then the name.
    if (rest.size() < 6 || rest[4] != 'p') return out;
    const auto device = rest.find(' ', 6);
    if (device == std::string_view::npos || !rest.substr(device).starts_with(" 00:00 0"))
        return out;
    const auto name_at = rest.find_first_not_of(' ', device + 8);
    const auto name = name_at == std::string_view::npos ? "" : rest.substr(name_at);
    out.ours =
        name.empty() || name == "[heap]" || name.starts_with("[stack") || name.starts_with("[anon");
    return out;
}

void note(const MapsLine& line, uint64_t start, MemoryMap& map) {
    auto& others = map.others;
    if (line.ours)
        map.ours.push_back({start, line.end - start});
    else if (line.special)
        return;
    else if (!others.empty() && start - others.back().end() < near_bytes)
        others.back().bytes = line.end - others.back().start;
    else
        others.push_back({start, line.end - start});
}

// Takes lines one after the other.
class MapTaker {
  public:
    // What is left behind the last whole line.
    std::string_view take(std::string_view text) {
        for (size_t end = 0; (end = text.find('\n')) != std::string_view::npos;) {
            const auto line = parse_line(text.substr(0, end));
            // An area that grows while the list is read is told a second time, from its beginning.
            const uint64_t start = std::max(line.start, last_);
            last_ = std::max(last_, line.end);
            if (start < line.end) note(line, start, map);
            text.remove_prefix(end + 1);
        }
        return text;
    }
    MemoryMap map;

  private:
    uint64_t last_ = 0;
};

}  // namespace

MemoryMap memory_map_in(std::string_view maps) {
    MapTaker taker;
    taker.take(maps);
    return std::move(taker.map);
}

Result<MemoryMap> memory_map(pid_t pid) {
    const auto path = fmt::format("/proc/{}/maps", pid);
    const Fd maps(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!maps) return sys_error("list memory of process", std::to_string(pid), Code::not_found);
    MapTaker taker;
    std::array<char, 65536> buffer;
    size_t kept = 0;
    for (;;) {
        const auto got = read(maps.get(), buffer.data() + kept, buffer.size() - kept);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return sys_error("list memory of process", std::to_string(pid));
        if (got == 0) return std::move(taker.map);
        const auto text = taker.take({buffer.data(), kept + static_cast<size_t>(got)});
        kept = text.size();
        if (kept == buffer.size())
            return make_error(Code::internal, "list memory of process", std::to_string(pid));
        std::copy(text.begin(), text.end(), buffer.begin());
    }
}

Result<PageRuns> private_memory(pid_t pid) {
    auto map = memory_map(pid);
    if (!map) return map.error();
    return std::move(map->ours);
}

PageScan::Way PageScan::way_here() {
    static const auto way = [] {
        const Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
        ScanArguments none{};
        return ioctl(pagemap.get(), pagemap_scan, &none) < 0 && errno == ENOTTY ? Way::entries
                                                                                : Way::scan;
    }();
    return way;
}

Result<PageScan> PageScan::open(pid_t pid, Protection protection) {
    return open(pid, protection, way_here());
}

Result<PageScan> PageScan::open(pid_t pid, Protection protection, Way way) {
    Fd pagemap(::open(fmt::format("/proc/{}/pagemap", pid).c_str(), O_RDONLY | O_CLOEXEC));
    if (!pagemap) {
        const bool ended = errno == ESRCH || errno == ENOENT;
        return sys_error("open page map of process", std::to_string(pid),
                         ended ? Code::not_found : Code::io);
    }
    return PageScan(pid, std::move(pagemap),
                    protection == Protection::asynchronous ? check_registered : 0, way);
}

struct PageScan::Query {
    uint64_t flags = 0, mask = 0, any_of = 0, result = 0, inverted = 0;

    // As the kernel compares (pagemap_scan_is_interesting_page() of fs/proc/task_mmu.c).
    bool wants(uint64_t categories) const {
        categories ^= inverted;
        return (categories & mask) == mask && (any_of == 0 || (categories & any_of) != 0);
    }
};

// Page by page, until `take` has had enough.
Result<bool> PageScan::each_entry(const PageRun& area, const EntryTaker& take) const {
    std::array<uint64_t, 8192> entries;
    const uint64_t page = this_page_size();
    for (uint64_t at = area.start; at < area.end();) {
        const auto count = std::min<uint64_t>(entries.size(), (area.end() - at) / page);
        const auto got = pread(pagemap_.get(), entries.data(), count * sizeof entries[0],
                               static_cast<off_t>(at / page * sizeof entries[0]));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return sys_error(fmt::format("read page map at {:#x}", at), {},
                             errno == ESRCH ? Code::not_found : Code::io);
        const auto read = static_cast<uint64_t>(got) / sizeof entries[0];
        if (read == 0)  // the address space is gone (pagemap_read() of fs/proc/task_mmu.c)
            return make_error(Code::not_found, "read page map", std::to_string(pid_));
        for (uint64_t i = 0; i < read; i++, at += page)
            if (!take(at, categories_of(entries[i]))) return false;
    }
    return true;
}

// Nothing can be protected here, and nothing is registered for asynchronous protection.
Result<bool> PageScan::run_entries(const Query& query, const PageRun& area,
                                   std::vector<Found>& out) const {
    if ((query.flags & check_registered) != 0) return false;
    if ((query.flags & protect_matching) != 0)
        return make_error(Code::unsupported, "protect pages", {},
                          "this kernel has no PAGEMAP_SCAN (Linux 6.7 has)");
    const uint64_t page = this_page_size();
    auto done = each_entry(area, [&](uint64_t at, uint64_t categories) {
        if (!query.wants(categories)) return true;
        const bool marked = (query.result & ~categories & is_written) != 0;
        if (!out.empty() && out.back().end == at && out.back().marked == marked)
            out.back().end += page;
        else
            out.push_back({at, at + page, false, marked, false, false});
        return true;
    });
    if (!done) return done.error();
    return true;
}

Result<bool> PageScan::run(const Query& query, const PageRun& area, std::vector<Found>& out) const {
    if (way_ == Way::entries) return run_entries(query, area, out);
    std::array<ScanRegion, regions_at_once> regions;
    const auto first = static_cast<std::ptrdiff_t>(out.size());
    uint64_t at = area.start;
    while (at < area.end()) {
        ScanArguments arguments{};
        arguments.size = sizeof arguments;
        arguments.flags = query.flags;
        arguments.start = at;
        arguments.end = area.end();
        arguments.vector = reinterpret_cast<uint64_t>(regions.data());
        arguments.vector_size =
            std::min<uint64_t>(regions.size(), (area.end() - at) / this_page_size());
        arguments.max_pages = pages_at_once;
        arguments.inverted = query.inverted;
        arguments.mask = query.mask;
        arguments.any_of = query.any_of;
        arguments.result = query.result;
        const int count = ioctl(pagemap_.get(), pagemap_scan, &arguments);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EPERM) return false;
        if (count < 0)
            return sys_error(fmt::format("scan pages at {:#x}", at), {},
                             errno == ESRCH ? Code::not_found : Code::io);
        for (int i = 0; i < count; i++)
            out.push_back(
                {regions[i].start, regions[i].end, (regions[i].categories & is_zero_frame) != 0,
                 (query.result & ~regions[i].categories & is_written) != 0,
                 (regions[i].categories & is_guard) != 0, (regions[i].categories & is_huge) != 0});
        uint64_t pages = 0;
        for (int i = 0; i < count; i++)
            pages += (regions[i].end - regions[i].start) / this_page_size();
        // walk_end is right only if the kernel stopped early. After a whole walk it may be where
        // one of its inner buffers was full (do_pagemap_scan of Linux 6.7 to 6.18).
        if (static_cast<size_t>(count) < arguments.vector_size && pages < pages_at_once) break;
        if (arguments.walk_end <= at) break;
        at = arguments.walk_end;
    }
    // So what comes last may lie before: a page that was written a moment after its first look.
    const auto before = [](const Found& a, const Found& b) { return a.start < b.start; };
    if (!std::is_sorted(out.begin() + first, out.end(), before))
        std::sort(out.begin() + first, out.end(), before);
    return true;
}

Status PageScan::present(const PageRun& area, std::vector<Found>& out) const {
    auto done = run({0, 0, page_is_present | is_swapped, details()}, area, out);
    if (!done) return done.error();
    return {};
}

Status PageScan::copied(const PageRun& area, std::vector<Found>& out) const {
    auto done =
        run({0, is_of_file, page_is_present | is_swapped, is_zero_frame, is_of_file}, area, out);
    if (!done) return done.error();
    return {};
}

Result<bool> PageScan::maybe_written(const PageRun& area, PageRuns& out) const {
    // The kernel takes its short way for exactly this mask and result.
    std::vector<Found> found;
    auto done = run({check_, is_written, 0, is_written, 0}, area, found);
    for (const auto& run : found) append(out, run.start, run.end);
    return done;
}

Result<bool> PageScan::written(const PageRun& area, std::vector<Found>& out) const {
    return run({check_, is_written, page_is_present | is_swapped, details()}, area, out);
}

Status PageScan::written_and_protect(const PageRun& area, std::vector<Found>& out) const {
    // Not with check_registered: the kernel would end at what is not registered and not tell what
    // it has protected before that.
    // Guard pages not: they look written for ever, so that whoever looks for what was written finds
    // them.
    auto done = run(
        {protect_matching, is_written | guard(), page_is_present | is_swapped, details(), guard()},
        area, out);
    if (!done) return done.error();
    return {};
}

Status PageScan::protect_all(const PageRun& area, std::vector<Found>& out) const {
    auto done = run(
        {protect_matching, guard(), page_is_present | is_swapped, is_written | details(), guard()},
        area, out);
    if (!done) return done.error();
    return {};
}

Status PageScan::guards(const PageRun& area, PageRuns& out) const {
    if (guard() == 0) return {};
    std::vector<Found> found;
    auto done = run({0, guard(), 0, guard()}, area, found);
    if (!done) return done.error();
    for (const auto& run : found) out.push_back({run.start, run.end - run.start});
    return {};
}

Status PageScan::huge(const PageRun& area, PageRuns& out) const {
    if (way_ == Way::entries) return {};
    std::vector<Found> found;
    auto done = run({0, is_huge, 0, is_zero_frame | is_huge}, area, found);
    if (!done) return done.error();
    for (const auto& run : found)
        if (!run.zero) out.push_back({run.start, run.end - run.start});
    return {};
}

// Where the next page is that is there, `limit` if there is none. Fails by naming the first one.
uint64_t PageScan::next_page(uint64_t at, uint64_t limit) const {
    if (way_ == Way::entries) {
        uint64_t next = limit;
        const auto absent = [&](uint64_t page, uint64_t categories) {
            if ((categories & (page_is_present | is_swapped)) == 0) return true;
            next = page;
            return false;
        };
        return each_entry({at, limit - at}, absent).ok() ? next : at;
    }
    ScanRegion region{};
    ScanArguments arguments{};
    arguments.size = sizeof arguments;
    arguments.start = at;
    arguments.end = limit;
    arguments.vector = reinterpret_cast<uint64_t>(&region);
    arguments.vector_size = arguments.max_pages = 1;
    arguments.any_of = page_is_present | is_swapped | guard();
    const int count = ioctl(pagemap_.get(), pagemap_scan, &arguments);
    if (count < 0) return at;
    return count == 0 ? limit : region.start;
}

PageRuns PageScan::populated(const PageRun& area, uint64_t bytes) const {
    if (area.bytes < sparse_bytes) return pieces_of(area, bytes);
    PageRuns out;
    for (uint64_t at = area.start; (at = next_page(at, area.end())) < area.end();) {
        const uint64_t start = std::max(at / bytes * bytes, area.start);
        at = std::min(at / bytes * bytes + bytes, area.end());
        out.push_back({start, at - start});
    }
    return out;
}

bool PageScan::is_present(uint64_t page) const {
    std::vector<Found> found;
    const PageRun one{page, this_page_size()};
    return present(one, found).ok() && !found.empty() && !found.front().guard;
}

std::vector<size_t> PageScan::perhaps_missing(std::vector<uint64_t> pages) const {
    std::vector<int> where(pages.size(), -ENOENT);
    // Its headers are of a library that is used for nothing else.
    if (!pages.empty() &&
        syscall(SYS_move_pages, pid_, pages.size(), pages.data(), nullptr, where.data(), 0) != 0)
        std::fill(where.begin(), where.end(), -ENOENT);
    std::vector<size_t> out;
    for (size_t i = 0; i < where.size(); i++)
        if (where[i] < 0) out.push_back(i);
    return out;
}

}  // namespace ghost::core
