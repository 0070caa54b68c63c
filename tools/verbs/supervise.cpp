// SPDX-License-Identifier: BSD-3-Clause
// `ghost supervise`: a job that outlives its mpirun. It is started, and whenever it is lost it is
// started again from its newest whole snapshot, on the nodes that are left.
//
// What became of it is in its event log. A file beside that says what is supervised, for whoever is
// started with the same command after this process was lost with its node.
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/addresses.hpp"
#include "base/child.hpp"
#include "base/clock.hpp"
#include "base/exit_status.hpp"
#include "base/file.hpp"
#include "base/json_text.hpp"
#include "base/loop.hpp"
#include "base/own_file.hpp"
#include "base/paths.hpp"
#include "base/schema_json.hpp"
#include "ghost-core/criu/signals.hpp"
#include "pmix-plugin/events/files.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "tools/remote.hpp"
#include "tools/restart_line.hpp"
#include "tools/supervised.hpp"
#include "tools/verbs/verb.hpp"

namespace ghost::tools {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

constexpr int64_t same_point_us = 60'000'000;
constexpr int64_t reach_limit_us = 10'000'000;  // a node that does not answer by then is not used

struct SuperviseArgs {
    int attempts = 10;
    bool anew = false, json = false;
    Words words;
};

std::optional<std::string> parameter(const Words& words, const std::string& name) {
    auto given = parameter_in(words, name);
    return given ? given : environment_variable("OMPI_MCA_" + name);
}

// Its log has the number of the process that is started.
bool is_mpirun(const std::string& word) {
    const std::string name = fs::path(word).filename();
    return name == "mpirun" || name == "mpiexec" || name == "orterun";
}

// The file about this supervision, locked as long as it lives.
class Record {
  public:
    static Result<Record> open(const std::string& folder, const SuperviseArgs& args) {
        Record out;
        std::error_code failed;
        fs::create_directories(fs::path(folder).parent_path(), failed);
        GHOST_TRY(make_own_folder(folder));
        out.path_ = folder + "/" + supervision_file(args.words, fs::current_path().string());
        auto file = open_own_file(out.path_, O_RDWR | O_CREAT);
        if (!file) return file.error();
        if (::flock(file->get(), LOCK_EX | LOCK_NB) != 0)
            return make_error(Code::busy, "supervise", args.words.front(),
                              "this command is supervised already, from this folder");
        out.lock_ = std::move(*file);
        return out;
    }
    // Of the supervisor before this one; nothing: the job begins.
    std::optional<Supervision> read() const {
        const auto text = read_file(path_);
        const auto json = text ? parse_json(*text) : Json();
        if (!json.is_object()) return std::nullopt;
        auto found = schema::from_json<Supervision>(json);
        return found ? std::optional(std::move(*found)) : std::nullopt;
    }
    // In place: the lock is on this file.
    Status write(const Supervision& now) const {
        const std::string text = schema::to_json(now).dump() + "\n";
        if (::ftruncate(lock_.get(), 0) != 0 || ::lseek(lock_.get(), 0, SEEK_SET) != 0)
            return sys_error("write", path_);
        return write_all(lock_.get(), text, path_);
    }
    void remove() const { ::unlink(path_.c_str()); }

  private:
    std::string path_;
    Fd lock_;
};

// mpirun's end, and whether somebody has asked for it.
struct Run {
    int status = 0;
    bool asked = false;
    int64_t lasted_us = 0;
};

class Supervisor {
  public:
    Supervisor(const SuperviseArgs& args, std::string folder, Record record)
        : args_(args), folder_(std::move(folder)), record_(std::move(record)) {}

    // The wait status to end with; an Error: nothing was started.
    Result<int> run();
    const Json& lives() const { return lives_; }

  private:
    Result<std::optional<int>> take_up(const Supervision& before);
    Result<Run> run_once(const Words& words);
    Result<JobLife> life_of(const Supervision& what) const;
    bool is_lost(const Result<JobLife>& life, const Run& run);
    bool may_go_on(const Run& run);
    Result<Words> go_on();
    Result<plugin::Snapshot> newest() const;
    void look_for_nodes(const plugin::Manifest& manifest);

