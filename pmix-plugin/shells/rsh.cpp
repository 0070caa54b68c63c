// SPDX-License-Identifier: BSD-3-Clause
// ghost-rsh: what starts the daemons of a job, before the user's own launch agent (ssh).
//
//   ghost-rsh PLACE AGENT [OPTION…] NODE COMMAND…
//
// PLACE is where the process that starts it keeps the job's secret. Becomes the agent; one that
// starts a daemon finds the secret on its standard input. See pmix-plugin/settings/job_secret.hpp.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

#include "pmix-plugin/settings/job_secret.hpp"

namespace {

using namespace ghost::plugin;

[[noreturn]] void become(const std::vector<std::string>& words) {
    std::vector<char*> argv;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execvp(argv[0], argv.data());
    std::fprintf(stderr, "ghost-rsh: cannot execute %s: %s\n", argv[0], std::strerror(errno));
    _exit(127);
}

// It fits into a pipe.
bool put_on_input(const std::string& line) {
    int ends[2];
    if (pipe(ends) != 0) return false;
    const bool put =
        write(ends[1], line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
        dup2(ends[0], 0) == 0;
    close(ends[1]);
    if (ends[0] != 0) close(ends[0]);
    return put;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: ghost-rsh PLACE AGENT [OPTION...] NODE COMMAND...\n");
        return 2;
    }
    const std::vector<std::string> words(argv + 2, argv + argc);
    const char* shell = std::getenv("SHELL");
    const auto starts_daemon = launch_words(words, shell != nullptr ? shell : "");
    if (!starts_daemon) become(words);
    const auto job = secret_at(argv[1]);
    if (!job) {
        std::fprintf(stderr, "ghost-rsh: %s\n", job.error().message().c_str());
        return 1;
    }
    if (!put_on_input(secret_line(*job))) {
        std::perror("ghost-rsh: pass the job's secret on");
        return 1;
    }
    become(*starts_daemon);
}
