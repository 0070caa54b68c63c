// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/restore.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/pipe_signal.hpp"
#include "base/proc.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/kernel_state.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/criu/watch.hpp"

namespace ghost::core {
namespace {

constexpr const char* serve_socket = "streamer-serve.sock";
constexpr const char* lazy_socket = "lazy-pages.socket";
constexpr uint32_t restore_finished = 0x52535446;  // criu/uffd.c
constexpr int tick_ms = 10;
constexpr int64_t second_us = 1000000;
constexpr int largest_pipe = 1 << 20;

// The init of a PID name space below ours; those, or the root itself, are what a killed criu leaves
// to its parent.
bool is_nested_init(pid_t pid) {
    const auto status = read_status(fmt::format("/proc/{}", pid));
    return status && status->numbers.size() > 1 && status->numbers.back() == 1;
}

std::vector<pid_t> new_roots(const std::vector<pid_t>& before, pid_t criu, pid_t plain_root) {
    std::vector<pid_t> out;
    for (const pid_t pid : children_of(getpid()))
        if (pid != criu && std::find(before.begin(), before.end(), pid) == before.end() &&
            (pid == plain_root || is_nested_init(pid)))
            out.push_back(pid);
    return out;
}

}  // namespace

int64_t now_ns(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

ImportState::ImportState() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void ImportState::fail(Error error) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(error);
    eventfd_write(event_.get(), 1);
}

void ImportState::finish_pages() {
    std::lock_guard lock(mutex_);
    pages_finished_ = true;
    eventfd_write(event_.get(), 1);
}

std::optional<Error> ImportState::failure() {
    std::lock_guard lock(mutex_);
    return failure_;
}

bool ImportState::pages_finished() {
    std::lock_guard lock(mutex_);
    eventfd_t value = 0;
    eventfd_read(event_.get(), &value);
    return pages_finished_;
}

Restorer::Restorer(RestoreRequest request, SkeletonStore& skeleton, FaultServer& filler,
                   ImportState& state)
    : request_(std::move(request)), skeleton_(skeleton), filler_(filler), state_(state) {}

Restorer::~Restorer() {
    if (criu_) clean_up();
}

Status Restorer::start() {
    auto program = find_program(request_.criu.program);
    if (!program) return program.error();
    const auto& folder = request_.criu.work_dir;
    GHOST_TRY(images_.listen(folder, serve_socket));
    GHOST_TRY(lazy_.listen(folder, lazy_socket));
    ChildRequest child;
    child.folder = folder;
    child.argv = {*program,
                  "restore",
                  "--no-default-config",
                  "-D",
                  ".",
                  "-o",
                  criu_log,
                  "-v1",
                  "--stream",
                  "--lazy-pages",
                  "--restore-detached",
                  "--restore-sibling",
                  "--leave-stopped",
                  "--file-locks",
                  "--tcp-established",
                  "--manage-cgroups=ignore"};
    // criu sets the groups of each thread that has some; one that has none keeps criu's. (A user
    // cannot change groups, and no thread of his can have.)
    child.no_groups = ::geteuid() == 0;
    if (request_.plain_root != 0)
        child.argv.push_back("--shell-job");
    else
        child.environment = {"GHOST_OWN_PROC=1"};
    int number = 3;
    for (const auto& [fd, key] : request_.inherit) {
        child.descriptors.push_back(fd);
        child.argv.insert(child.argv.end(),
                          {"--inherit-fd", fmt::format("fd[{}]:{}", number++, key)});
    }
    as_this_user(child);
    children_before_ = children_of(getpid());
    auto started = Child::start(child);
    if (!started) return started.error();
    criu_.emplace(std::move(*started));
    (void)fault::pass(fault::Point::criu_restores, fault::Process{criu_->pid()},
                      [this] { images_.close(); });
    return {};
}

// criu may take its time only while something moves: the skeleton, pages, or criu itself.
Status Restorer::check_limit() {
    const uint64_t progress = skeleton_.bytes() + filler_.filled() + steps_;
    if (progress != progress_ || deadline_ == 0) {
        progress_ = progress;
        deadline_ = monotonic_us() + request_.criu.limit_s * second_us;
    }
    if (monotonic_us() < deadline_) return {};
    return make_error(Code::timeout, "import", {}, "nothing moves any more");
}

void Restorer::step() {
    steps_++;
    if (request_.gets_on) request_.gets_on();
}

Status Restorer::turn() {
    Watch watch;
    for (const auto& [pid, fd] : filler_.descriptors())
        watch.add(fd, POLLIN, [this, pid = pid] { return filler_.handle(pid); });
    for (auto& transfer : transfers_)
        watch.add(transfer.pipe.get(), POLLOUT, [this, &transfer] { return feed(transfer); });
    watch.add(images_.fd(), POLLIN, [this] { return serve_request(); });
    watch.add(lazy_.fd(), POLLIN, [this] { return lazy_message(); });
    watch.add(skeleton_.fd(), POLLIN, [this] {
        skeleton_.clear();
        return answer_waiting();
    });
    watch.add(state_.fd(), POLLIN, []() -> Status { return {}; });  // run() looks at it
    watch.add(criu_->ended() ? -1 : criu_->fd(), POLLIN, [this] { return check_criu(); });
    GHOST_TRY(watch.wait("wait for criu", tick_ms));
    transfers_.remove_if([](const Transfer& transfer) { return !transfer.pipe; });
    return check_limit();
}

// It asks for images as soon as it is forked, and cannot go on without an answer.
void Restorer::look_for_root() {
    if (!request_.tells_root) return;
    const auto roots = new_roots(children_before_, criu_->pid(), request_.plain_root);
    if (roots.empty()) return;
    request_.tells_root(roots.front());
    request_.tells_root = {};
}

Status Restorer::serve_request() {
    const auto said = images_.take();
    if (!said) return said.error();
    if (!*said) return {};
    auto name = read_image_request(images_.connection());
    if (!name) return name.error();
    if (name->empty()) return images_.hang_up(), Status();
    step();
    look_for_root();
    waiting_ = std::move(*name);
    return answer_waiting();
}

Status Restorer::answer_waiting() {
    if (waiting_.empty()) return {};
    std::string_view content;
    const auto found = skeleton_.find(waiting_, content);
    if (found == SkeletonStore::Found::not_yet) return {};
    const bool clocks = request_.clocks && waiting_.starts_with("timens-");
    const bool locks = waiting_ == locks_image;  // they are taken when the tree is there
    waiting_.clear();
    GHOST_TRY(answer_image_request(images_.connection(), found == SkeletonStore::Found::yes));
    if (found == SkeletonStore::Found::no) return {};
    auto pipe = receive_descriptor(images_.connection());
    if (!pipe) return pipe.error();
    fcntl(pipe->get(), F_SETFL, O_NONBLOCK);
    if (clocks) {
        // As late as can be: criu sets them by what it reads, however long it takes to read it.
        clocks_ = clocks_image(content, now_ns(CLOCK_MONOTONIC) + request_.clocks->monotonic_ns,
                               now_ns(CLOCK_BOOTTIME) + request_.clocks->boottime_ns);
        content = clocks_;
    }
    if (locks) content = locks_ = without_locks(content);
    if (content.size() > 65536)
        fcntl(pipe->get(), F_SETPIPE_SZ,
              static_cast<int>(std::min<size_t>(content.size(), largest_pipe)));
    transfers_.push_back({std::move(*pipe), content});
    auto& transfer = transfers_.back();
    GHOST_TRY(feed(transfer));
    if (!transfer.pipe) transfers_.pop_back();
    return {};
}

// criu's end closed early means that it needs no more of this file.
Status Restorer::feed(Transfer& transfer) {
    while (!transfer.rest.empty()) {
        const auto sent = ::write(transfer.pipe.get(), transfer.rest.data(), transfer.rest.size());
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) return {};
        if (sent < 0 && errno == EPIPE) break;
        if (sent < 0) return sys_error("give skeleton to criu");
        transfer.rest.remove_prefix(static_cast<size_t>(sent));
    }
    transfer.pipe.reset();
    return {};
}

