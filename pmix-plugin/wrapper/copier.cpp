// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/copier.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <memory>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/hash.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "base/scheduling.hpp"
#include "ghost-core/resource/network.hpp"
#include "pmix-plugin/protocol/copier.hpp"
#include "pmix-plugin/snapshots/folder.hpp"

namespace ghost::plugin {
namespace {

constexpr int silence_ms = 20'000;
constexpr int accept_ms = 20'000;
constexpr size_t piece_bytes = 256 << 10;
constexpr size_t tail_bytes = 64 << 10;
constexpr uint32_t longest_text = 64 << 20;
constexpr int64_t progress_us = 200'000;
constexpr const char* unfinished = ".copy";

// --- what two of them say ---

Status get_all(core::Resource& from, void* data, size_t size) {
    auto* at = static_cast<char*>(data);
    while (size > 0) {
        auto got = from.read(at, size);
        if (!got) return got.error();
        if (*got == 0) return because(Code::peer_lost, "the other side has ended");
        at += *got;
        size -= *got;
    }
    return {};
}

template <typename T>
Status put(core::Resource& to, const T& message) {
    const std::string text = schema::encode(message);
    const auto size = static_cast<uint32_t>(text.size());
    GHOST_TRY(to.write(&size, sizeof size));
    return to.write(text.data(), text.size());
}

template <typename T>
Result<T> get(core::Resource& from) {
    uint32_t size = 0;
    GHOST_TRY(get_all(from, &size, sizeof size));
    if (size > longest_text) return because(Code::corrupt, "the other side says too much");
    std::string text(size, '\0');
    GHOST_TRY(get_all(from, text.data(), text.size()));
    return schema::decode<T>(text);
}

class Hash {
  public:
    Hash() : state_(XXH3_createState(), &XXH3_freeState) { XXH3_64bits_reset(state_.get()); }
    void add(const void* data, size_t size) { XXH3_64bits_update(state_.get(), data, size); }
    uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

  private:
    std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

// --- files ---

struct File {
    Fd fd;
    uint64_t bytes = 0;
    std::string tail;
};

// A ghost ends with a digest of all of it: its last bytes tell it from others of its name.
Result<File> look_at(const std::string& path) {
    auto fd = open_own_file(path);
    if (!fd) return fd.error();
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0) return sys_error("look at", path);
    File out{std::move(*fd), static_cast<uint64_t>(info.st_size), {}};
    std::vector<char> last(std::min<uint64_t>(tail_bytes, out.bytes));
    const auto at = static_cast<off_t>(out.bytes - last.size());
    if (::pread(out.fd.get(), last.data(), last.size(), at) != static_cast<ssize_t>(last.size()))
        return sys_error("read", path);
    out.tail = fmt::format("{:016x}", XXH3_64bits(last.data(), last.size()));
    return out;
}

// What comes from elsewhere must not lead anywhere else.
bool names_ghost(const std::string& name) {
    const auto slash = name.find('/');
    return slash != std::string::npos && parse_snapshot_name(name.substr(0, slash)) &&
           name.compare(slash + 1, 5, "rank-") == 0 &&
           name.find('/', slash + 1) == std::string::npos && name.find("..") == std::string::npos;
}

Error no_room(const std::string& path, int sys) {
    if (sys != ENOSPC && sys != EDQUOT) return sys_error_of(sys, "make room for", path);
    return make_error(Code::refused, "keep a copy of", path,
                      "the memory for snapshots of its node is full");
}

// --- the sender ---

class Sender {
  public:
    Sender(const ControlSocket& control, const CopySend& order, std::vector<std::string> names)
        : control_(control), order_(order), names_(std::move(names)) {}
    Status run();

  private:
    Status send_file(core::Resource& to, size_t which);
    void pace();
    void tell();