    const SuperviseArgs& args_;
    const std::string folder_;  // of event logs
    const Record record_;
    Supervision now_;
    Words next_;
    JobLife life_;                // the last one in which ranks ran
    std::set<std::string> lost_;  // nodes
    bool taken_up_ = false;       // from another supervisor
    int losses_ = 0;
    bool in_vain_ = false;  // the last life came no further than the one before it
    Json lives_ = Json::array();
};

// Its log: of a pid that has come again, or is another node's, the one that began with it here.
Result<JobLife> Supervisor::life_of(const Supervision& what) const {
    const auto files = plugin::list_events_files(folder_);
    if (!files) return files.error();
    for (const auto& file : *files) {
        if (file.pid != what.pid || file.began < what.began) continue;
        const auto text = plugin::read_own_log(file.path);
        if (!text) return text.error();
        auto life = read_life(plugin::read_events(text->text).events);
        if (!life.host.empty() && life.host != what.host) continue;
        if (!text->running) return life;
        return make_error(Code::busy, "supervise", {},
                          fmt::format("its mpirun {} still runs: `ghost ps` shows it", what.pid));
    }
    return make_error(Code::not_found, "find the event log of mpirun", std::to_string(what.pid));
}

// What a supervisor that was lost, or ended, has left. A status: the job has ended meanwhile.
Result<std::optional<int>> Supervisor::take_up(const Supervision& before) {
    auto life = life_of(before);
    if (!life && life.error().code == Code::busy) return life.error();
    if (!life || life->job.empty()) return std::optional<int>();  // no rank had run
    if (life->ended && life->loss.empty() && !before.asked) {
        fmt::print(stderr, "ghost: job {} has ended with status {} meanwhile (--new begins anew)\n",
                   life->job, life->status);
        return std::optional(static_cast<int>(life->status) << 8);
    }
    taken_up_ = true;
    if (!life->host.empty() && !is_here(life->host)) lost_.insert(life->host);
    life_ = std::move(*life);
    if (before.asked) life_.loss = "it was ended by a signal";
    auto words = go_on();
    if (!words) return words.error();
    next_ = std::move(*words);
    return std::optional<int>();
}

Result<Run> Supervisor::run_once(const Words& words) {
    sigset_t passed;
    sigemptyset(&passed);
    for (const int s : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGURG})
        sigaddset(&passed, s);
    if (pthread_sigmask(SIG_BLOCK, &passed, nullptr) != 0) return sys_error("block signals");
    const Fd signals(::signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals) return sys_error("wait for signals");
    const int64_t begun = monotonic_us();
    now_.began = plugin::began_now();  // before it
    const bool is_restart = words.front() == "ghost";
    auto child = Child::start({.argv = words,
                               .program = is_restart ? "/proc/self/exe" : "",
                               .stdio = {inherited, inherited, inherited},
                               .closes_others = false,
                               .place = ChildRequest::Place::here,
                               .signals = ChildRequest::Signals::unblocked});
    if (!child) return child.error();
    now_.pid = child->pid();
    if (auto noted = record_.write(now_); !noted.ok())
        fmt::print(stderr, "ghost: {}\n", noted.error().message());
    Run out;
    Loop loop;
    const auto on_signal = loop.on_readable(signals.get(), [&] {
        signalfd_siginfo info{};
        while (::read(signals.get(), &info, sizeof info) == sizeof info) {
            const int s = static_cast<int>(info.ssi_signo);
            out.asked = out.asked || s == SIGINT || s == SIGTERM || s == SIGHUP || s == SIGQUIT;
            if (info.ssi_code != SI_KERNEL) ::kill(child->pid(), s);  // a terminal's it has itself
        }
    });
    const auto on_end = loop.on_readable(child->fd(), [&] { loop.stop(); });
    GHOST_TRY(loop.run());
    child->wait(Child::no_limit);
    out.status = child->status();
    out.lasted_us = monotonic_us() - begun;
    return out;
}

// Of a command that never got ranks to run nothing was lost, unless it was to start them again.
bool Supervisor::is_lost(const Result<JobLife>& life, const Run& run) {
    if (run.status == 0) return false;
    const bool ran = life && !life->job.empty();
    if (ran) life_ = *life;
    if (ran || next_.front() != "ghost") return ran && !life_.loss.empty();
    life_.saved = false;
    life_.loss = "it could not be started again";
    return true;
}

// Two that are lost within a minute of the same snapshot would be lost there for ever.
bool Supervisor::may_go_on(const Run& run) {
    const bool in_vain = !life_.saved && run.lasted_us < same_point_us;
    const bool again = std::exchange(in_vain_, in_vain) && in_vain;
    if (!again && losses_++ < args_.attempts) return true;
    fmt::print(stderr, "ghost: {}{}: it is given up{}\n", life_.loss,
               again ? ", twice within a minute of the same point"
                     : fmt::format(", and it was started again {} times", args_.attempts),
               life_.snapshot.empty() ? ""
                                      : fmt::format("; `ghost restart {}/{}` starts it again",
                                                    life_.folder, life_.snapshot));
    return false;
}

Result<plugin::Snapshot> Supervisor::newest() const {
    auto all = plugin::list_snapshots(life_.folder, life_.job);
    if (!all) return all.error();
    for (auto& one : *all)
        if (one.whole && one.away.empty() && one.manifest) return std::move(one);
    return make_error(Code::not_found, "find a whole snapshot of the job in", life_.folder,
                      "what is in the memory of nodes is gone with them (ghost_checkpoint_to)");
}

