// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/wrapper/copier.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <functional>
#include <map>
#include <memory>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/log.hpp"
#include "base/own_file.hpp"
#include "base/scheduling.hpp"
#include "ghost-core/resource/network.hpp"
#include "pmix-plugin/protocol/copier.hpp"
#include "pmix-plugin/snapshots/folder.hpp"
#include "pmix-plugin/snapshots/parity.hpp"

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
bool names_ghost(const std::string& name, bool or_parity = false) {
    const auto slash = name.find('/');
    if (slash == std::string::npos || !parse_snapshot_name(name.substr(0, slash))) return false;
    const std::string file = name.substr(slash + 1);
    return (file.starts_with("rank-") || (or_parity && names_parity(file))) &&
           file.find('/') == std::string::npos && name.find("..") == std::string::npos;
}

bool fits_in(uint64_t bytes, const XorTarget& target) {
    return target.offset <= target.size && bytes <= target.size - target.offset &&
           target.head.data.size() <= target.offset;
}

Error no_room(const std::string& path, int sys) {
    if (sys != ENOSPC && sys != EDQUOT) return sys_error_of(sys, "make room for", path);
    return make_error(Code::refused, "keep a copy of", path,
                      "the memory for snapshots of its node is full");
}

Status keep_at(int fd, const void* data, size_t size, uint64_t offset, const std::string& path) {
    const Status kept = write_at(fd, data, size, offset, path);
    return kept ? kept : no_room(path, kept.error().sys);
}

Status read_whole(int fd, void* data, size_t size, uint64_t offset, const std::string& path) {
    const auto got = read_at(fd, data, size, offset, path);
    if (!got) return got.error();
    return *got == size ? Status() : make_error(Code::corrupt, "read all of", path);
}

// Against other processes that write to the same part of a file.
class Locked {
  public:
    Locked(int fd, uint64_t offset, uint64_t size) : fd_(fd) {
        lock_.l_whence = SEEK_SET;
        lock_.l_start = static_cast<off_t>(offset);
        lock_.l_len = static_cast<off_t>(size);
        set(F_WRLCK);
    }
    ~Locked() { set(F_UNLCK); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    Status status() const { return sys_ == 0 ? Status() : sys_error_of(sys_, "lock", "a copy"); }

  private:
    void set(short type) {
        lock_.l_type = type;
        do sys_ = ::fcntl(fd_, F_OFD_SETLKW, &lock_) == 0 ? 0 : errno;
        while (sys_ == EINTR);
    }

    const int fd_;
    struct flock lock_ {};
    int sys_ = 0;
};

// --- the sender ---

// What is to be sent: files as they are, and streams that the other side makes files of.
struct Load {
    std::vector<std::string> names;
    std::vector<XorStream> streams;

    // One that is too long for a message comes in several.
    void add(const XorStream& more) {
        if (streams.empty() || streams.back().file != more.file) return streams.push_back(more);
        auto& pieces = streams.back().pieces;
        pieces.insert(pieces.end(), more.pieces.begin(), more.pieces.end());
    }
};

class Sender {
  public:
    Sender(const ControlSocket& control, const CopySend& order, Load load)
        : control_(control), order_(order), load_(std::move(load)) {}
    Status run();

  private:
    struct Going {
        CopyItem item;
        std::vector<XorPiece> pieces;
    };

    Status look();
    Result<const File*> open(const std::string& name);
    Status look_at_stream(XorStream stream);
    Status send(core::Resource& to, const Going& one);
    Status send_piece(core::Resource& to, const XorPiece& piece, Hash& hash);
    void pace();
    void tell();