Status Restorer::lazy_message() {
    const auto said = lazy_.take();
    if (!said) return said.error();
    if (!*said) return {};
    uint32_t word = 0;
    auto there = receive_exactly(lazy_.connection(), &word, sizeof word);
    if (!there) return there.error();
    if (!*there) return lazy_.hang_up(), Status();
    if (word == restore_finished) return filler_.all_there(), Status();
    const auto pid = static_cast<int32_t>(word);
    if (pid <= 0) return {};  // a zombie has no memory
    auto userfault = receive_descriptor(lazy_.connection());
    if (!userfault) return userfault.error();
    fcntl(userfault->get(), F_SETFL, O_NONBLOCK);
    filler_.add(pid, std::move(*userfault));
    step();
    return {};
}

Status Restorer::check_criu() {
    if (!criu_->wait(0)) return {};
    if (criu_->succeeded()) {
        tree_made_us_ = monotonic_us();
        step();
        return {};
    }
    return criu_gave_up("import", criu_->status(), request_.criu.work_dir);
}

// When criu gives up, connections break and processes vanish; what it said about it is the cause.
void Restorer::blame_criu(Status& status) {
    if (!criu_ || !criu_->wait(monotonic_us() + second_us / 10) || criu_->succeeded()) return;
    if (auto failed = check_criu(); !failed.ok()) status = failed;
}

