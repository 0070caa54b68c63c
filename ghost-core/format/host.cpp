// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/format/host.hpp"

#include <algorithm>
#include <charconv>
#include <elf.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <gnu/libc-version.h>
#include <set>
#include <sstream>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/json.hpp"
#include "base/json_text.hpp"

namespace ghost::core {
namespace {

using Json = nlohmann::json;

// /proc/cpuinfo's words for the first CPU; all CPUs of a supported machine are alike.
std::string cpu_line(std::initializer_list<const char*> keys) {
    std::ifstream in("/proc/cpuinfo");
    std::string line;
    while (std::getline(in, line)) {
        const auto colon = line.find(':');
        if (colon == std::string::npos) continue;
        for (const auto* key : keys)
            if (line.starts_with(key)) return line.substr(std::min(colon + 2, line.size()));
    }
    return {};
}

// Words of cpuinfo that describe the machine or its bugs' workarounds, not what programs can use.
// Programs choose code by the instruction sets; the kernel's xstate layout follows from them too.
bool matters(const std::string& flag) {
    static constexpr const char* prefixes[] = {
        "avx",  "sse",    "ssse",       "bmi",    "fma",    "aes",      "sha",  "amx",
        "gfni", "vaes",   "vpcl",       "pclmul", "popcnt", "movbe",    "f16c", "adx",
        "abm",  "rdrand", "rdseed",     "xsave",  "rdtscp", "fsgsbase", "erms", "fsrm",
        "rtm",  "clwb",   "clflushopt", "rdpid",  "movdir", "pku",      "sve",  "asimd",
        "fp",   "lse",    "atomics",    "crc32",  "pmull"};
    return std::any_of(std::begin(prefixes), std::end(prefixes),
                       [&](const char* prefix) { return flag.starts_with(prefix); });
}

std::set<std::string> cpu_flags() {
    std::istringstream words(cpu_line({"flags", "Features"}));
    std::set<std::string> out;
    for (std::string word; words >> word;)
        if (matters(word)) out.insert(word);
    return out;
}

std::string text_of(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

// What stays as it is as long as we run.
const Json& machine_facts() {
    static const Json facts = [] {
        utsname name{};
        uname(&name);
        return Json{{"arch", name.machine},
                    {"kernel", name.release},
                    {"libc", std::string("glibc ") + gnu_get_libc_version()},
                    {"page_size", this_page_size()},
                    {"cpu", cpu_line({"model name", "CPU part"})},
                    {"flags", cpu_flags()}};
    }();
    return facts;
}

// "6.1.0-13-amd64" as {6, 1}: programs may have found what a kernel of that age has. {} if unclear.
std::pair<int, int> kernel_number(const std::string& release) {
    std::pair<int, int> out;
    const char* end = release.data() + release.size();
    const auto first = std::from_chars(release.data(), end, out.first);
    if (first.ec != std::errc{} || first.ptr == end) return {};
    std::from_chars(first.ptr + 1, end, out.second);
    return out;
}

}  // namespace

uint32_t this_machine() {
#if defined(__x86_64__)
    return EM_X86_64;
#elif defined(__aarch64__)
    return EM_AARCH64;
#else
    return EM_NONE;
#endif
}

uint32_t this_page_size() {
    return static_cast<uint32_t>(sysconf(_SC_PAGESIZE));
}

std::string host_facts(const std::vector<pid_t>& tree, Ghosts ghosts) {
    Json facts = machine_facts();
    if (!tree.empty()) facts["files"] = file_facts(tree, ghosts);
    return facts.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string host_facts(const SeenFiles& files) {
    Json facts = machine_facts();
    facts["files"] = file_facts(files);
    return facts.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::vector<FileDifference>> named_differences(const std::string& facts_json) {
    const auto facts = parse_json(facts_json);
    const auto flags = facts.is_object() ? facts.find("flags") : facts.end();
    if (!facts.is_object() || flags == facts.end() || !flags->is_array())
        return make_error(Code::corrupt, "read the host facts of the ghost");
    std::vector<FileDifference> out;
    utsname name{};
    uname(&name);
    if (const auto arch = text_of(facts, "arch"); !arch.empty() && arch != name.machine)
        out.push_back(
            {"", fmt::format("this machine is {}, the ghost is for {}", name.machine, arch)});
    if (const auto size = facts.find("page_size"); size != facts.end() && *size != this_page_size())
        out.push_back({"", fmt::format("pages are {} bytes here, {} in the ghost", this_page_size(),
                                       size->dump())});
    const auto here = cpu_flags();
    std::string missing;
    for (const auto& flag : *flags)
        if (flag.is_string() && !here.count(flag.get<std::string>()))
            missing += " " + flag.get<std::string>();
    if (!missing.empty()) out.push_back({"", "this machine's processor lacks" + missing});
    const auto kernel = text_of(facts, "kernel");
    if (kernel_number(name.release) < kernel_number(kernel))
        out.push_back({"", fmt::format("kernel {} here is older than {}", name.release, kernel)});
    if (const auto files = facts.find("files"); files != facts.end())
        for (auto& line : file_differences(*files)) out.push_back(std::move(line));
    return out;
}

Result<std::vector<std::string>> host_differences(const std::string& facts_json) {
    auto named = named_differences(facts_json);
    if (!named) return named.error();
    std::vector<std::string> out;
    for (auto& one : *named) out.push_back(std::move(one.line));
    return out;
}

std::set<std::string> paths_in(const std::string& facts_json) {
    std::set<std::string> out;
    const auto facts = parse_json(facts_json);
    const auto files = facts.is_object() ? facts.find("files") : facts.end();
    if (!facts.is_object() || files == facts.end() || !files->is_array()) return out;
    for (const auto& file : *files)
        if (file.is_object()) out.insert(text_of(file, "path"));
    return out;
}

Status check_host(const std::string& facts_json, const std::set<std::string>& changing,
                  const std::set<std::string>& made) {
    auto facts = parse_json(facts_json);
    if (facts.is_object() && facts.contains("files") && facts["files"].is_array()) {
        Json files = Json::array();
        for (auto& file : facts["files"]) {
            const auto path = file.is_object() ? text_of(file, "path") : std::string();
            if (made.contains(path)) continue;
            if (changing.contains(path)) {
                for (const auto* field : {"size", "hash", "mtime", "build_id"}) file.erase(field);
            }
            files.push_back(std::move(file));
        }
        facts["files"] = std::move(files);
    }
    const bool same = changing.empty() && made.empty();
    auto lines = host_differences(same ? facts_json : facts.dump());
    if (!lines) return lines.error();
    if (lines->empty()) return {};
    return make_error(Code::unsupported, "import ghost", {},
                      fmt::format("{}", fmt::join(*lines, "; ")));
}

}  // namespace ghost::core
