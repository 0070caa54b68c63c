// SPDX-License-Identifier: BSD-3-Clause
#include "tests/net/lab.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <cerrno>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nettest {
namespace {

Words join(Words first, const Words& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

Words mpirun_words(int ranks, const std::string& hosts, const Words& program) {
    Words words{"mpirun", "-np", std::to_string(ranks), "--host", hosts, "--mca", "ghost", "1"};
    constexpr const char* least = "ghost_migrate_live_from";
    if (std::getenv(mode_variable) != nullptr && std::ranges::find(program, least) == program.end())
        words.insert(words.end(), {"--mca", least, "0"});
    return join(std::move(words), program);
}

}  // namespace

size_t count_of(const std::string& text, const std::string& part) {
    size_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++count;
    }
    return count;
}

std::string contents(const std::string& file) {
    std::ifstream in(file);
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
}

std::string check_talk(const std::string& text, const std::string& stream) {
    std::istringstream lines(text);
    uint64_t expected = 0;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(stream + " ")) continue;
        std::istringstream words(line);
        std::string name, number, body;
        uint64_t length = 0;
        words >> name >> number;
        if (number == "end") {
            words >> length;
            return length == expected ? "complete" : "lines are missing at the end";
        }
        words >> length;
        words.get();
        std::getline(words, body);
        std::string whole(length, static_cast<char>('a' + expected % 26));
        if (number != std::to_string(expected) || body != whole) {
            return "line " + number + " where " + std::to_string(expected) +
                   " was expected: " + line.substr(0, 100);
        }
        ++expected;
    }
    return "no last line after " + std::to_string(expected) + " lines";
}

std::string ghost_program() {
    const char* named = std::getenv("GHOST");
    if (named != nullptr && *named != '\0') return named;
    return std::filesystem::current_path().string() + "/tools/ghost";
}

std::string why_no_lab() {
    if (geteuid() != 0) return "a virtual cluster needs root";
    if (::access(ghost_program().c_str(), X_OK) != 0) return ghost_program() + " is not built";
    if (run({ghost_program(), "migrate", "--help"}, 10).status != 0) {
        return "this build has no `ghost migrate`";
    }
    if (run({"unshare", "-n", "-m", "-p", "-u", "-i", "-f", "true"}, 10).status != 0) {
        return "this machine refuses new name spaces";
    }
    if (run({"sh", "-c", "command -v mpirun"}, 10).status != 0) return "mpirun is not installed";
    return "";
}

Lab::Lab(int nodes) : name_("m" + std::to_string(getpid())), nodes_(nodes) {
    unsetenv("GHOST_LAB");
    Finished up = verb({"up", "-n", std::to_string(nodes)});
    if (up.status != 0) {
        verb({"down"});
        throw std::runtime_error("ghost lab up: " + up.err);
    }
    guard();
}

Lab::~Lab() {
    verb({"down"});
    alive_.reset();
    if (guard_ > 0) waitpid(guard_, nullptr, 0);
}

// A process that takes the lab down when this one has ended, however it did.
void Lab::guard() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
    alive_.reset(ends[1]);
    const ghost::Fd end(ends[0]);
    const std::string ghost = ghost_program();
    const pid_t child = fork();
    if (child < 0) throw std::runtime_error("cannot fork the lab's guard");
    if (child > 0) {
        guard_ = child;
        return;
    }
    setsid();  // a limit that ends the test's process group spares it
    dup2(end.get(), 0);
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    close_range(3, ~0U, 0);
    char byte;
    while (read(0, &byte, 1) < 0 && errno == EINTR) {
    }
    execl(ghost.c_str(), "ghost", "lab", "down", "--name", name_.c_str(), nullptr);
    _exit(1);
}

// `ghost lab VERB --name LAB …`: what follows the node belongs to the command on it.
Finished Lab::verb(const Words& words) {
    Words all{ghost_program(), "lab", words.front(), "--name", name_};
    all.insert(all.end(), words.begin() + 1, words.end());
    return run(all, 90);
}

void Lab::repair() {
    for (int i = 1; i <= nodes_; ++i) shape("gn" + std::to_string(i), "none");
    Finished up = verb({"up", "-n", std::to_string(nodes_)});
    if (up.status != 0) throw std::runtime_error("ghost lab up: " + up.err);
}

void Lab::cut(const std::string& node) {
    verb({"cut", node});
}
void Lab::switch_off(const std::string& node) {
    verb({"kill", node});
}
void Lab::shape(const std::string& node, const std::string& rate) {
    verb({"shape", node, rate});
}

bool of_a_user() {
    return std::getenv(user_variable) != nullptr;
}

