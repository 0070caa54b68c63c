// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/dump.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <sched.h>
#include <sys/socket.h>

#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/fault.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "base/proc.hpp"
#include "base/scheduling.hpp"
#include "ghost-core/criu/binding.hpp"
#include "ghost-core/criu/concurrent_hook.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/criu/criu.hpp"
#include "ghost-core/criu/image_stream.hpp"
#include "ghost-core/criu/names.hpp"
#include "ghost-core/criu/placement.hpp"
#include "ghost-core/criu/stopped_tree.hpp"
#include "ghost-core/criu/tree.hpp"
#include "ghost-core/criu/unix_sockets.hpp"
#include "ghost-core/criu/user_limits.hpp"
#include "ghost-core/criu/watch.hpp"
#include "ghost-core/format/services.hpp"
#include "ghost-core/memory/waits.hpp"

namespace ghost::core {
namespace {

constexpr const char* capture_socket = "streamer-capture.sock";
constexpr size_t piece_bytes = 256 * 1024;
constexpr size_t most_waiting = 64;  // small images in their pipes
constexpr const char* pages_image = "pages-";
constexpr const char* core_image = "core-";    // of a thread; in small pipes
constexpr const char* cores_image = "cores-";  // of all threads of a process but the main one
constexpr int64_t second_us = 1000000;
// What criu has seen of a running tree is so long as good as new. Looking anew may cost 10 ms/GiB.
constexpr int64_t fresh_us = second_us;
constexpr const char* changed_flags = " has flags ";  // of criu's message, ghost-smaps.c

// An image file on its way from criu.
struct Image {
    int id = 0;
    std::string name;
    Fd pipe;
    uint64_t size = 0;
    int owner = 0;        // of a page map, else 0
    bool large = false;   // may be more than its pipe takes
    std::string content;  // of a page map, of locks, and of every one that is kept
};

// Without our change criu keeps the lazy pages for a client of its page server and stays until that
// one has hung up: give it a connection whose other end is closed already.
Status add_closed_page_client(ChildRequest& child, Fd& server) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return sys_error("make socket pair");
    ::close(ends[1]);
    server.reset(ends[0]);
    child.descriptors = {server.get()};
    child.argv.insert(child.argv.end(), {"--ps-socket", "3"});
    return {};
}

std::string our_mounts() {
    auto text = read_file("/proc/self/mountinfo");
    return text ? std::move(*text) : std::string();
}

}  // namespace

class TreeDump::Dumper {
  public:
    explicit Dumper(DumpRequest request) : request_(std::move(request)) {}

    Status prepare();
    Result<DumpResult> run(GhostWriter* writer, SkeletonFiles* files);
    const StoppedTree& stopped_tree() const { return *stopped_tree_; }
    ~Dumper();

  private:
    // Where criu is, by what it has said; see packaging/criu, ghost.c.
    enum class Point { starting, ready, going, stopped, complete, releasing, released, finished };

    Status start_criu();
    void schedule_criu(int scheduling) const;
    static void before_helpers(bool on);
    Status freshen();
    Status get_ready();
    Status look_again();
    Status wait_for_order();
    Status until(Point point);
    Status stop();
    Status turn();
    Status hear();
    Status say(char answer);
    Status hook_ended();
    Status hear_guards();
    Status tell_guards();
    Status release_if_complete();
    Status released();
    Status begin_stream();
    Status take_request();
    Status take_bytes(Image& image);
    Status close_image(Image& image);
    Status take_cores(Image& image);
    Status name_files(Image& image);
    Status name_pages();
    Status add_placement(DumpResult& result);
    Status deliver(SkeletonFiles* files);
    Result<DumpResult> attempt();
    void let_go();
    void forget();
    void remove_leftovers() const;
    bool criu_is_done() const { return point_ == Point::finished || criu_->ended(); }
    void refresh_limit() { deadline_ = monotonic_us() + request_.criu.limit_s * second_us; }
    bool reads_now(const Image& image, bool all) const {
        return all || image.large || !controlled_ || point_ >= Point::complete;
    }
    bool keeps() const { return writer_ == nullptr || short_stop_; }
    // Whole, until its end: these are changed.
    bool keeps(const Image& image) const {
        return keeps() || image.name == files_image || image.name.starts_with(cores_image);
    }
    Error criu_failure() const;