    const ControlSocket& control_;
    const CopySend& order_;
    const std::vector<std::string> names_;
    std::vector<File> files_;
    uint64_t bytes_ = 0, total_ = 0;
    int64_t begun_ = 0, told_ = 0;
};

Status Sender::run() {
    CopyList list;
    for (const std::string& name : names_) {
        auto file = look_at(order_.folder + "/" + name);
        if (!file) return file.error();
        list.items.push_back({name, file->bytes, file->tail});
        files_.push_back(std::move(*file));
    }
    core::NetworkOptions options;
    options.operation_ms = silence_ms;
    auto to = core::NetworkResource::connect(order_.host, order_.port, order_.token, order_.proof,
                                             options);
    if (!to) return to.error();
    GHOST_TRY(put(**to, list));
    const auto wanted = get<CopyWanted>(**to);
    GHOST_TRY(wanted);
    if (!wanted->why.empty()) return because(Code::refused, wanted->why);
    for (const uint32_t which : wanted->which) {
        if (which >= files_.size()) return because(Code::corrupt, "it wants what is not there");
        total_ += files_[which].bytes;
    }
    begun_ = monotonic_us();
    for (const uint32_t which : wanted->which) GHOST_TRY(send_file(**to, which));
    const auto kept = get<CopyKept>(**to);
    GHOST_TRY(kept);
    if (!kept->why.empty()) return because(Code::refused, kept->why);
    return {};
}

Status Sender::send_file(core::Resource& to, size_t which) {
    std::vector<char> piece(piece_bytes);
    const File& file = files_[which];
    Hash hash;
    for (uint64_t left = file.bytes; left > 0;) {
        const ssize_t n =
            ::read(file.fd.get(), piece.data(), std::min<uint64_t>(left, piece_bytes));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return sys_error("read", names_[which]);
        if (n == 0) return make_error(Code::corrupt, "read all of", names_[which]);
        const auto size = static_cast<size_t>(n);
        hash.add(piece.data(), size);
        GHOST_TRY(to.write(piece.data(), size));
        left -= size;
        bytes_ += size;
        pace();
        tell();
    }
    const uint64_t value = hash.value();
    return to.write(&value, sizeof value);
}

void Sender::pace() {
    if (order_.rate == 0) return;
    const auto due =
        static_cast<int64_t>(static_cast<double>(bytes_) * 1e6 / static_cast<double>(order_.rate));
    for (;;) {
        const int64_t wait = begun_ + due - monotonic_us();
        if (wait <= 0) return;
        ::usleep(static_cast<useconds_t>(std::min<int64_t>(wait, progress_us)));
        tell();
    }
}

void Sender::tell() {
    const int64_t now = monotonic_us();
    if (now - told_ < progress_us) return;
    told_ = now;
    (void)control_.send_text(schema::encode(CopyProgress{bytes_, total_}));
}

// --- the receiver ---

class Receiver {
  public:
    explicit Receiver(const CopyTake& order) : order_(order) {}
    ~Receiver();
    Status run(core::NetworkListener& listener);

  private:
    struct Coming {
        CopyItem item;
        std::string path;
        Fd fd;
        bool named = false;
    };

    Status make_room(const CopyItem& item);
    static Status take(core::Resource& from, Coming& one);
    Status take_all(core::Resource& from);

