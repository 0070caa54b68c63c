// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/settings/job_secret.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <sstream>
#include <string_view>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/await.hpp"
#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/paths.hpp"

namespace ghost::plugin {
namespace {

constexpr size_t secret_digits = 64, most_life_digits = 64;
constexpr int passed_descriptor = 9;

bool is_hex(const std::string& text) {
    return text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> out;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);) {
        part.erase(0, part.find_first_not_of(' '));
        part.erase(part.find_last_not_of(' ') + 1);
        if (!part.empty()) out.push_back(part);
    }
    return out;
}

std::string name_of(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

}  // namespace

Result<JobSecret> parse_secret(const std::string& line, const std::string& whose) {
    std::istringstream words(line);
    JobSecret out;
    words >> out.secret >> out.life;
    if (out.secret.size() != secret_digits || out.life.empty() || !is_hex(out.secret) ||
        !is_hex(out.life))
        return make_error(Code::invalid, "read the job's secret from", whose);
    return out;
}

std::string secret_line(const JobSecret& job) {
    return job.secret + " " + job.life + "\n";
}

Status keep_secret(const JobSecret& job) {
    Fd fd(memfd_create("ghost-job", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    const std::string line = secret_line(job);
    if (!fd || fchmod(fd.get(), S_IRUSR) != 0 ||
        write(fd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()) ||
        fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
        return sys_error("keep the job's secret");
    const std::string place = fmt::format("/proc/{}/fd/{}", getpid(), fd.release());
    setenv(secret_place_variable, place.c_str(), 1);
    return {};
}

Result<JobSecret> secret_at(const std::string& path) {
    const auto text = read_file(path);
    if (!text) return text.error();
    return parse_secret(*text, path);
}

Result<JobSecret> kept_secret() {
    const char* place = std::getenv(secret_place_variable);
    const std::string own = fmt::format("/proc/{}/", getpid());
    if (place == nullptr || !std::string_view(place).starts_with(own))
        return make_error(Code::not_found, "find the job's secret");
    return secret_at(place);
}

Result<JobSecret> receive_secret(int fd, int limit_ms) {
    const int64_t limit = monotonic_us() + int64_t{limit_ms} * 1000;
    std::string line;
    for (char next = 0; next != '\n' && line.size() < secret_digits + most_life_digits + 2;) {
        if (!await_readable_until(fd, limit))
            return make_error(Code::timeout, "wait for the job's secret");
        const ssize_t got = read(fd, &next, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return sys_error("read the job's secret");
        if (got == 0) break;
        line += next;
    }
    return parse_secret(line, "the launch agent");
}

std::string launch_agent(const std::string& launcher, const std::string& users) {
    const auto choices = split(users, ':');
    std::string agent = choices.empty() ? users : choices.front();
    for (const auto& one : choices) {
        if (find_in_path(one.substr(0, one.find(' ')), search_path()).empty()) continue;
        agent = one;
        break;
    }
    // What a daemon's or a restarted job's own mpirun was told is ours already.
    const auto words = split(agent, ' ');
    if (words.size() > 2 && name_of(words[0]) == launcher_name)
        agent = agent.substr(agent.find(words[2], agent.find(words[1]) + words[1].size()));
    const char* place = std::getenv(secret_place_variable);
    return fmt::format("{} {} {}", launcher, place != nullptr ? place : "-", agent);
}

std::optional<std::vector<std::string>> launch_words(std::vector<std::string> words,
                                                     const std::string& shell) {
    // of every daemon that is started, and of nothing else (orte/mca/plm, 4.1)
    const auto known = std::ranges::find(words, "ess_base_jobid");
    if (known == words.end()) return std::nullopt;
    // A daemon that starts others gives them what it was given itself; none may be there twice.
    const std::string parameter = secret_descriptor_variable + sizeof("OMPI_MCA_") - 1;
    const auto given = std::ranges::find(words, parameter);
    if (given > words.begin() && words.end() - given > 1) words.erase(given - 1, given + 2);
    // A daemon that leaves its terminal has no standard input when it reads: another descriptor, by
    // a redirection, for which most shells stay behind as a process, so only then. csh has none.
    const auto leaves = std::ranges::find(words, "--daemonize");
    const std::string name = name_of(shell);
    const bool redirects = leaves != words.end() && name != "csh" && name != "tcsh";
    if (leaves != words.end() && !redirects) words.erase(leaves);
    const int descriptor = redirects ? passed_descriptor : 0;
    // for some shells it is all in parentheses, by words of their own
    auto end = words.back() == ")" ? words.end() - 1 : words.end();
    std::vector<std::string> more = {"-mca", parameter, fmt::to_string(descriptor)};
    if (redirects) more.push_back(fmt::format("{}<&0", descriptor));
    words.insert(end, more.begin(), more.end());
    // as the runtime does where it starts ssh itself
    const auto forwards = [](const std::string& word) {
        return word == "-x" || word == "-X" || word == "-Y";
    };
    if (name_of(words[0]) == "ssh" && std::ranges::none_of(words, forwards))
        words.insert(words.begin() + 1, "-x");
    return words;
}

}  // namespace ghost::plugin