    const DumpRequest request_;
    std::string program_;
    std::vector<std::string> watched_;  // by the tree, as of before the stop
    bool controlled_ = false;           // this criu knows GHOST_CONTROL
    bool short_stop_ = false;           // asked for and possible
    bool smaps_ahead_ = true;           // until that has failed once
    std::string mounts_;                // of this process, as criu has found them
    int64_t looked_ = 0;                // when criu had its last look at the tree
    bool asked_ = false;                // before_stop
    GhostWriter* writer_ = nullptr;
    CriuSocket requests_;
    Fd server_, control_;
    Fd guards_;                       // criu asks there for guard pages
    std::vector<pid_t> asks_guards_;  // of these, not answered yet
    std::string told_guards_;         // not sent yet
    std::optional<StoppedTree> stopped_tree_;
    std::optional<Child> criu_;
    std::optional<ConcurrentHook> hook_;
    Point point_ = Point::starting;
    StoppedTree::Note notes_ = StoppedTree::Note::all;
    std::list<Image> images_;
    SkeletonFiles files_;
    TreePlacement here_;  // as of before the stop
    int numbers_ = 0;
    bool streams_ = false;       // begin_stream() was called
    bool nothing_came_ = false;  // in the last turn, though images wait
    int64_t deadline_ = 0;
    std::vector<char> buffer_ = std::vector<char>(piece_bytes);
    std::map<int, std::vector<PageRun>> ranges_;
    DumpResult result_;
    int64_t began_ = 0, mark_ = 0;
};

Status TreeDump::Dumper::prepare() {
    auto program = find_program(request_.criu.program);
    if (!program) return program.error();
    program_ = std::move(*program);
    watched_ = watched_paths(request_.root);
    controlled_ = knows_control(program_);
    short_stop_ = request_.short_stop && controlled_;
    if (controlled_) GHOST_TRY(start_criu());
    prepare_settings();
    return {};
}