Words Lab::exec(const std::string& node, const std::string& user, const Words& command) const {
    Words words{ghost_program(), "lab", "exec", "--name", name_};
    if (!user.empty()) words.insert(words.end(), {"--user", user});
    words.push_back(node);
    return join(words, command);
}

Background Lab::start_on(const std::string& node, const Words& command, const std::string& input,
                         bool more) {
    const char* user = std::getenv(user_variable);
    return Background(exec(node, user != nullptr ? user : "", command), input, more);
}

Background Lab::start_as_root(const std::string& node, const Words& command) {
    return Background(exec(node, "", command));
}

Finished Lab::as_root(const std::string& node, const Words& command, double seconds) {
    return start_as_root(node, command).finish(seconds);
}

Finished Lab::on(const std::string& node, const Words& command, double seconds) {
    return start_on(node, command).finish(seconds);
}

std::vector<int> Lab::pids(const std::string& node, const std::string& pattern) {
    std::istringstream list(on(node, {"ps", "-eo", "pid=,ppid=,args="}).out);
    const std::regex wanted(pattern);
    std::map<int, int> parents;  // of those that match
    for (std::string line; std::getline(list, line);) {
        std::istringstream words(line);
        int pid = 0, parent = 0;
        std::string args;
        words >> pid >> parent >> std::ws;
        std::getline(words, args);
        if (std::regex_search(args, wanted)) parents[pid] = parent;
    }
    std::vector<int> out;
    for (auto [pid, parent] : parents) {
        if (!parents.contains(parent)) out.push_back(pid);
    }
    return out;
}

void Lab::kill(const std::string& node, int pid) {
    on(node, {"kill", "-KILL", std::to_string(pid)});
}

// From /proc, which is the node's own; /sys shows the machine's interfaces.
uint64_t Lab::received(const std::string& node) {
    std::istringstream lines(on(node, {"sed", "-n", "s/:/ /;3,$p", "/proc/net/dev"}).out);
    uint64_t sum = 0, bytes = 0;
    std::string interface, rest;
    while (lines >> interface >> bytes && std::getline(lines, rest)) sum += bytes;
    return sum;
}

Job::Job(Lab& lab, int ranks, const std::string& hosts, const Words& program,
         const std::string& input, bool more)
    : lab_(lab), mpirun_(lab.start_on("gn1", mpirun_words(ranks, hosts, program), input, more)) {}

Job::Job(Lab& lab, const Words& command) : lab_(lab), mpirun_(lab.start_on("gn1", command)) {}

bool Job::wait_for(const std::string& text, size_t count, double seconds) {
    bool found = false;
    poll_until(seconds, [&] {
        bool running = mpirun_.running();
        found = count_of(mpirun_.out(), text) >= count;
        return found || !running;
    });
    return found;
}

bool Job::wait_for_more(const std::string& text, size_t count, double seconds) {
    return wait_for(text, count_of(mpirun_.out(), text) + count, seconds);
}

bool Job::wait_for_error(const std::string& text, double seconds) {
    return poll_until(seconds, [&] { return mpirun_.err().find(text) != std::string::npos; });
}

Words migrate_words(const Words& options) {
    Words words = join({"ghost", "migrate"}, options);
    const char* mode = std::getenv(mode_variable);
    if (mode != nullptr && std::ranges::find(options, "--mode") == options.end())
        words.insert(words.end(), {"--mode", mode});
    return words;
}

Background Job::start_migrate(int rank, const std::string& node, const Words& options) {
    return lab_.start_on(
        "gn1",
        migrate_words(join({"--rank", std::to_string(rank), "--to", node, "--json"}, options)));
}

Move Job::migrate_with_sharers(int rank, const std::string& node) {
    return move_of(start_migrate(rank, node, {"--with-sharers"}).finish(60));
}

Move Job::migrate(int rank, const std::string& node, double seconds) {
    return move_of(start_migrate(rank, node).finish(seconds));
}

Move move_of(const Finished& finished) {
    Move move{finished.status, Json::parse(finished.out, nullptr, false), finished.err};
    if (move.result.is_discarded()) move.result = nullptr;
    move.err += finished.out;
    return move;
}

std::string Job::node_of(int rank) {
    Json list = Json::parse(lab_.on("gn1", {"ghost", "ps", "--json"}).out, nullptr, false);
    // {"jobs": [{"ranks": [{"rank", "node", …}]}]}, whichever way the outermost level is wrapped.
    std::string node;
    std::function<void(const Json&)> look = [&](const Json& value) {
        if (value.is_object() && value.contains("rank") && value.contains("node") &&
            value["rank"] == rank && value["node"].is_string()) {
            node = value["node"];
        }
        if (value.is_structured()) {
            for (const Json& inner : value) look(inner);
        }
    };
    if (!list.is_discarded()) look(list);
    return node;
}

}  // namespace nettest