Result<pid_t> Restorer::run(const std::function<void()>& tick) {
    const PipeSignalBlock no_signal;
    Status status;
    while (status.ok()) {
        const bool pages = state_.pages_finished();
        if (auto failure = state_.failure()) status = *failure;
        if (!status.ok() || (criu_->ended() && pages)) break;
        status = turn();
        tick();
    }
    pid_t root = 0;
    if (status.ok()) {
        const auto roots = new_roots(children_before_, criu_->pid(), request_.plain_root);
        if (roots.size() == 1)
            root = roots.front();
        else
            status = make_error(Code::internal, "import", {},
                                fmt::format("criu made {} trees", roots.size()));
    }
    if (status.ok()) {
        let_memory_go(root);
        status = wait_stopped(root, monotonic_us() + 2 * second_us);
    }
    if (status.ok()) {
        unlink((request_.criu.work_dir + "/" + criu_log).c_str());
        children_before_.push_back(root);  // not to be cleaned up
    }
    if (!status.ok() && status.error().code != Code::refused) blame_criu(status);
    clean_up();
    if (!status.ok()) return status.error();
    return root;
}

// The kernel serves its faults from now on.
void Restorer::let_memory_go(pid_t root) {
    if (!request_.keep_userfaults) return filler_.release();
    std::map<int, PageRuns> areas;
    if (auto tasks = list_tree(root); tasks)
        for (const auto& task : *tasks)
            if (auto maps = own_mappings(task.pid); maps) areas[task.inner] = maps->areas();
    userfaults_ = filler_.hand_over(areas);
}

// A criu that fails by itself removes the files it has made on the way (those of unlinked but open
// files), so it gets the chance: without images, memory and tree it cannot go on.
void Restorer::clean_up() {
    transfers_.clear();
    images_.close();
    lazy_.close();
    if (criu_ && !criu_->ended()) {
        for (const pid_t root : new_roots(children_before_, criu_->pid(), request_.plain_root))
            kill(root, SIGKILL);
        criu_->wait(monotonic_us() + second_us);
    }
    if (criu_) {
        criu_->kill();
        for (const pid_t root : new_roots(children_before_, criu_->pid(), request_.plain_root))
            kill_and_reap(root);
        criu_.reset();
    }
    for (const auto* name : {serve_socket, lazy_socket, "stats-restore"})
        unlink((request_.criu.work_dir + "/" + name).c_str());
}

Status wait_stopped(pid_t root, int64_t deadline_us) {
    for (;;) {
        auto tasks = list_tree(root);
        if (!tasks) return tasks.error();
        std::string running;
        for (const auto& task : *tasks) {
            const auto folder = fmt::format("/proc/{}/task", task.pid);
            for (const pid_t tid : numbers_in(folder)) {
                const auto status = read_status(fmt::format("{}/{}", folder, tid));
                if (status && status->state != 'T' && status->state != 'Z' && status->state != 'X')
                    running =
                        fmt::format("{} ({}) is in state {}", tid, status->name, status->state);
            }
        }
        if (running.empty()) return {};
        if (monotonic_us() > deadline_us)
            return make_error(Code::timeout, "wait for the tree to stop", {}, "thread " + running);
        usleep(100);  // the rank is waited for
    }
}

void kill_and_reap(pid_t root) {
    if (root <= 1 || kill(root, SIGKILL) != 0) return;
    while (waitpid(root, nullptr, 0) < 0 && errno == EINTR) {
    }
}

}  // namespace ghost::core