Status TreeDump::Dumper::start_criu() {
    GHOST_TRY(requests_.listen(request_.criu.work_dir, capture_socket));
    began_ = monotonic_us();
    mounts_ = our_mounts();
    ChildRequest child;
    child.folder = request_.criu.work_dir;
    child.argv = {
        program_, "dump", "--no-default-config", "-t", std::to_string(request_.root), "-D", ".",
        "-o", criu_log, "-v1", "--stream", "--lazy-pages", "--leave-stopped", "--file-locks",
        "--manage-cgroups=ignore", "--network-lock", "skip",
        "--tcp-established",                     // only inside the tree, see check_movable()
        "--ghost-limit", "9223372036854775807",  // what they take at the target is known before
        // What is mapped must be the same: the ghost's own facts say so (format/host.hpp);
        // criu would read a build-id out of each while the tree is frozen.
        "--file-validation", "filesize"};
    for (const auto& key : request_.externals)
        if (!key.starts_with("pipe:")) child.argv.insert(child.argv.end(), {"--external", key});
    for (const auto& path : watched_)
        child.argv.insert(child.argv.end(), {"--irmap-scan-path", path});
    if (!request_.nested) child.argv.push_back("--shell-job");
    if (knows_lazy_holes(program_))
        child.environment = {"GHOST_LAZY_HOLES=1"};
    else
        GHOST_TRY(add_closed_page_client(child, server_));
    child.environment.insert(child.environment.end(), {"GHOST_OTHER_NAMES=1", "GHOST_OTHER_ENDS=1",
                                                       "GHOST_OLD_COPIES=" + shared_copies()});
    if (request_.nested) child.environment.emplace_back("GHOST_OWN_PROC=1");
    Fd its;
    if (controlled_) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
            return sys_error("make socket pair");
        control_.reset(ends[0]);
        its.reset(ends[1]);
        child.descriptors = {its.get()};
        child.environment.insert(child.environment.end(),
                                 {"GHOST_CONTROL=3", "GHOST_QUICK_MAPS=1", "GHOST_GUARDS_ASIDE=1",
                                  "GHOST_MOUNTS_AHEAD=1", "GHOST_SOCKETS_LATE=1",
                                  "GHOST_THREADS_BY_BPF=1", "GHOST_CORES_TOGETHER=1"});
    }
    Fd its_guards;
    if (controlled_ && request_.guards) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
            return sys_error("make socket pair");
        guards_.reset(ends[0]);
        its_guards.reset(ends[1]);
        child.descriptors.push_back(its_guards.get());
        child.environment.emplace_back("GHOST_GUARDS_FROM=4");
    }
    if (short_stop_) child.environment.emplace_back("GHOST_WHOLE_VMAS=1");
    if (short_stop_ && smaps_ahead_) child.environment.emplace_back("GHOST_SMAPS_AHEAD=1");
    if (request_.flags_in_stop) child.environment.emplace_back("GHOST_FLAGS_BY_BPF=1");
    as_this_user(child);
    auto started = Child::start(child);
    if (!started) return started.error();
    criu_.emplace(std::move(*started));
    if (!controlled_) schedule_criu(SCHED_RR);  // the tree is frozen already
    server_.reset();
    refresh_limit();
    return {};
}

// criu goes before everything else while the tree is frozen for it (realtime_priority.hpp), and
// only then: its preparations would take a processor from the tree.
void TreeDump::Dumper::schedule_criu(int scheduling) const {
    const sched_param param = next_to_lowest_of(scheduling);
    sched_setscheduler(criu_->pid(), scheduling, &param);  // without the privilege it is not
    for (const pid_t helper : children_of(criu_->pid()))   // it looks for guard pages
        sched_setscheduler(helper, scheduling, &param);
}

// The threads that look at memory beside criu (realtime_priority.hpp) want all processors: criu,
// and this thread, which answers it, go before those, or the skeleton would begin when they are
// through. The thread that runs the hook has been made before this, and is one of them.
void TreeDump::Dumper::before_helpers(bool on) {
    if (sched_getscheduler(0) != SCHED_RR) return;
    const sched_param param = on ? next_to_lowest_of(SCHED_RR) : lowest_of(SCHED_RR);
    sched_setparam(0, &param);
}

// One wait and whatever it brought. While the tree is frozen, criu's small images wait in their
// pipes: it writes them in pieces of some bytes, and to be woken for each takes longer than to
// write it. Should one be larger than its pipe, it is taken when nothing else has come for a
// millisecond.
Status TreeDump::Dumper::turn() {
    Watch watch;
    // Every thread has an image, and each of them is looked at in every turn.
    const bool all = std::exchange(nothing_came_, false) || images_.size() >= most_waiting;
    bool waiting = false;
    for (auto& image : images_) {
        const bool now = reads_now(image, all);
        waiting |= !now;
        watch.add(now ? image.pipe.get() : -1, POLLIN,
                  [this, &image] { return take_bytes(image); });
    }
    watch.add(requests_.fd(), POLLIN, [this] { return take_request(); });
    watch.add(control_.get(), POLLIN, [this] { return hear(); });
    watch.add(guards_.get(), POLLIN, [this] { return hear_guards(); });
    watch.add(told_guards_.empty() ? -1 : guards_.get(), POLLOUT, [this] { return tell_guards(); });
    if (hook_ && hook_->started() && !hook_->ended())
        watch.add(hook_->fd(), POLLIN, [this] { return hook_ended(); });
    watch.add(criu_->ended() ? -1 : criu_->fd(), POLLIN, [this]() -> Status {
        criu_->wait(0);
        return {};
    });
    // A hook may take its time.
    const bool waits = hook_ && hook_->started() && !hook_->ended();
    if (waits) refresh_limit();
    const int64_t left = deadline_ - monotonic_us();
    if (left <= 0) return make_error(Code::timeout, "freeze", {}, "criu does not get on");
    auto came = watch.wait("wait for criu", waiting ? 1 : static_cast<int>(left / 1000 + 1));
    if (!came) return came.error();
    nothing_came_ = waiting && !*came;
    images_.remove_if([](const Image& image) { return !image.pipe; });
    return {};
}

