// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/criu.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <mutex>
#include <regex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <tuple>
#include <unistd.h>
#include <vector>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "base/paths.hpp"

namespace ghost::core {
namespace {

// Where our builds of criu keep what they found out about the kernel (packaging/criu). criu
// believes it, down to the addresses it writes code to.
constexpr const char* cache_folder = "/run/ghost-criu";
// Where builds up to Ghost 0.1 kept it: whoever came first could make that folder.
constexpr const char* open_cache_folder = "/dev/shm/ghost-criu";

bool contains(int fd, size_t size, const char* text) {
    void* bytes = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) return false;
    const bool has = memmem(bytes, size, text, std::strlen(text)) != nullptr;
    munmap(bytes, size);
    return has;
}

// The same of a file, looked for once: a search takes a millisecond, as much as an incremental
// checkpoint has to spare. Any thread.
bool contains(const std::string& path, const char* text) {
    using Key = std::tuple<std::string, dev_t, ino_t, off_t, time_t, long, std::string>;
    static std::mutex mutex;
    static std::map<Key, bool> known;
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat found {};
    if (!fd || fstat(fd.get(), &found) != 0 || found.st_size <= 0) return false;
    const Key key{path,          found.st_dev,         found.st_ino,
                  found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec,
                  text};
    std::lock_guard lock(mutex);
    const auto entry = known.find(key);
    if (entry != known.end()) return entry->second;
    return known[key] = contains(fd.get(), static_cast<size_t>(found.st_size), text);
}

}  // namespace

Result<std::string> find_program(const std::string& program) {
    auto found = find_in_path(program, search_path() + ":/usr/local/sbin:/usr/sbin:/sbin");
    if (!found.empty()) return found;
    if (program.find('/') != std::string::npos)
        return sys_error_of(::access(program.c_str(), X_OK) != 0 ? errno : EACCES, "find criu",
                            program, Code::unsupported);
    return make_error(Code::unsupported, "find criu", program, "no program of this name in PATH");
}

bool knows_lazy_holes(const std::string& program) {
    return contains(program, "GHOST_LAZY_HOLES");
}

bool knows_control(const std::string& program) {
    return contains(program, "GHOST_CONTROL");
}

bool knows_other_names(const std::string& program) {
    return contains(program, "GHOST_OTHER_NAMES");
}

bool knows_own_proc(const std::string& program) {
    const auto found = find_program(program);
    return found.ok() && contains(*found, "GHOST_OWN_PROC");
}

namespace {

// Empty if it is none of those known here.
std::string known_reason(const std::string& folder) {
    // files-reg.c, sk-inet.c, pstree.c
    static const std::regex opened("Can't open file (.*) on restore: (.*)");
    static const std::regex different("File (.*) has bad (\\S+)");
    static const std::regex taken("Can't bind inet socket .*Address already in use");
    std::ifstream log(folder + "/" + criu_log);
    std::smatch found;
    for (std::string line; std::getline(log, line);) {
        if (std::regex_search(line, found, opened))
            return fmt::format(
                "/{}: {}", found.str(1),
                found[2] == "No such file or directory" ? "is missing" : found.str(2));
        if (std::regex_search(line, found, different))
            return fmt::format("/{}: is different, {}", found.str(1), found.str(2));
        if (std::regex_search(line, taken)) return "a port at which it listens is in use here";
        if (line.find("session leader") != std::string::npos)
            return "the session leader of its first process is outside the tree";
    }
    return {};
}

}  // namespace

std::string last_log_error(const std::string& folder) {
    std::ifstream log(folder + "/" + criu_log);
    std::string line, found;
    while (std::getline(log, line)) {
        const auto at = line.find("Error (");
        if (at == std::string::npos) continue;
        if (found.empty() || line.find("FAILED") == std::string::npos) {
            if (found.size() < 400) found += (found.empty() ? "" : "; ") + line.substr(at);
        }
    }
    return found;
}

Error criu_gave_up(const std::string& tried, int status, const std::string& folder) {
    if (auto why = known_reason(folder); !why.empty())
        return make_error(Code::refused, tried, {}, std::move(why));
    log::info("criu, asked to {}: {}: {}", tried, describe_status(status), last_log_error(folder));
    return make_error(Code::refused, tried, {},
                      "criu gave up for a reason that Ghost does not know; what it said is in the "
                      "log (GHOST_LOG=FILE, ghost_verbose 2)");
}

namespace {

// A user's criu looks for its cache in $XDG_RUNTIME_DIR, which not every session has.
Result<std::string> own_cache_folder() {
    if (::geteuid() != 0) return private_folder();
    auto folder = make_own_folder(cache_folder);
    return folder ? Result<std::string>(cache_folder) : folder.error();
}

// That the program's cache, if it has one, is only its user's. Without a folder it goes without.
Status make_cache_folder(const std::string& program) {
    if (contains(program, open_cache_folder))
        return make_error(Code::refused, "use criu", program,
                          fmt::format("it believes what any user may write into {}; build it anew",
                                      open_cache_folder));
    const auto folder = own_cache_folder();
    if (!folder && folder.error().code == Code::refused) return folder.error();
    return {};
}

}  // namespace

void as_this_user(ChildRequest& criu) {
    if (::geteuid() == 0) return;
    criu.argv.insert(criu.argv.begin() + 2, "--unprivileged");
    if (const auto cache = own_cache_folder(); cache.ok())
        criu.environment.push_back("XDG_RUNTIME_DIR=" + *cache);
}

Status warm_up_once(const CriuSettings& settings) {
    auto program = find_program(settings.program);
    if (!program) return program.error();
    GHOST_TRY(make_cache_folder(*program));
    const auto cache = own_cache_folder();
    const bool known = cache.ok() && open_own_file(*cache + "/criu.kdat").ok();
    return known ? Status() : warm_up(settings);
}

Status warm_up(const CriuSettings& settings) {
    auto program = find_program(settings.program);
    if (!program) return program.error();
    GHOST_TRY(make_cache_folder(*program));
    ChildRequest check{.argv = {*program, "check", "--no-default-config", "-W", settings.work_dir,
                                "-v1", "-o", criu_log},
                       .folder = settings.work_dir};
    as_this_user(check);
    auto child = Child::start(check);
    if (!child) return child.error();
    if (!child->wait(monotonic_us() + int64_t{settings.limit_s} * 1000000)) {
        child->kill();
        return make_error(Code::timeout, "check criu", *program);
    }
    if (child->succeeded()) {
        unlink((settings.work_dir + "/" + criu_log).c_str());
        return {};
    }
    return make_error(
        Code::unsupported, "check criu", *program,
        fmt::format("{}: {}", describe_status(child->status()), last_log_error(settings.work_dir)));
}

}  // namespace ghost::core
