// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/kernel_state.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/proc.hpp"

namespace ghost::core {
namespace {

std::string slurp(int folder, const char* name) {
    const Fd file(openat(folder, name, O_RDONLY | O_CLOEXEC));
    std::string out;
    std::array<char, 16384> buffer;
    for (ssize_t got = 0; file && (got = read(file.get(), buffer.data(), buffer.size())) > 0;)
        out.append(buffer.data(), static_cast<size_t>(got));
    return out;
}

std::string link_in(int folder, const char* name) {
    std::array<char, 4096> buffer;
    const auto got = readlinkat(folder, name, buffer.data(), buffer.size());
    return got > 0 ? std::string(buffer.data(), static_cast<size_t>(got)) : "";
}

uint64_t hex(std::string_view& text) {
    uint64_t out = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, 16);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return out;
}

struct MapLine {
    uint64_t start = 0, end = 0;
    std::string_view access, rest, name;  // rest: offset, device, inode, name
    bool of_no_file = false;
};

// "start-end rwxp offset major:minor inode   name"
MapLine take_apart(std::string_view line) {
    MapLine out;
    out.start = hex(line);
    line.remove_prefix(std::min<size_t>(1, line.size()));
    out.end = hex(line);
    line.remove_prefix(std::min<size_t>(1, line.size()));
    out.access = line.substr(0, 4);
    line.remove_prefix(std::min<size_t>(5, line.size()));
    out.rest = line;
    const auto device = line.find(' ');
    if (device == std::string_view::npos) return out;
    const auto tail = line.substr(device + 1);
    out.of_no_file = tail.starts_with("00:00 0");
    const auto inode = tail.find(' ');
    const auto number = tail.find(' ', inode == std::string_view::npos ? 0 : inode + 1);
    if (number == std::string_view::npos) return out;
    const auto name = tail.find_first_not_of(' ', number);
    if (name != std::string_view::npos) out.name = tail.substr(name);
    return out;
}

uint32_t access_of(std::string_view text) {
    return (text[0] == 'r' ? PROT_READ : 0U) | (text[1] == 'w' ? PROT_WRITE : 0U) |
           (text[2] == 'x' ? PROT_EXEC : 0U);
}

// The kernel's own, different on every machine.
bool is_kernels(std::string_view name) {
    return name.starts_with("[v") || name == "[uprobes]";
}

// Lines of /proc/PID/status that a process changes only on purpose.
constexpr std::array<std::string_view, 15> kept_lines = {
    "Umask:",   "Uid:",        "Gid:",     "Groups:",      "NSpid:",
    "Threads:", "SigIgn:",     "SigCgt:",  "CapInh:",      "CapPrm:",
    "CapEff:",  "NoNewPrivs:", "Seccomp:", "CoreDumping:", "Seccomp_filters:"};

Status take_status(int folder, pid_t pid, KernelState& out) {
    const auto text = slurp(folder, "status");
    if (text.empty()) return make_error(Code::not_found, "look at process", std::to_string(pid));
    bool pending = false;
    // It has nothing to do in a stopped process, and goes with SIGCONT.
    constexpr uint64_t stop = uint64_t{1} << (SIGSTOP - 1);
    for_lines(text, [&](std::string_view line) {
        for (const auto key : kept_lines)
            if (line.starts_with(key)) out.fixed.append(line).append("\n");
        if (line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"))
            pending |= (std::strtoull(line.data() + 7, nullptr, 16) & ~stop) != 0;
    });
    if (pending)
        return because(Code::busy, "a signal is pending", "process " + std::to_string(pid));
    return {};
}

// Of fcntl(F_SETFL): they can be given to a file that is open.
constexpr uint32_t settable = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK;

// Those of a file, without what is given along.
std::string take_info(std::string_view text, OpenFile& file) {
    std::string out;
    for_lines(text, [&](std::string_view line) {
        const auto value = line.substr(std::min(line.size(), line.find('\t') + 1));
        if (line.starts_with("pos:"))
            std::from_chars(value.data(), value.data() + value.size(), file.offset);
        else if (line.starts_with("flags:"))
            std::from_chars(value.data(), value.data() + value.size(), file.flags, 8);
        else
            out.append(line).append("\n");
    });
    return out + fmt::format("flags:\t0{:o}\n", file.flags & ~settable);
}

Error cannot(Code code, pid_t pid, int number, const std::string& link, const char* why) {
    return because(code, fmt::format("process {}, descriptor {}, {}: {}", pid, number, link, why));
}

// A look through our own descriptor of the same pipe; sockets cannot be opened so.
Status check_empty(int folder, pid_t pid, int number, const std::string& link) {
    const Fd ours(
        openat(folder, std::to_string(number).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    int bytes = 0;
    if (!ours || ioctl(ours.get(), FIONREAD, &bytes) != 0)
        return cannot(Code::unsupported, pid, number, link, "cannot be looked into");
    if (bytes != 0) return cannot(Code::busy, pid, number, link, "holds data");
    return {};
}

Status check_link(int folder, pid_t pid, int number, const std::string& link,
                  const std::vector<std::string>& outside) {
    if (link.starts_with("socket:") || link.starts_with("anon_inode:[timerfd]") ||
        link.starts_with("anon_inode:inotify") || link.starts_with("anon_inode:[fanotify"))
        return cannot(Code::unsupported, pid, number, link, "changes by itself");
    if (link.starts_with("/memfd:"))
        return cannot(Code::unsupported, pid, number, link, "is memory shared without a file");
    if (link.starts_with("pipe:") &&
        std::find(outside.begin(), outside.end(), link) == outside.end())
        return check_empty(folder, pid, number, link);
    return {};
}

Status take_files(int folder, pid_t pid, const std::vector<std::string>& outside, KernelState& out,
                  Descriptions* descriptions) {
    const Fd links(openat(folder, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Fd infos(openat(folder, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!links || !infos) return sys_error("look at descriptors of process", std::to_string(pid));
    auto numbers = numbers_in(fmt::format("/proc/{}/fd", pid));
    std::sort(numbers.begin(), numbers.end());
    for (const int number : numbers) {
        const auto name = std::to_string(number);
        auto link = link_in(links.get(), name.c_str());
        if (descriptions) GHOST_TRY(check_link(links.get(), pid, number, link, outside));
        OpenFile file;
        file.number = number;
        const auto info = take_info(slurp(infos.get(), name.c_str()), file);
        file.seekable = link.starts_with("/") ? 1 : 0;
        out.fixed += fmt::format("fd {} {} {}\n", number, link, info);
        out.files.push_back(file);
        if (!descriptions) continue;
        const auto [of, same] = descriptions->first({pid, number}, link);
        if (of != pid || same != number)
            out.fixed += fmt::format("fd {} is descriptor {} of process {}\n", number, same, of);
    }
    return {};
}

// As kcmp(2) orders them: 0 the same, 1 before, 2 behind; 3 or less than 0 cannot be said.
long compare(const Descriptions::Descriptor& a, const Descriptions::Descriptor& b) {
    return syscall(SYS_kcmp, a.pid, b.pid, KCMP_FILE, a.number, b.number);
}

}  // namespace

Descriptions::Descriptor Descriptions::first(Descriptor one, const std::string& link) {
    auto& known = by_link_[link];
    const auto at = std::ranges::lower_bound(
        known, one, [](const auto& a, const auto& b) { return compare(a, b) == 1; });
    if (at != known.end() && compare(*at, one) == 0) return *at;
    known.insert(at, one);
    return one;
}

Result<OwnMappings> own_mappings(pid_t pid) {
    const Fd folder(open(fmt::format("/proc/{}", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const auto text = folder ? slurp(folder.get(), "maps") : "";
    if (text.empty()) return make_error(Code::not_found, "list memory of", std::to_string(pid));
    OwnMappings out;
    for_lines(text, [&](std::string_view line) {
        const auto map = take_apart(line);
        if (map.access.size() < 4 || is_kernels(map.name)) return;
        if (map.access[3] != 'p' || !map.of_no_file) {
            out.others.append(line.substr(0, line.find(' '))).append(" ");
            out.others.append(map.access).append(" ").append(map.rest).append("\n");
            if (map.access[3] == 'p' && map.access[1] == 'w')
                out.altered.push_back({map.start, map.end - map.start});
            if (map.access[3] == 's' && map.access[1] == 'w' &&
                (map.name.ends_with("(deleted)") || map.name.starts_with("/SYSV")))
                out.shared = line;
            return;
        }
        if (map.name == "[heap]") out.heap_end = map.end;
        const OwnMapping one{map.start, map.end, access_of(map.access),
                             map.name == "[stack]" ? own_stack : own_memory};
        auto* last = out.list.empty() ? nullptr : &out.list.back();
        // Nothing but a stack ends where the stack begins (the kernel keeps a gap): it has grown
        // while a part of it was registered with a userfaultfd.
        if (one.kind == own_stack && last != nullptr && last->end == one.start &&
            last->access == one.access)
            last->kind = own_stack;
        if (last != nullptr && last->end == one.start && last->access == one.access &&
            last->kind == one.kind)
            last->end = one.end;
        else
            out.list.push_back(one);
    });
    return out;
}

PageRuns OwnMappings::areas() const {
    PageRuns out;
    for (const auto& map : list) append(out, map.start, map.end);
    return out;
}

Result<KernelState> kernel_state_of(pid_t pid, const std::vector<std::string>& outside,
                                    Descriptions& descriptions) {
    const Fd folder(open(fmt::format("/proc/{}", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return sys_error("look at process", std::to_string(pid), Code::not_found);
    KernelState out;
    GHOST_TRY(take_status(folder.get(), pid, out));
    auto threads = numbers_in(fmt::format("/proc/{}/task", pid));
    std::sort(threads.begin(), threads.end());
    out.fixed += fmt::format("threads {}\n", fmt::join(threads, " "));
    for (const auto* name : {"cwd", "root", "exe"})
        out.fixed += fmt::format("{} {}\n", name, link_in(folder.get(), name));
    out.fixed += slurp(folder.get(), "limits");
    if (!slurp(folder.get(), "timers").empty())
        return because(Code::unsupported, "it has timers (timer_create)",
                       "process " + std::to_string(pid));
    GHOST_TRY(take_files(folder.get(), pid, outside, out, &descriptions));
    return out;
}

bool is_ending(pid_t pid) {
    constexpr size_t flags = 6;
    constexpr unsigned long exiting = 4;  // PF_EXITING of the kernel's sched.h
    const auto fields = stat_fields(pid);
    return fields.size() <= flags || (std::strtoul(fields[flags].c_str(), nullptr, 10) & exiting);
}

bool has_sockets(pid_t pid) {
    const auto path = fmt::format("/proc/{}/fd", pid);
    const Fd links(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return links && std::ranges::any_of(numbers_in(path), [&](int number) {
               return link_in(links.get(), std::to_string(number).c_str()).starts_with("socket:");
           });
}

Result<std::vector<OpenFile>> open_files(pid_t pid) {
    const Fd folder(open(fmt::format("/proc/{}", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    KernelState out;
    auto status = take_files(folder.get(), pid, {}, out, nullptr);
    if (!status.ok()) return status.error();
    return std::move(out.files);
}

std::string first_difference(const std::string& before, const std::string& now) {
    std::vector<std::string_view> old, fresh;
    for_lines(before, [&](std::string_view line) { old.push_back(line); });
    for_lines(now, [&](std::string_view line) { fresh.push_back(line); });
    for (size_t i = 0; i < std::max(old.size(), fresh.size()); i++) {
        const auto a = i < old.size() ? old[i] : "", b = i < fresh.size() ? fresh[i] : "";
        if (a != b) return fmt::format("\"{}\" is now \"{}\"", a, b);
    }
    return "";
}

}  // namespace ghost::core