Status TreeDump::Dumper::say(char answer) {
    if (send(control_.get(), &answer, 1, MSG_NOSIGNAL) != 1) return sys_error("talk to criu");
    return {};
}

// What criu says at its points.
Status TreeDump::Dumper::hear() {
    char word = 0;
    const auto got = recv(control_.get(), &word, 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got <= 0) {
        control_.reset();
        return {};
    }
    refresh_limit();
    if (request_.gets_on) request_.gets_on();
    const int64_t now = monotonic_us();
    switch (word) {
        case 'B':
            notes_ = StoppedTree::Note::touched;
            return {};
        case 'R':
            point_ = Point::ready;
            looked_ = now;
            return {};
        case 'S':
            point_ = Point::stopped;
            result_.times.seize = now - std::exchange(mark_, now);
            return {};
        case 'E':
            point_ = Point::complete;
            (void)fault::pass(fault::Point::criu_dumped, fault::Process{criu_->pid()},
                              [this] { ::shutdown(control_.get(), SHUT_RDWR); });
            result_.times.skeleton = now - std::exchange(mark_, now);
            return release_if_complete();
        case 'D':
            point_ = Point::released;
            result_.times.release = now - std::exchange(mark_, now);
            return released();
        case 'K':
            point_ = Point::finished;
            return {};
        default:
            return make_error(Code::internal, "talk to criu", {}, "unknown word");
    }
}

Status TreeDump::Dumper::hook_ended() {
    GHOST_TRY(hook_->take());
    GHOST_TRY(tell_guards());
    return release_if_complete();
}

// criu names the processes whose guard pages it wants to know when all are frozen.
Status TreeDump::Dumper::hear_guards() {
    pid_t pid = 0;
    const auto got = recv(guards_.get(), &pid, sizeof pid, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got != sizeof pid) {
        guards_.reset();
        told_guards_.clear();
        return {};
    }
    asks_guards_.push_back(pid);
    return hook_ && hook_->ended() ? tell_guards() : Status();
}

// For each process its ranges, {start, end}, and two zeros; see packaging/criu, ghost-guards.c.
// Never waits: criu may want to get rid of an image first.
Status TreeDump::Dumper::tell_guards() {
    for (const pid_t pid : std::exchange(asks_guards_, {})) {
        auto runs = request_.guards(pid);
        if (!runs) return runs.error();
        runs->push_back({0, 0});
        for (const auto& run : *runs) {
            const std::array<uint64_t, 2> range = {run.start, run.end()};
            told_guards_.append(reinterpret_cast<const char*>(range.data()), sizeof range);
        }
    }
    if (told_guards_.empty() || !guards_) return {};
    const auto sent =
        send(guards_.get(), told_guards_.data(), told_guards_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
        // criu has given up, and its end will say why.
        guards_.reset();
        told_guards_.clear();
        return {};
    }
    if (sent < 0) return sys_error("tell criu guard pages");
    told_guards_.erase(0, static_cast<size_t>(sent));
    return {};
}

