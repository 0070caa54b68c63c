#include "ghost-core/mechanism/preflight.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/process/proc.hpp"
#include "ghost-core/process/tree.hpp"

namespace ghost::core {
namespace {

std::string link_of(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::read_symlink(path, ignored).string();
}

std::string kernel_release() {
    utsname name{};
    uname(&name);
    return name.release;
}

// GNU build-id note of an ELF file (elf(5), PT_NOTE), in hex; empty if it is none or has none.
std::string build_id(const std::string& path) {
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Elf64_Ehdr header{};
    if (!fd || pread(fd.get(), &header, sizeof header, 0) != sizeof header ||
        std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phnum > 256)
        return {};
    for (int i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr part{};
        const auto at = static_cast<off_t>(header.e_phoff) + i * header.e_phentsize;
        if (pread(fd.get(), &part, sizeof part, at) != sizeof part) return {};
        if (part.p_type != PT_NOTE || part.p_filesz > 65536) continue;
        std::string notes(part.p_filesz, '\0');
        if (pread(fd.get(), notes.data(), notes.size(), static_cast<off_t>(part.p_offset)) !=
            static_cast<ssize_t>(notes.size()))
            return {};
        for (size_t place = 0; place + sizeof(Elf64_Nhdr) <= notes.size();) {
            Elf64_Nhdr note{};
            std::memcpy(&note, notes.data() + place, sizeof note);
            const size_t name = place + sizeof note;
            const size_t text = name + (note.n_namesz + 3U) / 4 * 4;
            place = text + (note.n_descsz + 3U) / 4 * 4;
            if (place > notes.size() || note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 ||
                std::memcmp(notes.data() + name, "GNU", 4) != 0)
                continue;
            std::string out;
            for (size_t b = 0; b < note.n_descsz; b++)
                out += fmt::format("{:02x}", static_cast<unsigned char>(notes[text + b]));
            return out;
        }
    }
    return {};
}

int64_t mtime_ns(const struct stat& info) {
    return int64_t{info.st_mtim.tv_sec} * 1000000000 + info.st_mtim.tv_nsec;
}

// What exists only in this kernel, or has no name any more, is not to be found anywhere else.
bool has_lasting_name(const std::string& path) {
    return path.starts_with("/") && !path.ends_with(" (deleted)") && !path.starts_with("/dev/") &&
           !path.starts_with("/proc/") && !path.starts_with("/sys/") &&
           !path.starts_with("/memfd:") && !path.starts_with("/anon_hugepage") &&
           !path.starts_with("/SYSV");
}

class Needs {
  public:
    void add(const Task& task);
    Json result(uint64_t memory) const;
    uint64_t memory() const { return memory_; }

  private:
    void add_file(const std::string& path, const char* kind, bool write);
    void add_mappings(pid_t pid);
    void add_descriptors(pid_t pid);
    void add_limits(pid_t pid);
    void add_memory(pid_t pid);
    void add_spaces(pid_t pid);