// Where hosts are given by name, those that answer.
void Supervisor::look_for_nodes(const plugin::Manifest& manifest) {
    std::map<std::string, Child> asked;
    for (const auto& node : manifest.nodes) {
        if (lost_.contains(node.name) || is_here(node.name)) continue;
        const auto words = remote_words(node.name, "true");
        auto child = words ? Child::start({.argv = *words}) : Result<Child>(words.error());
        if (child)
            asked.emplace(node.name, std::move(*child));
        else
            lost_.insert(node.name);
    }
    const int64_t limit = monotonic_us() + reach_limit_us;
    for (auto& [name, child] : asked) {
        if (child.wait(limit) && child.succeeded()) continue;
        fmt::print(stderr, "ghost: node {} cannot be reached: no ranks go there\n", name);
        lost_.insert(name);
    }
}

// The command for the next life: of a job that was never saved the first one.
Result<Words> Supervisor::go_on() {
    lost_.insert(life_.lost.begin(), life_.lost.end());
    if (life_.snapshot.empty()) {
        fmt::print(stderr, "ghost: {}: it has no snapshot, and begins again\n", life_.loss);
        return args_.words;
    }
    auto snapshot = newest();
    if (!snapshot) return snapshot.error();
    Words words{"ghost", "restart", snapshot->path};
    const bool in_batch = gives_hosts(environment_variable);
    if (!in_batch) look_for_nodes(*snapshot->manifest);
    if (!in_batch || !taken_up_) {
        const auto places = places_without(*snapshot->manifest, lost_);
        if (!places) return places.error();
        words.insert(words.end(), places->options.begin(), places->options.end());
        if (places->crowded)
            fmt::print(stderr, "ghost: there are fewer slots than ranks: they share processors\n");
    }
    fmt::print(stderr, "ghost: {}: it goes on from {}\n", life_.loss, snapshot->path);
    return words;
}

Result<int> Supervisor::run() {
    now_ = {args_.words, fs::current_path().string(), host_name(), 0, "", false};
    next_ = args_.words;
    if (const auto before = args_.anew ? std::nullopt : record_.read()) {
        auto ended = take_up(*before);
        if (!ended) return ended.error();
        if (*ended) return record_.remove(), **ended;
    }
    for (;;) {
        auto run = run_once(next_);
        if (!run) return run.error();
        if (run->asked) {
            now_.asked = true;  // whoever is started with this command goes on
            (void)record_.write(now_);
            return run->status;
        }
        const auto life = life_of(now_);
        lives_.push_back({{"pid", now_.pid},
                          {"status", exit_status_of(run->status)},
                          {"snapshot", life ? life->snapshot : ""},
                          {"loss", life ? life->loss : ""}});
        if (!is_lost(life, *run) || !may_go_on(*run)) return record_.remove(), run->status;
        auto words = go_on();
        if (!words) {
            fmt::print(stderr, "ghost: {}: {}\n", life_.loss, words.error().message());
            return run->status;
        }
        next_ = std::move(*words);
    }
}

int run_supervise(const SuperviseArgs& args) {
    if (!is_mpirun(args.words.front()))
        return report(make_error(Code::invalid, "supervise", args.words.front(),
                                 "name mpirun itself, with its options"),
                      args.json);
    if (parameter(args.words, "ghost").value_or("0") != "1")
        return report(make_error(Code::invalid, "supervise", args.words.front(),
                                 "without --mca ghost 1 it has no snapshots to go on from"),
                      args.json);
    auto folder = plugin::events_folder(parameter(args.words, "ghost_events"));
    if (!folder) return report(folder.error(), args.json);
    if (folder->empty())
        return report(make_error(Code::invalid, "supervise", args.words.front(),
                                 "its event log says what becomes of it: leave ghost_events out"),
                      args.json);
    auto record = Record::open(*folder, args);
    if (!record) return report(record.error(), args.json);
    Supervisor supervisor(args, *folder, std::move(*record));
    auto status = supervisor.run();
    if (!status) return report(status.error(), args.json);
    if (args.json) print_json({{"status", exit_status_of(*status)}, {"lives", supervisor.lives()}});
    std::fflush(nullptr);
    core::end_like(*status);
}

}  // namespace

void define_supervise(CommandLine app, int& exit_status) {
    auto args = std::make_shared<SuperviseArgs>();
    app.add_option("--attempts", args->attempts,
                   "how often it is started again before it is given up (default: 10)");
    app.add_flag("--new", args->anew,
                 "begin anew, whatever a supervisor of the same command has left");
    auto json = add_json(app);
    app.prefix_command();
    app.footer(
        "Everything after the options, or after --, is the command: mpirun --mca ghost 1 ... with "
        "snapshots (ghost_checkpoint_interval).\n"
        "A job that is lost (its mpirun or a rank was killed, a node was lost) is started again "
        "from its newest whole snapshot, on the nodes that are left. One that ends by itself has "
        "ended, whatever its status. Started again itself, by the same command in the same folder, "
        "it goes on where the job was.\n"
        "Exit status: the job's own; 1 nothing could be started; 2 wrong usage.");
    app.callback([=, &exit_status] {
        args->words = app.remaining();
        args->json = *json;
        if (args->words.empty()) {
            fmt::print(stderr, "ghost: name a command: ghost supervise -- mpirun ...\n");
            exit_status = exit_usage;
            return;
        }
        exit_status = run_supervise(*args);
    });
}

}  // namespace ghost::tools