    const ControlSocket& control_;
    const CopySend& order_;
    Load load_;
    std::map<std::string, File> files_;  // that are open
    std::vector<Going> going_;
    uint64_t bytes_ = 0, total_ = 0;
    int64_t begun_ = 0, told_ = 0;
};

Result<const File*> Sender::open(const std::string& name) {
    if (const auto known = files_.find(name); known != files_.end()) return &known->second;
    const std::string path = order_.folder + "/" + name;
    if (names_parity(name.substr(name.find('/') + 1))) GHOST_TRY(check_parity(path, name));
    auto file = look_at(path);
    if (!file) return file.error();
    return &files_.emplace(name, std::move(*file)).first->second;
}

Status Sender::look_at_stream(XorStream stream) {
    uint64_t bytes = 0;
    for (const XorPiece& piece : stream.pieces) {
        bytes += piece.bytes;
        if (piece.file.empty()) continue;
        if (!names_ghost(piece.file, true))
            return make_error(Code::invalid, "send what is no ghost of a snapshot", piece.file);
        const auto file = open(piece.file);
        if (!file) return file.error();
        if ((*file)->bytes < piece.offset || (*file)->bytes - piece.offset < piece.bytes)
            return make_error(Code::corrupt, "read all of", piece.file);
    }
    going_.push_back(
        {{stream.file, bytes, {}, std::move(stream.target)}, std::move(stream.pieces)});
    return {};
}

Status Sender::look() {
    for (const std::string& name : load_.names) {
        const auto file = open(name);
        if (!file) return file.error();
        const uint64_t bytes = (*file)->bytes;
        going_.push_back({{name, bytes, (*file)->tail}, {{name, 0, bytes}}});
    }
    for (XorStream& stream : load_.streams) GHOST_TRY(look_at_stream(std::move(stream)));
    return {};
}

Status Sender::run() {
    GHOST_TRY(look());
    CopyList list;
    for (const Going& one : going_) list.items.push_back(one.item);
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
        if (which >= going_.size()) return because(Code::corrupt, "it wants what is not there");
        total_ += going_[which].item.bytes;
    }
    begun_ = monotonic_us();
    for (const uint32_t which : wanted->which) GHOST_TRY(send(**to, going_[which]));
    const auto kept = get<CopyKept>(**to);
    GHOST_TRY(kept);
    if (!kept->why.empty()) return because(Code::refused, kept->why);
    return {};
}

Status Sender::send(core::Resource& to, const Going& one) {
    Hash hash;
    for (const XorPiece& piece : one.pieces) GHOST_TRY(send_piece(to, piece, hash));
    const uint64_t value = hash.value();
    return to.write(&value, sizeof value);
}

Status Sender::send_piece(core::Resource& to, const XorPiece& piece, Hash& hash) {
    std::vector<char> data(std::min<uint64_t>(piece_bytes, piece.bytes));
    const auto file = files_.find(piece.file);
    for (uint64_t done = 0; done < piece.bytes;) {
        size_t size = std::min<uint64_t>(piece.bytes - done, piece_bytes);
        if (file != files_.end()) {
            const ssize_t n = ::pread(file->second.fd.get(), data.data(), size,
                                      static_cast<off_t>(piece.offset + done));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return sys_error("read", piece.file);
            if (n == 0) return make_error(Code::corrupt, "read all of", piece.file);
            size = static_cast<size_t>(n);
        }
        hash.add(data.data(), size);
        GHOST_TRY(to.write(data.data(), size));
        done += size;
        bytes_ += size;
        pace();
        tell();
    }
    return {};
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
        bool named = false;    // or left to whoever has the last stream for it
        std::string now = {};  // its name until then
    };
    using Keep = std::function<Status(const char* data, size_t size)>;

    bool is_there(const CopyItem& item) const;
    Status make_room(const CopyItem& item);
    static Status take(core::Resource& from, const CopyItem& item, const Keep& keep);
    static Status take_file(core::Resource& from, Coming& one);
    static Status take_stream(core::Resource& from, Coming& one);
    static Status add(Coming& one, XorBuffer& buffer, uint64_t offset, size_t size);
    static Status end_stream(Coming& one);
    static Status name(Coming& one);
    Status take_all(core::Resource& from);

    const CopyTake& order_;
    std::vector<Coming> coming_;
};

Receiver::~Receiver() {
    for (const Coming& one : coming_)
        if (!one.named) ::unlink(one.now.c_str());
}

// All of it, before the first byte comes. What several streams come for all of their receivers have
// open: it begins as zeros, and behind its end is how many have come.
Status Receiver::make_room(const CopyItem& item) {
    const std::string path = order_.folder + "/" + item.name;
    const std::string now =
        path + (item.target ? fmt::format(".{}", item.target->attempt) : "") + unfinished;
    GHOST_TRY(open_snapshot_folder(order_.folder));
    GHOST_TRY(make_own_folder(path.substr(0, path.rfind('/'))));
    auto fd = open_own_file(now, O_RDWR | O_CREAT | (item.target ? 0 : O_TRUNC));
    if (!fd) return fd.error().sys == ENOSPC ? no_room(path, ENOSPC) : fd.error();
    coming_.push_back({item, path, std::move(*fd), false, now});
    const uint64_t size = item.target ? item.target->size + sizeof(uint32_t) : item.bytes;
    if (size == 0) return {};
    const int sys = ::posix_fallocate(coming_.back().fd.get(), 0, static_cast<off_t>(size));
    return sys == 0 ? Status() : no_room(path, sys);
}

