// SPDX-License-Identifier: BSD-3-Clause
#include "tools/job_client.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/json_text.hpp"
#include "base/own_file.hpp"
#include "base/pidfd.hpp"
#include "base/proc.hpp"

namespace ghost::tools {

using plugin::FromCoordinator;
using plugin::RequestProgress;
using plugin::RequestResult;

namespace {

constexpr int answer_limit_ms = 5000;
// Between two looks at an mpirun that says nothing.
constexpr int look_ms = 500;
// It may have much to do: then it is asked for something that it answers at once.
constexpr int64_t silence_us = 5'000'000;

bool matches(const std::string& name, const std::string& begin, const std::string& end) {
    return name.size() > begin.size() + end.size() && name.compare(0, begin.size(), begin) == 0 &&
           name.compare(name.size() - end.size(), end.size(), end) == 0;
}

// Entries of a folder whose name begins and ends so.
std::vector<std::string> entries(const std::string& folder, const std::string& begin,
                                 const std::string& end) {
    std::vector<std::string> out;
    std::error_code ec;
    for (std::filesystem::directory_iterator it(folder, ec), none; !ec && it != none;
         it.increment(ec)) {
        if (matches(it->path().filename(), begin, end)) out.push_back(it->path());
    }
    return out;
}

schema::Reader reader() {
    return {plugin::from_coordinator, "the coordinator"};
}

Json json_of(const schema::Raw& raw) {
    return parse_json(raw.text);
}

// Why an mpirun cannot answer now; empty: nothing keeps it.
std::string why_stopped(pid_t mpirun) {
    const Halt halt = halt_of(mpirun);
    if (!halt.stopped) return {};
    if (halt.tracer != 0)
        return fmt::format("mpirun {} is stopped by {} (process {}), which traces it", mpirun,
                           halt.by, halt.tracer);
    return fmt::format(
        "mpirun {} is suspended (SIGSTOP or SIGTSTP): `kill -CONT {}`, or its batch system, lets "
        "it go on",
        mpirun, mpirun);
}

// What a process has used of processors, and whether it works or waits for one or for a disk now.
struct Work {
    std::string used;
    bool goes_on = false;
};

Work work_of(pid_t pid) {
    constexpr size_t user_time = 11, system_time = 12;
    const auto all = stat_fields(pid);
    Work out;
    if (all.size() > system_time) out.used = all[user_time] + " " + all[system_time];
    const std::string threads = fmt::format("/proc/{}/task", pid);
    for (const pid_t thread : numbers_in(threads)) {
        const auto status = read_status(fmt::format("{}/{}", threads, thread));
        out.goes_on |= status && (status->state == 'R' || status->state == 'D');
    }
    return out;
}

// Of an mpirun that was stopped: busy. Time in which it works counts little: on a machine that has
// too much to do that is all it may get.
Result<ControlMessage> receive(const ControlSocket& socket, int timeout_ms) {
    constexpr int worked_for = 10;
    const pid_t mpirun = socket.peer_pid();
    Work before = work_of(mpirun);
    for (bool seen = false;;) {
        auto packet = socket.receive(std::min(timeout_ms, look_ms));
        if (packet.ok() || packet.error().code != Code::timeout) return packet;
        const std::string why = why_stopped(mpirun);
        // Twice: it may be the moment of a tool that looks at it.
        if (seen && !why.empty()) return because(Code::busy, why);
        seen = !why.empty();
        const Work now = work_of(mpirun);
        const bool works = now.goes_on || now.used != before.used;
        before = now;
        timeout_ms -= works ? look_ms / worked_for : look_ms;
        if (timeout_ms <= 0) return packet;
    }
}

Result<Job> open_job(const std::string& path, int timeout_ms) {
    auto socket = ControlSocket::connect(path);
    GHOST_TRY(socket);
    GHOST_TRY(socket->send_text(schema::encode(plugin::PsRequest{})));
    auto packet = receive(*socket, timeout_ms);
    GHOST_TRY(packet);
    std::string complaint;
    const auto message = reader().read(packet->text, complaint);
    Json info;
    if (message && message->is<RequestResult>())
        info = json_of(message->as<RequestResult>().result);
    if (!info.is_object()) return make_error(Code::corrupt, "understand the coordinator at", path);
    return Job{std::move(*socket), path, std::move(info)};
}

// Of a coordinator's socket: nobody listens there (any more).
bool is_closed(const Error& error) {
    return error.sys == ECONNREFUSED || error.sys == ENOENT || error.code == Code::peer_lost;
}

// mpirun's, of its session folder's name.
pid_t pid_at(const std::string& path) {
    const std::string folder = std::filesystem::path(path).parent_path().filename();
    return static_cast<pid_t>(std::strtol(folder.c_str() + folder.find('.') + 1, nullptr, 10));
}

// What is at the coordinators' sockets.
struct Found {
    std::vector<Job> jobs;                            // that answer
    std::vector<std::pair<pid_t, std::string>> mute;  // do not, and why
    std::set<pid_t> ended;                            // closed while we looked
    std::set<pid_t> killed;                           // left their sockets behind

