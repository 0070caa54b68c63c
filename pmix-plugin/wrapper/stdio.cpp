// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/stdio.hpp"

#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>

#include "base/log.hpp"

namespace ghost::plugin {
namespace {

constexpr const char* stream_name[3] = {"stdin", "stdout", "stderr"};

constexpr StandardEnd RankStdio::*end_of[3] = {&RankStdio::input, &RankStdio::output,
                                               &RankStdio::error};

bool is_null_device(const struct stat& st) {
    return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

StdStream look(int fd) {
    struct stat st {};
    if (fstat(fd, &st) != 0 || is_null_device(st)) return StdStream::direct;
    return fd != 0 && isatty(fd) == 1 ? StdStream::tty : StdStream::pipe;
}

bool same_file(int a, int b) {
    struct stat sa {
    }, sb{};
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

// As CRIU names them in --external and --inherit-fd.
std::string criu_key(int fd, StdStream kind) {
    struct stat st {};
    if (fstat(fd, &st) != 0) return {};
    if (kind == StdStream::tty) return fmt::format("tty[{:x}:{:x}]", st.st_rdev, st.st_dev);
    return fmt::format("pipe:[{}]", st.st_ino);
}

StdStream look_inner(int fd) {
    struct stat st {};
    if (fstat(fd, &st) != 0 || is_null_device(st)) return StdStream::direct;
    return S_ISCHR(st.st_mode) ? StdStream::tty : StdStream::pipe;
}

// The rank's side of a pty, from the master (ioctl_tty(2)).
std::string slave_key(int master) {
    Fd slave(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    return slave.valid() ? criu_key(slave.get(), StdStream::tty) : std::string();
}

// Another end of a pipe (proc(5), fd/).
Fd end_of_pipe(const std::string& path, int access) {
    return Fd(::open(path.c_str(), access | O_NONBLOCK | O_CLOEXEC));
}
std::string path_of(const Fd& fd) {
    return fmt::format("/proc/self/fd/{}", fd.get());
}

// What comes from the runtime from now on is nothing.
void end_runtime_input() {
    Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (null.valid()) dup2(null.get(), 0);
}

// Terminal settings as plain bytes; both ends are of one build.
template <typename T>
schema::Bytes bytes_of(const T& value) {
    return {{reinterpret_cast<const char*>(&value), sizeof value}};
}
template <typename T>
bool get(const schema::Bytes& from, T& value) {
    if (from.data.size() != sizeof value) return false;
    from.data.copy(reinterpret_cast<char*>(&value), sizeof value);
    return true;
}

StandardEnd tty_settings(int fd) {
    StandardEnd out{.kind = StdStream::tty};
    termios modes{};
    winsize size{};
    if (tcgetattr(fd, &modes) == 0) out.modes = bytes_of(modes);
    if (ioctl(fd, TIOCGWINSZ, &size) == 0) out.size = bytes_of(size);
    return out;
}

}  // namespace

Result<Stdio> Stdio::for_program() {
    Stdio out;
    for (int i = 0; i < 3; ++i) {
        StdStream kind = look(i);
        if (i == 2 && kind != StdStream::direct && same_file(1, 2)) kind = StdStream::merged;
        GHOST_TRY(kind == StdStream::tty && i == 1 ? out.make_tty(tty_settings(1))
                                                   : out.make(i, kind));
    }
    out.input_open_ = out.kind_[0] == StdStream::pipe;
    return out;
}

Result<Stdio> Stdio::for_ghost(const RankStdio& ghost) {
    Stdio out;
    for (int i = 0; i < 3; ++i) {
        const StandardEnd& one = ghost.*end_of[i];
        GHOST_TRY(one.kind == StdStream::tty ? out.make_tty(one) : out.make(i, one.kind));
    }
    out.take_state(ghost);
    return out;
}

void Stdio::take_state(const RankStdio& ghost) {
    for (int i : {0, 1}) {
        const StandardEnd& end = ghost.*end_of[i + 1];
        begin_[i] = OutputMeter(end.place);
        begin_[i].skip_to(end.skips_to);
    }
    input_open_ = kind_[0] == StdStream::pipe && ghost.is_open;
    carried_ = ghost.unread.data;
    input_before_ = ghost.taken;
}

void Stdio::begin_counts() {
    input_before_ = 0;
    for (OutputMeter& meter : begin_) meter = OutputMeter();
}

bool Stdio::skip_output(const ShownOutput& shown) {
    begin_[0].skip_to(shown.output);
    begin_[1].skip_to(shown.error);
    return shown.known && begin_[0].place() && begin_[1].place();
}

Stdio Stdio::adopt(std::vector<Fd> inner, pid_t program, int64_t taken) {
    Stdio out;
    for (size_t i = 0; i < 3; ++i) {
        if (i >= inner.size() || look_inner(inner[i].get()) == StdStream::direct) continue;
        out.kind_[i] = look_inner(inner[i].get());
        out.ours_[i] = std::move(inner[i]);
        out.key_[i] = out.kind_[i] == StdStream::tty
                          ? slave_key(out.ours_[i].get())
                          : criu_key(out.ours_[i].get(), StdStream::pipe);
    }
    if (out.kind_[2] == StdStream::direct && out.kind_[1] != StdStream::direct && same_file(1, 2)) {
        out.kind_[2] = StdStream::merged;
    }
    out.input_open_ = out.ours_[0].valid();
    out.input_before_ = out.input_told_ = taken;
    for (OutputMeter& meter : out.begin_) meter = OutputMeter(std::nullopt);
    if (!out.input_open_) {
        // An input that ended before leaves its trace only in the rank.
        std::error_code ignored;
        const auto path = fmt::format("/proc/{}/fd/0", program);
        auto link = std::filesystem::read_symlink(path, ignored);
        if (link.string().starts_with("pipe:")) {
            out.rest_ = end_of_pipe(path, O_RDONLY);
            out.kind_[0] = StdStream::pipe;
            out.key_[0] = link.string();
            out.input_closed_told_ = true;
        }
    }
    return out;
}

Status Stdio::make(int i, StdStream kind) {
    kind_[i] = kind;
    if (kind == StdStream::direct) return {};
    if (kind == StdStream::merged) {
        rank_[i].reset(fcntl(rank_[1].get(), F_DUPFD_CLOEXEC, 3));
        if (!rank_[i].valid()) return sys_error("duplicate", stream_name[i]);
        return {};
    }
    if (kind == StdStream::tty) return make_tty(tty_settings(i));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error("make a pipe for", stream_name[i]);
    ours_[i].reset(ends[i == 0 ? 1 : 0]);
    rank_[i].reset(ends[i == 0 ? 0 : 1]);
    key_[i] = criu_key(ours_[i].get(), kind);
    return {};
}

Status Stdio::make_tty(const StandardEnd& like) {
    termios modes{};
    winsize size{};
    bool have_modes = get(like.modes, modes), have_size = get(like.size, size);
    int master = -1, slave = -1;
    if (::openpty(&master, &slave, nullptr, have_modes ? &modes : nullptr,
                  have_size ? &size : nullptr) != 0) {
        return sys_error("make a pseudo terminal");
    }
    kind_[1] = StdStream::tty;
    ours_[1].reset(master);
    rank_[1].reset(slave);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    key_[1] = criu_key(slave, StdStream::tty);
    return {};
}

void Stdio::close_rank_ends() {
    for (Fd& fd : rank_) fd.reset();
}

std::vector<std::string> Stdio::keys() const {
    std::vector<std::string> out;
    for (const std::string& key : key_) {
        if (!key.empty()) out.push_back(key);
    }
    return out;
}

std::vector<std::pair<int, std::string>> Stdio::heirs(const RankStdio& ghost) const {
    std::vector<std::pair<int, std::string>> out;
    for (int i = 0; i < 3; ++i) {
        const std::string& key = (ghost.*end_of[i]).key;
        if (!key.empty() && rank_[i].valid()) out.emplace_back(rank_[i].get(), key);
    }
    return out;
}

std::vector<int> Stdio::spare() {
    if (!null_.valid()) null_.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
    std::vector<int> out = {0, 1, 2};
    for (const Fd& fd : ours_) out.push_back(fd.valid() ? fd.get() : null_.get());
    return out;
}

RankStdio Stdio::carry() {
    RankStdio out;
    out.is_open = input_open_ && !last_;
    out.taken = input_taken();
    for (int i = 0; i < 3; ++i) {
        StandardEnd& one = out.*end_of[i];
        if (kind_[i] == StdStream::tty) one = tty_settings(ours_[i].get());
        one.kind = kind_[i];
        one.key = key_[i];
    }
    if (!input_open_) {
        carry_rest();
        out.unread.data = carried_;
        return out;
    }
    in_.pause(true);
    // In the order in which the rank would have read it: the inner pipe, the pump's buffer, the
    // runtime's pipe.
    const Fd reader = end_of_pipe(path_of(ours_[0]), O_RDONLY);
    if (reader.valid()) carried_ = read_available(reader.get());
    carried_ += in_.take_pending();
    const std::string fresh = read_available(0);
    if (input_before_ >= 0) input_before_ += static_cast<int64_t>(fresh.size());
    carried_ += fresh;
    out.unread.data = carried_;
    out.taken = input_taken();
    return out;
}

// Of input that has ended: what is in the inner pipe. It fits into it again.
void Stdio::carry_rest() {
    if (!rest_.valid()) return;
    held_ = end_of_pipe(path_of(rest_), O_WRONLY);
    if (held_.valid()) carried_ = read_available(rest_.get());
}

void Stdio::note_output(RankStdio& carried) {
    const std::lock_guard lock(*outputs_);
    for (auto [pump, end] : {std::pair(&out_, &carried.output), {&err_, &carried.error}}) {
        pump->draw_in();
        if (!pump->meter()) continue;
        end->place = pump->meter()->place();
        end->skips_to = pump->meter()->skips_to();
    }
}

OutputGiven Stdio::output_given() const {
    const std::lock_guard lock(*outputs_);
    const auto given = [](const Pump& pump) {
        return pump.meter() ? pump.meter()->given() : OutputPlace();
    };
    return {given(out_), given(err_)};
}

bool Stdio::drained() const {
    const std::lock_guard lock(*outputs_);
    return out_.drained() && err_.drained();
}

bool Stdio::output_blocked() const {
    const std::lock_guard lock(*outputs_);
    return out_.blocked() || err_.blocked();
}

int64_t Stdio::input_taken() const {
    return input_before_ < 0 ? -1 : input_before_ + static_cast<int64_t>(in_.taken());
}

bool Stdio::input_was_taken() {
    const int64_t now = input_taken();
    return std::exchange(input_told_, now) != now;
}

void Stdio::uncarry() {
    if (!input_open_) {
        const std::string rest = std::exchange(carried_, {});
        if (!rest.empty() &&
            ::write(held_.get(), rest.data(), rest.size()) != static_cast<ssize_t>(rest.size()))
            log::error("input of the rank is lost: its pipe has become smaller");
        held_.reset();
        return;
    }
    in_.put_back(std::exchange(carried_, {}));
    in_.pause(false);
}

void Stdio::start() {
    for (int i = 0; i < 3; ++i) {
        if (ours_[i].valid()) {
            set_nonblocking(ours_[i].get());
            set_nonblocking(i);
        }
    }
    if (kind_[2] == StdStream::merged) set_nonblocking(1);
    last_ = !input_open_ && ours_[0].valid() && !carried_.empty();
    if (last_) end_runtime_input();
    input_open_ = input_open_ || last_;
    if (input_open_) {
        in_ = Pump(0, ours_[0].get());
        in_.put_back(std::exchange(carried_, {}));
    } else {
        ours_[0].reset();
    }
    out_ = Pump(ours_[1].get(), 1, begin_[0]);
    err_ = Pump(ours_[2].get(), 2, begin_[1]);
}

std::array<Interest, 3> Stdio::interests() const {
    const std::lock_guard lock(*outputs_);
    return {in_.interest(), out_.interest(), err_.interest()};
}

void Stdio::run() {
    {
        const std::lock_guard lock(*outputs_);
        out_.run();
        err_.run();
    }
    if (!input_open_) return;
    in_.run();
    if (in_.finished() || in_.broken()) close_input();
}

// The end of input reaches the rank only when nobody holds the pipe open, the node agent's spare
// included; and the runtime learns the same way that the rank takes no more.
void Stdio::close_input() {
    input_open_ = last_ = false;
    input_before_ = input_taken();
    in_ = Pump();
    rest_ = end_of_pipe(path_of(ours_[0]), O_RDONLY);
    ours_[0].reset();
    end_runtime_input();
}

bool Stdio::input_just_closed() {
    if (kind_[0] != StdStream::pipe || input_open_ || input_closed_told_) return false;
    input_closed_told_ = true;
    return true;
}

}  // namespace ghost::plugin