Status Receiver::take(core::Resource& from, const CopyItem& item, const Keep& keep) {
    std::vector<char> piece(piece_bytes);
    Hash hash;
    for (uint64_t left = item.bytes; left > 0;) {
        auto got = from.read(piece.data(), std::min<uint64_t>(left, piece_bytes));
        if (!got) return got.error();
        if (*got == 0) return because(Code::peer_lost, "the other side has ended");
        hash.add(piece.data(), *got);
        GHOST_TRY(keep(piece.data(), *got));
        left -= *got;
    }
    uint64_t value = 0;
    GHOST_TRY(get_all(from, &value, sizeof value));
    if (value == hash.value()) return {};
    return make_error(Code::corrupt, "copy", item.name, "its checksum is another");
}

Status Receiver::take_file(core::Resource& from, Coming& one) {
    uint64_t at = 0;
    GHOST_TRY(take(from, one.item, [&](const char* data, size_t size) -> Status {
        GHOST_TRY(keep_at(one.fd.get(), data, size, at, one.path));
        at += size;
        return {};
    }));
    return name(one);
}

Status Receiver::name(Coming& one) {
    if (::fsync(one.fd.get()) != 0) return sys_error("sync", one.path);
    if (::rename(one.now.c_str(), one.path.c_str()) != 0) return sys_error("name", one.path);
    one.named = true;
    return {};
}

// --- streams of which a file is made ---

Status Receiver::take_stream(core::Resource& from, Coming& one) {
    XorBuffer buffer(piece_bytes);
    const std::string& head = one.item.target->head.data;
    GHOST_TRY(keep_at(one.fd.get(), head.data(), head.size(), 0, one.path));
    uint64_t at = one.item.target->offset;
    GHOST_TRY(take(from, one.item, [&](const char* data, size_t size) -> Status {
        std::memcpy(buffer.more(), data, size);
        GHOST_TRY(add(one, buffer, at, size));
        at += size;
        return {};
    }));
    return end_stream(one);
}

// Others do the same with their streams.
Status Receiver::add(Coming& one, XorBuffer& buffer, uint64_t offset, size_t size) {
    const Locked locked(one.fd.get(), offset, size);
    GHOST_TRY(locked.status());
    GHOST_TRY(read_whole(one.fd.get(), buffer.old(), size, offset, one.path));
    const auto both = buffer.combine(size);
    if (!both) return both.error();
    return keep_at(one.fd.get(), *both, size, offset, one.path);
}

// Who comes last makes a whole file of it.
Status Receiver::end_stream(Coming& one) {
    const XorTarget& target = *one.item.target;
    uint32_t ended = 0;
    {
        const Locked locked(one.fd.get(), target.size, sizeof ended);
        GHOST_TRY(locked.status());
        GHOST_TRY(read_whole(one.fd.get(), &ended, sizeof ended, target.size, one.path));
        GHOST_TRY(keep_at(one.fd.get(), &++ended, sizeof ended, target.size, one.path));
    }
    one.named = true;
    if (ended != target.streams) return {};
    one.named = false;
    if (::ftruncate(one.fd.get(), static_cast<off_t>(target.size)) != 0)
        return sys_error("cut", one.path);
    if (target.offset > 0) GHOST_TRY(seal_parity(one.fd.get(), one.path));
    return name(one);
}

Status Receiver::take_all(core::Resource& from) {
    for (Coming& one : coming_)
        GHOST_TRY(one.item.target ? take_stream(from, one) : take_file(from, one));
    return {};
}

bool Receiver::is_there(const CopyItem& item) const {
    const auto there = look_at(order_.folder + "/" + item.name);
    if (item.target) return there && there->bytes == item.target->size;
    return there && there->bytes == item.bytes && there->tail == item.tail;
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
        const bool fits = !item.target || fits_in(item.bytes, *item.target);
        if (!names_ghost(item.name, item.target.has_value()) || !fits) {
            fine = make_error(Code::invalid, "copy what is no ghost of a snapshot", item.name);
            break;
        }
        if (is_there(item)) continue;
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

Status send(const ControlSocket& control, const CopySend& order, Load load) {
    return Sender(control, order, std::move(load)).run();
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
    Load load;
    for (;;) {
        const auto message = control.receive(-1);
        if (!message) return 1;
        std::string complaint;
        const auto order = reader.read(message->text, complaint);
        if (!complaint.empty()) (void)control.send_text(complaint);
        if (!order) continue;
        if (order->is<CopyFiles>()) {
            const auto& more = order->as<CopyFiles>().files;
            load.names.insert(load.names.end(), more.begin(), more.end());
            continue;
        }
        if (order->is<XorStream>()) {
            load.add(order->as<XorStream>());
            continue;
        }
        const Status done = order->is<CopySend>()
                                ? send(control, order->as<CopySend>(), std::move(load))
                                : take(control, order->as<CopyTake>());
        const std::string why = done ? "" : done.error().message();
        if (!why.empty()) log::info("{}", why);
        (void)control.send_text(schema::encode(CopyDone{why}));
        return done ? 0 : 1;
    }
}

}  // namespace ghost::plugin