Status TreeDump::Dumper::release_if_complete() {
    if (point_ != Point::complete || !hook_->ended()) return {};
    if (request_.before_release) GHOST_TRY(request_.before_release());
    GHOST_TRY(stopped_tree_->program_lives());
    const int64_t now = monotonic_us();
    result_.times.hooks = now - std::exchange(mark_, now);
    point_ = Point::releasing;
    refresh_limit();
    return say('r');
}

Status TreeDump::Dumper::released() {
    schedule_criu(SCHED_OTHER);
    if (!request_.leave_running) {
        unbind_tree(stopped_tree_->placements());
        return {};
    }
    // criu traces nobody any more.
    auto resumed = resume_tasks(request_.root, stopped_tree_->tasks());
    const int64_t now = monotonic_us();
    result_.times.resume = now - std::exchange(mark_, now);
    return resumed;
}

Status TreeDump::Dumper::begin_stream() {
    if (writer_ == nullptr || std::exchange(streams_, true) || !request_.before_skeleton) return {};
    auto files = request_.before_skeleton();
    if (!files) return files.error();
    for (const auto& [name, content] : *files)
        GHOST_TRY(writer_->skeleton_file(numbers_++, name, content));
    refresh_limit();
    return {};
}

Status TreeDump::Dumper::take_request() {
    const auto said = requests_.take();
    if (!said) return said.error();
    if (!*said) return {};
    auto name = read_image_request(requests_.connection());
    if (!name) return name.error();
    if (name->empty()) return requests_.hang_up(), Status();
    auto pipe = receive_descriptor(requests_.connection());
    if (!pipe) return pipe.error();
    fcntl(pipe->get(), F_SETFL, O_NONBLOCK);
    if (!name->starts_with(core_image))  // small, and there is one for each thread
        fcntl(pipe->get(), F_SETPIPE_SZ, static_cast<int>(piece_bytes));
    if (!keeps()) GHOST_TRY(begin_stream());
    Image image;
    image.pipe = std::move(*pipe);
    image.owner = pagemap_owner(*name);
    image.large = name->starts_with(pages_image) || name->starts_with(cores_image);
    image.name = std::move(*name);
    if (!keeps(image)) {
        image.id = numbers_++;
        GHOST_TRY(writer_->skeleton_open(image.id, image.name));
    }
    images_.push_back(std::move(image));
    refresh_limit();
    if (request_.gets_on) request_.gets_on();
    return {};
}

Status TreeDump::Dumper::take_bytes(Image& image) {
    const auto got = read(image.pipe.get(), buffer_.data(), buffer_.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got < 0) return sys_error("read skeleton from criu");
    if (got == 0) return close_image(image);
    const auto size = static_cast<size_t>(got);
    image.large |= size >= piece_bytes / 4;
    if (!keeps(image))
        GHOST_TRY(writer_->skeleton_data(image.id, image.size, buffer_.data(), size));
    if (image.owner != 0 || image.name == locks_image || keeps(image))
        image.content.append(buffer_.data(), size);
    image.size += size;
    result_.skeleton_bytes += size;
    refresh_limit();
    return {};
}

Status TreeDump::Dumper::close_image(Image& image) {
    image.pipe.reset();
    if (image.name.starts_with(cores_image)) return take_cores(image);
    if (image.name == files_image) GHOST_TRY(name_files(image));
    if (!keeps(image)) GHOST_TRY(writer_->skeleton_close(image.id, image.size));
    if (image.name == locks_image) {
        auto locks = locks_in(image.content);
        if (!locks) return locks.error();
        result_.locks = std::move(*locks);
    }
    if (image.owner != 0) {
        auto ranges = lazy_ranges(image.content);
        if (!ranges) return ranges.error();
        if (!ranges->empty()) ranges_[image.owner] = std::move(*ranges);
    }
    if (keeps()) files_.emplace_back(std::move(image.name), std::move(image.content));
    return {};
}