    std::string mute_text() const {
        std::vector<std::string> all;
        for (const auto& one : mute) all.push_back(one.second);
        return fmt::format("{}", fmt::join(all, ", "));
    }
};

Found look_at_all(int timeout_ms) {
    Found out;
    for (const std::string& path : coordinator_sockets()) {
        const pid_t mpirun = pid_at(path);
        auto job = open_job(path, timeout_ms);
        if (job.ok())
            out.jobs.push_back(std::move(*job));
        else if (!is_closed(job.error()))
            out.mute.emplace_back(mpirun, job.error().message());
        else if (job.error().sys != ECONNREFUSED)
            out.ended.insert(mpirun);
        else if (!open_pidfd(mpirun))  // else another process has its number by now
            out.killed.insert(mpirun);
    }
    return out;
}

// Of all that were found; none: it is none of them.
Result<std::optional<Job>> named(const std::string& wanted, Found& found) {
    const auto is_meant = [&](pid_t mpirun) { return wanted == std::to_string(mpirun); };
    for (Job& job : found.jobs)
        if (is_meant(job.pid()) || wanted == job.name()) return std::optional(std::move(job));
    for (const auto& [mpirun, why] : found.mute)
        if (is_meant(mpirun)) return because(Code::busy, why);
    if (std::ranges::any_of(found.ended, is_meant) || std::ranges::any_of(found.killed, is_meant))
        return because(Code::peer_lost, plugin::job_has_ended);
    return std::optional<Job>();
}

std::string describe(const Job& job) {
    return fmt::format("{} (job {})", job.pid(), job.name());
}

std::string list(const std::vector<Job>& jobs) {
    std::vector<std::string> texts;
    for (const Job& job : jobs) texts.push_back(describe(job));
    return fmt::format("{}", fmt::join(texts, ", "));
}

constexpr const char* no_jobs = "no `mpirun --mca ghost 1` of yours runs on this node";

// Of a job that was named and is none of those that answer: one that does not may be meant, whose
// name nobody says.
Error not_there(const std::string& wanted, const Found& found) {
    const std::string mute = found.mute_text();
    if (found.jobs.empty() && !mute.empty()) return because(Code::busy, mute);
    return make_error(Code::not_found, "find job", wanted,
                      "it has ended, or is of another node or user; " +
                          (found.jobs.empty() ? no_jobs : "running are " + list(found.jobs)) +
                          (mute.empty() ? "" : "; no answer: " + mute));
}

bool is_process(const std::string& wanted) {
    char* end = nullptr;
    const long pid = std::strtol(wanted.c_str(), &end, 10);
    return *end == '\0' && pid > 0 && ::kill(static_cast<pid_t>(pid), 0) == 0;
}

// Whether its mpirun is gone or about to be: it closes its sockets before it ends, however long
// that takes it then.
bool has_ended(const Job& job) {
    const Fd mpirun = open_pidfd(job.pid());
    if (!mpirun || await_pidfd(mpirun.get(), 0)) return true;
    const auto again = open_job(job.path, answer_limit_ms);
    return !again.ok() && is_closed(again.error());
}

// The connection broke before the result came.
Answer coordinator_lost(const Job& job, const std::optional<RequestProgress>& last) {
    const bool ended = has_ended(job);
    // It says when it begins.
    if (ended && !last) return {1, Json(), plugin::job_has_ended};
    std::string known = "nothing is known to have been done";
    if (last) {
        known = fmt::format("{} was last heard of in phase \"{}\"",
                            last->rank ? fmt::format("rank {}", *last->rank) : "the snapshot",
                            last->phase);
    }
    if (ended)
        return {3, Json(),
                fmt::format("mpirun {} was killed, or has crashed, and its job with it; {}",
                            job.pid(), known)};
    return {1, Json(),
            fmt::format("the coordinator in mpirun {} closed the connection before the end; {}; "
                        "the job runs on, `ghost ps` shows where its ranks are",
                        job.pid(), known)};
}

Answer answer_of(const RequestResult& result) {
    Answer out;
    out.exit = result.exit;
    if (!result.result.text.empty()) out.result = json_of(result.result);
    out.error = result.error.value_or("");
    if (out.exit != 0 && out.error.empty())
        out.error = "the coordinator refused and did not say why";
    return out;
}

// One that is of another version, or none at all. What it does with the request is not known here.
Answer not_understood(const Job& job, const std::string& complaint) {
    const auto why = schema::decode<schema::Complaint>(complaint);
    return {1, Json(),
            fmt::format("the coordinator in mpirun {} is not understood: {}; `ghost ps` shows "
                        "where the job's ranks are",
                        job.pid(), why.ok() ? why->why : "it does not say what became of it")};
}

// What is under way in it goes on with it, or ends by its own limits.
Answer no_word(const Job& job, const std::string& why) {
    return {1, Json(),
            fmt::format("{}; what was asked for may still be done: `ghost ps {}` shows where the "
                        "job's ranks are",
                        why, job.pid())};
}

// A word from it; timeout: it is silent, and does not answer a second question either.
Result<ControlMessage> next_word(const Job& job) {
    for (;;) {
        auto packet = receive(job.socket, silence_us / 1000);
        if (packet.ok() || packet.error().code != Code::timeout) return packet;
        if (auto lives = open_job(job.path, answer_limit_ms); !lives.ok()) {
            if (lives.error().code != Code::timeout) return lives.error();
            return because(Code::timeout,
                           fmt::format("mpirun {} has said nothing for {} s", job.pid(),
                                       silence_us / 1'000'000 + answer_limit_ms / 1000));
        }
    }
}

Answer ask(const Job& job, const std::string& request, const OnProgress& progress) {
    std::optional<RequestProgress> last;
    if (!job.socket.send_text(request).ok()) return coordinator_lost(job, last);
    auto read = reader();
    for (;;) {
        auto packet = next_word(job);
        if (!packet.ok()) {
            const Code code = packet.error().code;
            if (code == Code::busy || code == Code::timeout)
                return no_word(job, packet.error().message());
            return coordinator_lost(job, last);
        }
        std::string complaint;
        const auto message = read.read(packet->text, complaint);
        if (!message) return not_understood(job, complaint);
        switch (message->type<FromCoordinator>()) {
            case FromCoordinator::result:
                return answer_of(message->as<RequestResult>());
            case FromCoordinator::error:
                return {
                    1, Json(),
                    "the coordinator did not understand: " + message->as<schema::Complaint>().why};
            case FromCoordinator::progress:
                last = message->as<RequestProgress>();
                if (progress) progress(*last);
        }
    }
}

// Where mpirun makes its session folders (orte/util/session_dir.c): the parameter rules alone.
std::set<std::string> session_folders() {
    const char* base = std::getenv("OMPI_MCA_orte_tmpdir_base");
    if (base != nullptr && *base != '\0') return {base};
    std::set<std::string> folders{"/tmp"};
    const char* tmp = std::getenv("TMPDIR");
    if (tmp != nullptr && *tmp != '\0') {
        folders.insert(std::filesystem::path(tmp / std::filesystem::path()).parent_path().string());
    }
    return folders;
}

}  // namespace

std::vector<std::string> coordinator_sockets() {
    std::vector<std::string> out;
    std::string uid = "." + std::to_string(::geteuid());
    for (const std::string& folder : session_folders()) {
        for (const std::string& session : entries(folder, "ompi.", uid)) {
            // anybody may make such folders in /tmp
            if (!open_own_folder(session)) continue;
            for (const std::string& job : entries(session, "pid.", "")) {
                std::string path = job + "/ghost.sock";
                if (::access(path.c_str(), F_OK) == 0) out.push_back(path);
            }
        }
    }
    std::sort(out.begin(), out.end());
    return out;
}

std::vector<Job> running_jobs(int timeout_ms, std::vector<std::string>* silent) {
    Found found = look_at_all(timeout_ms);
    for (const auto& [mpirun, why] : found.mute)
        if (silent != nullptr) silent->push_back(why);
    return std::move(found.jobs);
}

Result<std::optional<Job>> find_job(const std::string& wanted) {
    Found found = look_at_all(answer_limit_ms);
    auto job = named(wanted, found);
    if (!job || *job || found.mute.empty() || is_process(wanted)) return job;
    return not_there(wanted, found);
}

Result<Job> choose_job(const std::string& wanted) {
    Found found = look_at_all(answer_limit_ms);
    if (!wanted.empty()) {
        auto job = named(wanted, found);
        GHOST_TRY(job);
        if (*job) return std::move(**job);
        return not_there(wanted, found);
    }
    const std::string mute = found.mute_text(), also = mute.empty() ? "" : "; no answer: " + mute;
    if (found.jobs.empty() && !mute.empty()) return because(Code::busy, mute);
    if (found.jobs.size() == 1) return std::move(found.jobs[0]);
    if (!found.jobs.empty())
        return make_error(Code::invalid, "choose a job", {},
                          "several run, name one of " + list(found.jobs) + also);
    if (!found.ended.empty()) return because(Code::peer_lost, plugin::job_has_ended);
    return make_error(Code::not_found, "find a job", {}, no_jobs);
}

Answer ask(const Job& job, const plugin::MigrateRequest& request, const OnProgress& progress) {
    return ask(job, schema::encode(request), progress);
}

Answer ask(const Job& job, const plugin::CheckpointRequest& request, const OnProgress& progress) {
    return ask(job, schema::encode(request), progress);
}

Answer ask(const Job& job, const plugin::DrainRequest& request, const OnProgress& progress) {
    return ask(job, schema::encode(request), progress);
}

Answer ask(const Job& job, const plugin::GrowRequest& request, const OnProgress& progress) {
    return ask(job, schema::encode(request), progress);
}

Answer ask(const Job& job, const plugin::CancelRequest& request) {
    return ask(job, schema::encode(request), nullptr);
}

}  // namespace ghost::tools