    const CopyTake& order_;
    std::vector<Coming> coming_;
};

Receiver::~Receiver() {
    for (const Coming& one : coming_)
        if (!one.named) ::unlink((one.path + unfinished).c_str());
}

// All of it, before the first byte comes.
Status Receiver::make_room(const CopyItem& item) {
    const std::string path = order_.folder + "/" + item.name;
    GHOST_TRY(open_snapshot_folder(order_.folder));
    GHOST_TRY(make_own_folder(path.substr(0, path.rfind('/'))));
    auto fd = open_own_file(path + unfinished, O_WRONLY | O_CREAT | O_TRUNC);
    if (!fd) return fd.error().sys == ENOSPC ? no_room(path, ENOSPC) : fd.error();
    coming_.push_back({item, path, std::move(*fd)});
    if (item.bytes == 0) return {};
    const int sys = ::posix_fallocate(coming_.back().fd.get(), 0, static_cast<off_t>(item.bytes));
    return sys == 0 ? Status() : no_room(path, sys);
}

Status Receiver::take(core::Resource& from, Coming& one) {
    std::vector<char> piece(piece_bytes);
    Hash hash;
    for (uint64_t left = one.item.bytes; left > 0;) {
        auto got = from.read(piece.data(), std::min<uint64_t>(left, piece_bytes));
        if (!got) return got.error();
        if (*got == 0) return because(Code::peer_lost, "the other side has ended");
        hash.add(piece.data(), *got);
        for (size_t done = 0; done < *got;) {
            const ssize_t n = ::write(one.fd.get(), piece.data() + done, *got - done);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return no_room(one.path, errno);
            done += static_cast<size_t>(n);
        }
        left -= *got;
    }
    uint64_t value = 0;
    GHOST_TRY(get_all(from, &value, sizeof value));
    if (value != hash.value())
        return make_error(Code::corrupt, "copy", one.item.name, "its checksum is another");
    if (::fsync(one.fd.get()) != 0) return sys_error("sync", one.path);
    if (::rename((one.path + unfinished).c_str(), one.path.c_str()) != 0)
        return sys_error("name", one.path);
    one.named = true;
    return {};
}

Status Receiver::take_all(core::Resource& from) {
    for (Coming& one : coming_) GHOST_TRY(take(from, one));
    return {};
}

Status Receiver::run(core::NetworkListener& listener) {
    auto from = listener.accept(accept_ms);
    if (!from) return from.error();
    const auto list = get<CopyList>(**from);
    GHOST_TRY(list);
    CopyWanted wanted;
    Status fine;
    for (uint32_t i = 0; i < list->items.size() && fine; i++) {
        const CopyItem& item = list->items[i];
        if (!names_ghost(item.name)) {
            fine = make_error(Code::invalid, "copy what is no ghost of a snapshot", item.name);
            break;
        }
        const auto there = look_at(order_.folder + "/" + item.name);
        if (there && there->bytes == item.bytes && there->tail == item.tail) continue;
        wanted.which.push_back(i);
        fine = make_room(item);
    }
    if (!fine) wanted = {{}, fine.error().message()};
    GHOST_TRY(put(**from, wanted));
    GHOST_TRY(fine);
    const Status taken = take_all(**from);
    GHOST_TRY(put(**from, CopyKept{taken ? "" : taken.error().message()}));
    return taken;
}

Status send(const ControlSocket& control, const CopySend& order, std::vector<std::string> names) {
    return Sender(control, order, std::move(names)).run();
}

Status take(const ControlSocket& control, const CopyTake& order) {
    core::NetworkOptions options;
    options.operation_ms = silence_ms;
    options.interfaces = order.interfaces;
    auto listener = core::NetworkListener::listen(order.proof, options);
    if (!listener) return listener.error();
    GHOST_TRY(control.send_text(
        schema::encode(CopyListens{order.interfaces.empty() ? "" : listener->host(),
                                   static_cast<uint16_t>(listener->port()), listener->token()})));
    return Receiver(order).run(*listener);
}

}  // namespace

int copy_ghosts(ControlSocket control) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    schedule_ordinarily();
    schema::Reader reader(to_copier, "the node agent");
    std::vector<std::string> names;
    for (;;) {
        const auto message = control.receive(-1);
        if (!message) return 1;
        std::string complaint;
        const auto order = reader.read(message->text, complaint);
        if (!complaint.empty()) (void)control.send_text(complaint);
        if (!order) continue;
        if (order->is<CopyFiles>()) {
            const auto& more = order->as<CopyFiles>().files;
            names.insert(names.end(), more.begin(), more.end());
            continue;
        }
        const Status done = order->is<CopySend>()
                                ? send(control, order->as<CopySend>(), std::move(names))
                                : take(control, order->as<CopyTake>());
        const std::string why = done ? "" : done.error().message();
        if (!why.empty()) log::info("{}", why);
        (void)control.send_text(schema::encode(CopyDone{why}));
        return done ? 0 : 1;
    }
}

}  // namespace ghost::plugin