// criu sends the images of threads in one stream; as files each has its own.
Status TreeDump::Dumper::take_cores(Image& image) {
    auto cores = cores_in(image.content);
    if (!cores) return cores.error();
    for (auto& [name, content] : *cores) {
        if (keeps())
            files_.emplace_back(std::move(name), std::move(content));
        else
            GHOST_TRY(writer_->skeleton_file(numbers_++, name, content));
    }
    return {};
}

// What the frozen tree has open is known only now; what of it could not be made again must not be
// taken for a ghost.
Status TreeDump::Dumper::name_files(Image& image) {
    const auto& tasks = stopped_tree_->tasks();
    auto renamed =
        rename_files(std::move(image.content), [&](const std::string& path) -> Result<std::string> {
            if (const auto why = why_not_below_proc(tasks, path))
                return because(Code::refused, why.of(path));
            auto name = request_.nested ? inner_path(tasks, path) : path;
            if (name != path && !knows_other_names(program_))
                return because(Code::refused, Refusal(Reason::old_criu).of(path));
            return name;
        });
    if (!renamed) return renamed.error();
    auto closed = close_outer_ends(std::move(*renamed), LeftBehind(request_.externals));
    if (!closed) return closed.error();
    image.content = std::move(*closed);
    if (keeps()) return {};
    return writer_->skeleton_file(numbers_++, image.name, image.content);
}

Error TreeDump::Dumper::criu_failure() const {
    const auto& folder = request_.criu.work_dir;
    const auto words = last_log_error(folder);
    auto out = criu_gave_up("freeze", criu_->status(), folder);
    if (point_ >= Point::released && words.find(changed_flags) != std::string::npos)
        out.code = Code::busy;
    return out;
}

// After a failure: criu gives up by itself when its pipes break and then leaves the tasks as they
// were, which is better than killing it. What a killed one leaves is put right.
void TreeDump::Dumper::let_go() {
    images_.clear();
    requests_.close();
    control_.reset();
    guards_.reset();
    if (criu_ && !criu_->wait(monotonic_us() + second_us)) criu_->kill();
    if (!stopped_tree_) return;  // nothing was stopped
    if (auto free = wait_untraced(request_.root, second_us); !free.ok())
        log::warning("after a failed freeze: {}", free.error().message());
    if (point_ < Point::released)
        if (auto right = stopped_tree_->repair(); !right.ok())
            log::warning("after a failed freeze: {}", right.error().message());
    if (auto resumed = resume_tree(request_.root); !resumed.ok())
        log::warning("after a failed freeze: {}", resumed.error().message());
}

TreeDump::Dumper::~Dumper() {
    if (!criu_ || criu_->ended()) return;
    hook_.reset();
    if (point_ == Point::finished) {  // it waits to be allowed to end
        control_.reset();
        if (!criu_->wait(monotonic_us() + second_us)) criu_->kill();
        remove_leftovers();
        return;
    }
    let_go();
    unlink((request_.criu.work_dir + "/" + capture_socket).c_str());
}

Status TreeDump::Dumper::until(Point point) {
    while (point_ != point) {
        if (criu_->ended() && !control_) return criu_failure();
        GHOST_TRY(turn());
    }
    return {};
}

// Where a criu that has waited for long has ended, or mounts have changed since, another one is
// started.
Status TreeDump::Dumper::freshen() {
    refresh_limit();
    if (!controlled_ || monotonic_us() - began_ < fresh_us) return {};
    began_ = monotonic_us();
    if (!criu_->wait(0) && our_mounts() == mounts_) return {};
    let_go();
    forget();
    watched_ = watched_paths(request_.root);
    return start_criu();
}

// What can be done before the tree is frozen.
Status TreeDump::Dumper::get_ready() {
    GHOST_TRY(freshen());
    hook_.emplace(request_.on_stopped);
    here_ = placement_here();
    here_.settings = settings_of(request_.root);
    if (!controlled_) return {};
    GHOST_TRY(until(Point::ready));
    return look_again();
}