    std::map<std::string, Json> files_;
    std::map<std::string, uint64_t> limits_;
    std::vector<std::string> spaces_;
    uint64_t memory_ = 0;
};

void Needs::add_file(const std::string& path, const char* kind, bool write) {
    if (!has_lasting_name(path)) return;
    auto& entry = files_[path];
    if (!entry.is_null()) {
        if (write) entry["write"] = true;
        if (std::strcmp(kind, "program") != 0 || entry["kind"] == "program") return;
        write = entry["write"];
    }
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
        files_.erase(path);  // another mount, or renamed: nothing can be said
        return;
    }
    entry = {{"path", path}, {"kind", S_ISDIR(info.st_mode) ? "folder" : kind}, {"write", write}};
    if (!S_ISREG(info.st_mode)) return;
    entry["size"] = static_cast<uint64_t>(info.st_size);
    entry["mtime_ns"] = mtime_ns(info);
    const auto id = std::strcmp(kind, "program") == 0 ? build_id(path) : std::string();
    if (!id.empty()) entry["build_id"] = id;
}

void Needs::add_mappings(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/maps", pid));
    for (std::string line; std::getline(in, line);) {
        const auto slash = line.find('/');
        if (slash == std::string::npos) continue;
        const bool code = line.substr(0, line.find(' ') + 5).find('x') != std::string::npos;
        add_file(line.substr(slash), code ? "program" : "data", false);
    }
}

void Needs::add_descriptors(pid_t pid) {
    const auto folder = fmt::format("/proc/{}/fd", pid);
    for (const int number : numbers_in(folder)) {
        std::ifstream in(fmt::format("/proc/{}/fdinfo/{}", pid, number));
        std::string word;
        long flags = 0;
        while (in >> word)
            if (word == "flags:" && in >> word) flags = std::strtol(word.c_str(), nullptr, 8);
        add_file(link_of(fmt::format("{}/{}", folder, number)), "data",
                 (flags & O_ACCMODE) != O_RDONLY);
    }
    for (const auto* name : {"cwd", "root"})
        add_file(link_of(fmt::format("/proc/{}/{}", pid, name)), "folder", false);
}

void Needs::add_limits(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/limits", pid));
    std::string line;
    std::getline(in, line);
    // "Max open files            1024                 1048576              files": columns
    while (std::getline(in, line)) {
        if (line.size() < 68) continue;
        auto name = line.substr(4, 22);
        name.resize(name.find_last_not_of(' ') + 1);
        const auto hard = line.substr(47, 21);
        const uint64_t value =
            hard.starts_with("unlimited") ? ~uint64_t{0} : std::strtoull(hard.c_str(), nullptr, 10);
        auto& most = limits_[name];
        most = std::max(most, value);
    }
}

void Needs::add_memory(pid_t pid) {
    std::ifstream in(fmt::format("/proc/{}/status", pid));
    for (std::string line; std::getline(in, line);)
        for (const auto* key : {"RssAnon:", "RssShmem:", "VmSwap:"})
            if (line.starts_with(key))
                memory_ += std::strtoull(line.c_str() + std::strlen(key), nullptr, 10) * 1024;
}

void Needs::add_spaces(pid_t pid) {
    for (const auto* space : {"pid", "ipc", "net", "mnt", "uts", "user", "cgroup", "time"}) {
        const auto its = link_of(fmt::format("/proc/{}/ns/{}", pid, space));
        if (its.empty() || its == link_of(fmt::format("/proc/self/ns/{}", space))) continue;
        if (std::find(spaces_.begin(), spaces_.end(), space) == spaces_.end())
            spaces_.emplace_back(space);
    }
}

void Needs::add(const Task& task) {
    add_mappings(task.pid);
    add_descriptors(task.pid);
    add_limits(task.pid);
    add_memory(task.pid);
    add_spaces(task.pid);
}

Json Needs::result(uint64_t memory) const {
    Json files = Json::array(), limits = Json::object();
    for (const auto& [path, entry] : files_) files.push_back(entry);
    for (const auto& [name, value] : limits_) limits[name] = value;
    return {{"host", host_facts()}, {"kernel", kernel_release()}, {"memory", memory},
            {"files", files},       {"limits", limits},           {"spaces", spaces_}};
}

std::string amount(uint64_t bytes) {
    return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

// "6.18.44-…" as 6018; 0 if it is nothing of the kind.
int version_number(const std::string& release) {
    int high = 0, low = 0;
    return std::sscanf(release.c_str(), "%d.%d", &high, &low) == 2 ? high * 1000 + low : 0;
}

void check_kernel(const Json& needs, std::vector<Shortcoming>& out) {
    const auto wanted = needs.value("kernel", ""), here = kernel_release();
    // Kernels are compatible upwards; what a program has found in a newer one an older one may
    // lack.
    if (version_number(here) < version_number(wanted))
        out.push_back({"kernel", wanted + " or newer", here});
}

void check_memory(const Json& needs, std::vector<Shortcoming>& out) {
    const auto wanted = needs.value("memory", uint64_t{0});
    std::ifstream in("/proc/meminfo");
    uint64_t available = 0;
    for (std::string line; std::getline(in, line);)
        if (line.starts_with("MemAvailable:"))
            available = std::strtoull(line.c_str() + 13, nullptr, 10) * 1024;
    if (available < wanted) out.push_back({"memory", amount(wanted), amount(available) + " free"});
}

std::optional<Shortcoming> check_file(const Json& file) {
    const auto path = file.value("path", ""), kind = file.value("kind", "data");
    struct stat info {};
    if (stat(path.c_str(), &info) != 0)
        return Shortcoming{kind + " " + path, "its presence", std::strerror(errno)};
    if (kind == "folder" || !file.contains("size")) return std::nullopt;
    const auto id = file.value("build_id", "");
    if (!id.empty()) {
        const auto here = build_id(path);
        if (here == id) return std::nullopt;
        return Shortcoming{"program " + path, "build-id " + id,
                           here.empty() ? "none" : "build-id " + here};
    }
    const auto size = file.value("size", uint64_t{0});
    // What the tree writes to may have grown since; criu compares what it was at the freeze.
    if (!file.value("write", false) && size != static_cast<uint64_t>(info.st_size))
        return Shortcoming{kind + " " + path, fmt::format("size {}", size),
                           fmt::format("size {}", info.st_size)};
    // Copies of data may have other times; code that is not the same would crash the program.
    if (kind == "program" && file.value("mtime_ns", int64_t{0}) != mtime_ns(info))
        return Shortcoming{kind + " " + path, "the time of its last change", "another one"};
    if (file.value("write", false) && access(path.c_str(), W_OK) != 0)
        return Shortcoming{kind + " " + path, "the right to write", std::strerror(errno)};
    return std::nullopt;
}

// Names as in /proc/PID/limits.
void check_limits(const Json& needs, std::vector<Shortcoming>& out) {
    static constexpr std::array<std::pair<const char*, decltype(RLIMIT_CPU)>, 15> known = {{
        {"cpu time", RLIMIT_CPU},
        {"file size", RLIMIT_FSIZE},
        {"data size", RLIMIT_DATA},
        {"stack size", RLIMIT_STACK},
        {"core file size", RLIMIT_CORE},
        {"resident set", RLIMIT_RSS},
        {"processes", RLIMIT_NPROC},
        {"open files", RLIMIT_NOFILE},
        {"locked memory", RLIMIT_MEMLOCK},
        {"address space", RLIMIT_AS},
        {"file locks", RLIMIT_LOCKS},
        {"pending signals", RLIMIT_SIGPENDING},
        {"msgqueue size", RLIMIT_MSGQUEUE},
        {"nice priority", RLIMIT_NICE},
        {"realtime priority", RLIMIT_RTPRIO},
    }};
    const auto limits = needs.value("limits", Json::object());
    const auto text = [](uint64_t value) {
        return value == ~uint64_t{0} ? std::string("unlimited") : std::to_string(value);
    };
    for (const auto& [name, number] : known) {
        rlimit here{};
        if (!limits.contains(name) || getrlimit(number, &here) != 0) continue;
        const auto wanted = limits[name].get<uint64_t>();
        if (wanted > here.rlim_max)
            out.push_back(
                {fmt::format("hard limit of {}", name), text(wanted), text(here.rlim_max)});
    }
}

void check_spaces(const Json& needs, std::vector<Shortcoming>& out) {
    for (const auto& space : needs.value("spaces", Json::array())) {
        const auto name = space.get<std::string>();
        const auto path = "/proc/self/ns/" + name;
        if (access(path.c_str(), F_OK) != 0)
            out.push_back({name + " name spaces", "the kernel's support", "none"});
    }
    if (geteuid() != 0) out.push_back({"privilege", "root", fmt::format("user {}", geteuid())});
}

}  // namespace

Result<Json> needs_of(pid_t root) {
    auto tasks = list_tree(root);
    if (!tasks) return tasks.error();
    Needs needs;
    for (const auto& task : *tasks) needs.add(task);
    return needs.result(needs.memory());
}

std::vector<Shortcoming> check_target(const Json& needs) {
    std::vector<Shortcoming> out;
    if (!needs.is_object()) return out;
    if (const auto host = check_host(needs.value("host", "")); !host.ok())
        out.push_back({"processor", "the features the programs may use", host.error().tried});
    check_kernel(needs, out);
    check_memory(needs, out);
    for (const auto& file : needs.value("files", Json::array()))
        if (auto lacking = check_file(file)) out.push_back(std::move(*lacking));
    check_limits(needs, out);
    check_spaces(needs, out);
    return out;
}

std::string describe(const std::vector<Shortcoming>& all) {
    std::string out;
    for (const auto& one : all)
        out += fmt::format("{}{}: {} needed, {}", out.empty() ? "" : "; ", one.what, one.needed,
                           one.found);
    return out;
}

}  // namespace ghost::core
