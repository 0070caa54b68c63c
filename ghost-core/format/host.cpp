#include "ghost-core/format/host.hpp"

#include <algorithm>
#include <elf.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <sys/utsname.h>
#include <unistd.h>

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

std::string host_facts() {
    utsname name{};
    uname(&name);
    return Json{{"arch", name.machine},
                {"kernel", name.release},
                {"page_size", this_page_size()},
                {"cpu", cpu_line({"model name", "CPU part"})},
                {"flags", cpu_flags()}}
        .dump();
}

Status check_host(const std::string& facts_json) {
    const auto facts = Json::parse(facts_json, nullptr, false);
    const auto flags = facts.is_object() ? facts.find("flags") : facts.end();
    if (!facts.is_object() || flags == facts.end() || !flags->is_array())
        return make_error(Code::corrupt, "read ghost: host facts");
    const auto here = cpu_flags();
    std::string missing;
    for (const auto& flag : *flags)
        if (flag.is_string() && !here.count(flag.get<std::string>()))
            missing += " " + flag.get<std::string>();
    if (missing.empty()) return {};
    return make_error(Code::unsupported, "import ghost: this machine's processor lacks" + missing);
}

}  // namespace ghost::core