// What criu knows may be old by now; a second look costs little.
Status TreeDump::Dumper::look_again() {
    if (!controlled_ || !short_stop_) return {};
    refresh_limit();
    point_ = Point::starting;
    GHOST_TRY(say(monotonic_us() - looked_ > fresh_us ? 'n' : 'p'));
    return until(Point::ready);
}

Status TreeDump::Dumper::wait_for_order() {
    if (!request_.before_stop || std::exchange(asked_, true)) return {};
    const int64_t begin = monotonic_us();
    GHOST_TRY(request_.before_stop());
    refresh_limit();
    return monotonic_us() - begin > fresh_us ? look_again() : Status();
}

Status TreeDump::Dumper::stop() {
    if (controlled_) schedule_criu(SCHED_RR);
    before_helpers(true);
    mark_ = monotonic_us();
    result_.times.ahead = controlled_ ? mark_ - began_ : 0;
    auto stopped_tree = StoppedTree::stop(request_.root, second_us, notes_);
    if (!stopped_tree) {
        if (auto resumed = resume_tree(request_.root); !resumed.ok())
            log::warning("after a failed freeze: {}", resumed.error().message());
        return stopped_tree.error();
    }
    stopped_tree_.emplace(std::move(*stopped_tree));
    if (controlled_)
        if (auto bound =
                bind_tree(stopped_tree_->tasks(), stopped_tree_->placements(), criu_->pid());
            !bound.ok())
            log::debug("freeze: {}", bound.error().message());
    const int64_t now = monotonic_us();
    result_.times.stop = now - std::exchange(mark_, now);
    point_ = Point::going;
    if (controlled_)
        (void)fault::pass(fault::Point::criu_dumps, fault::Process{criu_->pid()},
                          [this] { ::shutdown(control_.get(), SHUT_RDWR); });
    GHOST_TRY(controlled_ ? say('g') : start_criu());
    hook_->go();
    add_timers(stopped_tree_->tasks(), here_.settings);  // beside criu
    return {};
}

// Whose pages the skeleton leaves to us, as numbered here.
Status TreeDump::Dumper::name_pages() {
    const auto& tasks = stopped_tree_->tasks();
    for (auto& [inner, ranges] : ranges_) {
        const auto task = std::find_if(tasks.begin(), tasks.end(),
                                       [&](const Task& t) { return t.inner == inner; });
        if (task == tasks.end())
            return make_error(Code::internal, "find process of skeleton", std::to_string(inner));
        result_.pages.push_back({inner, task->pid, std::move(ranges)});
    }
    // The init is restored last: CRIU makes its memory ready only after that of its descendants.
    std::reverse(result_.pages.begin(), result_.pages.end());
    return {};
}

Result<DumpResult> TreeDump::Dumper::attempt() {
    Status status = get_ready();
    if (status.ok()) status = wait_for_order();
    const int64_t begin = monotonic_us();
    if (status.ok()) status = stop();
    while (status.ok() && !(criu_is_done() && images_.empty() && requests_.connection() < 0)) {
        // criu that has ended without having connected will not come any more.
        if (criu_->ended() && !requests_.has_connected()) break;
        status = turn();
        if (result_.times.frozen == 0 && point_ >= Point::released)
            result_.times.frozen = monotonic_us() - begin;
    }
    before_helpers(false);
    // Its last word may have come with its end.
    if (status.ok() && control_ && point_ != Point::finished) status = hear();
    unlink((request_.criu.work_dir + "/" + capture_socket).c_str());
    if (status.ok() && point_ != Point::finished && !criu_->succeeded()) status = criu_failure();
    // A criu that does not take part waits for nobody.
    if (status.ok() && !hook_->ended()) status = hook_->take();
    if (status.ok() && !controlled_ && request_.before_release) status = request_.before_release();
    if (status.ok() && !controlled_) status = stopped_tree_->program_lives();
    if (status.ok()) status = name_pages();
    if (status.ok() && !controlled_ && request_.leave_running) status = resume_tree(request_.root);
    if (result_.times.frozen == 0) result_.times.frozen = monotonic_us() - begin;
    if (status.ok()) {
        if (criu_->ended()) remove_leftovers();
        return std::move(result_);
    }
    hook_.reset();
    let_go();
    return status.error();
}

void TreeDump::Dumper::remove_leftovers() const {
    for (const auto* name : {criu_log, "stats-dump"})
        unlink((request_.criu.work_dir + "/" + name).c_str());
}

// Before another attempt.
void TreeDump::Dumper::forget() {
    stopped_tree_.reset();
    criu_.reset();
    hook_.reset();
    control_.reset();
    guards_.reset();
    asks_guards_.clear();
    told_guards_.clear();
    point_ = Point::starting;
    notes_ = StoppedTree::Note::all;
    files_.clear();
    ranges_.clear();
    result_ = {};
}

// How its threads are scheduled goes with the skeleton (placement.hpp).
Status TreeDump::Dumper::add_placement(DumpResult& result) {
    here_.threads = stopped_tree_->placements();
    auto text = encode(here_);
    result.skeleton_bytes += text.size();
    if (keeps()) {
        files_.emplace_back(placement_file, std::move(text));
        result.files = static_cast<int>(files_.size());
        return {};
    }
    auto written = writer_->skeleton_file(numbers_++, placement_file, text);
    result.files = numbers_;
    return written;
}

Status TreeDump::Dumper::deliver(SkeletonFiles* files) {
    if (files != nullptr) *files = std::move(files_);
    if (writer_ == nullptr || !short_stop_) return {};
    GHOST_TRY(begin_stream());
    for (const auto& [name, content] : files_)
        GHOST_TRY(writer_->skeleton_file(numbers_++, name, content));
    return {};
}

Result<DumpResult> TreeDump::Dumper::run(GhostWriter* writer, SkeletonFiles* files) {
    writer_ = writer;
    auto result = attempt();
    if (!result && result.error().code == Code::busy && short_stop_) {
        log::info("freeze: mappings changed meanwhile, once more: {}", result.error().message());
        const bool ahead_only = std::exchange(smaps_ahead_, false);
        forget();
        if (ahead_only) {
            if (auto started = start_criu(); !started.ok()) return started.error();
            result = attempt();
        }
    }
    if (!result) return result;
    auto delivered = add_placement(*result);
    if (delivered.ok()) delivered = deliver(files);
    if (writer_ != nullptr) result->files = numbers_;
    if (!delivered.ok()) {
        if (!request_.leave_running)
            if (auto resumed = resume_tree(request_.root); !resumed.ok())
                log::warning("after a failed freeze: {}", resumed.error().message());
        return delivered.error();
    }
    return result;
}

bool knows_short_stop(const CriuSettings& settings) {
    const auto program = find_program(settings.program);
    return program.ok() && knows_control(*program);
}

const StoppedTree& TreeDump::stopped_tree() const {
    return dumper_->stopped_tree();
}

TreeDump::TreeDump(std::unique_ptr<Dumper> dumper) : dumper_(std::move(dumper)) {}
TreeDump::TreeDump(TreeDump&&) noexcept = default;
TreeDump& TreeDump::operator=(TreeDump&&) noexcept = default;
TreeDump::~TreeDump() = default;

Result<TreeDump> TreeDump::prepare(DumpRequest request) {
    auto dumper = std::make_unique<Dumper>(std::move(request));
    GHOST_TRY(dumper->prepare());
    return TreeDump(std::move(dumper));
}

Result<DumpResult> TreeDump::run(GhostWriter& writer) {
    return dumper_->run(&writer, nullptr);
}

Result<DumpResult> TreeDump::run(SkeletonFiles& files) {
    return dumper_->run(nullptr, &files);
}

}  // namespace ghost::core
