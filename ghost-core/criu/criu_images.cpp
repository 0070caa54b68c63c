// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/criu_images.hpp"

#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <set>

#include "ghost-core/format/host.hpp"
#include "ghost-core/criu/protobuf.hpp"

namespace ghost::core {
namespace {

constexpr uint64_t pe_lazy = 2;  // include/pagemap.h of CRIU
constexpr size_t magics = 8;     // two 4-byte magic numbers open an image
constexpr uint32_t vaddr = 1, compat_pages = 2, flags = 4, pages = 5;  // pagemap.proto

Error damaged() {
    return make_error(Code::corrupt, "read the page map of the skeleton");
}

Status add_entry(std::string_view entry, std::vector<PageRun>& out) {
    uint64_t start = 0, old_count = 0, count = 0, marks = 0;
    ProtoReader reader(entry);
    while (auto field = reader.next()) {
        if (field->number == vaddr) start = field->value;
        if (field->number == compat_pages) old_count = field->value;
        if (field->number == pages) count = field->value;
        if (field->number == flags) marks = field->value;
    }
    if (!reader.good()) return damaged();
    if ((marks & pe_lazy) == 0) return {};
    if (count == 0) count = old_count;
    const uint64_t bytes = count * this_page_size();
    if (count == 0 || count > UINT32_MAX * uint64_t{16} || start + bytes < start) return damaged();
    if (!out.empty() && out.back().start + out.back().bytes == start)
        out.back().bytes += bytes;
    else
        out.push_back({start, bytes});
    return {};
}

// fdinfo.proto, regfile.proto, sk-unix.proto, timerfd.proto
struct file_entry {
    static constexpr uint32_t regular = 3, timer = 12, unix_socket = 16;
};
struct socket_entry {
    static constexpr uint32_t inode = 2, type = 3, marks = 6, peer = 8, shutdown = 12;
    static constexpr uint64_t datagrams = 2, outer = 1, both = 3;  // their values
};
struct regular_entry {
    static constexpr uint32_t id = 1, flags = 2, name = 6, size = 8, outer = 9, mode = 10;
};
struct remap_entry {  // remap-file-path.proto
    static constexpr uint32_t file = 1;
};
struct lock_entry {  // file-lock.proto, include/file-lock.h
    static constexpr uint32_t kind = 1, type = 2, process = 3, descriptor = 4, start = 5, bytes = 6;
    static constexpr uint64_t of_process = 1, of_file = 2, of_open_file = 4;  // kinds
};
struct descriptor_entry {
    static constexpr uint32_t file = 1;
};
struct timer_entry {
    static constexpr uint32_t ticks = 5, value_s = 7, value_ns = 8, interval_s = 9,
                              interval_ns = 10;
};

uint64_t number_in(std::string_view message, uint32_t wanted) {
    ProtoReader reader(message);
    while (auto field = reader.next())
        if (field->number == wanted) return field->value;
    return 0;
}

std::string_view text_in(std::string_view message, uint32_t wanted) {
    ProtoReader reader(message);
    while (auto field = reader.next())
        if (field->number == wanted) return field->text;
    return {};
}

std::string repair_regular(std::string_view entry) {
    std::string out;
    ProtoReader reader(entry);
    while (auto field = reader.next())
        if (field->number != regular_entry::size) out += field->raw;
    return out;
}

std::string repair_timer(std::string_view entry) {
    const auto get = [&](uint32_t field) { return number_in(entry, field); };
    const bool fired = get(timer_entry::ticks) > 0 && get(timer_entry::value_s) == 0 &&
                       get(timer_entry::value_ns) == 0;
    std::string out;
    ProtoReader reader(entry);
    while (auto field = reader.next()) {
        if (fired && field->number == timer_entry::value_s)
            out += proto_number(timer_entry::value_s, get(timer_entry::interval_s));
        else if (fired && field->number == timer_entry::value_ns)
            out += proto_number(timer_entry::value_ns, get(timer_entry::interval_ns));
        else
            out += field->raw;
    }
    return out;
}

// What `change` makes of every message of an image, which may be none; nothing: it is damaged.
template <typename Change>
std::optional<std::string> changed_messages(std::string_view image, Change&& change) {
    if (image.size() < magics) return {};
    std::string out(image.substr(0, magics));
    for (image.remove_prefix(magics); !image.empty();) {
        uint32_t size = 0;
        if (image.size() < sizeof size) return {};
        std::memcpy(&size, image.data(), sizeof size);
        image.remove_prefix(sizeof size);
        std::string entry;
        if (size > image.size() || !change(image.substr(0, size), entry)) return {};
        image.remove_prefix(size);
        if (entry.empty()) continue;
        size = static_cast<uint32_t>(entry.size());
        out.append(reinterpret_cast<const char*>(&size), sizeof size);
        out += entry;
    }
    return out;
}

// False: damaged.
bool repair_entry(std::string_view entry, std::string& out) {
    ProtoReader reader(entry);
    while (auto field = reader.next()) {
        if (field->number == file_entry::regular)
            out += proto_text(field->number, repair_regular(field->text));
        else if (field->number == file_entry::timer)
            out += proto_text(field->number, repair_timer(field->text));
        else
            out += field->raw;
    }
    return reader.good();
}

Result<std::string> rename_regular(std::string_view entry, const RenameFile& name) {
    auto path = name(std::string(text_in(entry, regular_entry::name)));
    if (!path) return path;
    std::string out;
    ProtoReader reader(entry);
    while (auto field = reader.next())
        out += field->number == regular_entry::name ? proto_text(field->number, *path)
                                                    : std::string(field->raw);
    return out;
}

}  // namespace

std::string repair_files(std::string image) {
    auto repaired = changed_messages(
        image, [](std::string_view entry, std::string& out) { return repair_entry(entry, out); });
    return repaired ? std::move(*repaired) : std::move(image);
}

std::vector<NamedFile> named_files(
    const std::vector<std::pair<std::string, std::string>>& skeleton) {
    constexpr std::string_view removed_image = "remap-fpath.img", descriptors_image = "fdinfo-";
    std::set<uint64_t> removed, open;
    const auto numbers_of = [](std::string_view image, uint32_t field, std::set<uint64_t>& out) {
        changed_messages(image, [&](std::string_view entry, std::string&) {
            out.insert(number_in(entry, field));
            return true;
        });
    };
    std::string_view files;
    for (const auto& [name, content] : skeleton) {
        if (name == files_image) files = content;
        if (name == removed_image) numbers_of(content, remap_entry::file, removed);
        if (name.starts_with(descriptors_image)) numbers_of(content, descriptor_entry::file, open);
    }
    std::vector<NamedFile> out;
    const auto whole = changed_messages(files, [&](std::string_view entry, std::string&) {
        const auto regular = text_in(entry, file_entry::regular);
        const auto number = [&](uint32_t field) { return number_in(regular, field); };
        const auto id = number(regular_entry::id);
        if (regular.empty() || removed.count(id) || number(regular_entry::outer)) return true;
        out.push_back({std::string(text_in(regular, regular_entry::name)),
                       static_cast<uint32_t>(number(regular_entry::mode)),
                       (number(regular_entry::flags) & O_ACCMODE) != O_RDONLY, open.count(id) > 0});
        return true;
    });
    return whole ? out : std::vector<NamedFile>();
}

Result<std::string> rename_files(std::string image, const RenameFile& name) {
    Status status;
    auto renamed = changed_messages(image, [&](std::string_view entry, std::string& out) {
        ProtoReader reader(entry);
        while (auto field = reader.next()) {
            if (field->number != file_entry::regular || !status.ok()) {
                out += field->raw;
                continue;
            }
            auto regular = rename_regular(field->text, name);
            if (regular)
                out += proto_text(field->number, *regular);
            else
                status = regular.error();
        }
        return reader.good();
    });
    if (!status.ok()) return status.error();
    return renamed ? std::move(*renamed) : std::move(image);
}

namespace {

// As a connection whose other end has been closed is dumped.
std::string closed_socket(std::string_view entry) {
    std::string out;
    ProtoReader reader(entry);
    while (auto field = reader.next())
        if (field->number != socket_entry::peer && field->number != socket_entry::shutdown)
            out += field->raw;
    out += proto_number(socket_entry::peer, 0);
    if (number_in(entry, socket_entry::type) != socket_entry::datagrams)
        out += proto_number(socket_entry::shutdown, socket_entry::both);
    return out;
}

// Calls `each` with the Unix sockets of the tree (false) and their outer ends (true).
template <typename Each>
void unix_entries(std::string_view image, Each&& each) {
    changed_messages(image, [&](std::string_view entry, std::string& /*out*/) {
        const auto socket = text_in(entry, file_entry::unix_socket);
        const bool outer = number_in(socket, socket_entry::marks) & socket_entry::outer;
        if (!socket.empty()) each(socket, outer);
        return true;
    });
}

}  // namespace

Result<std::string> close_outer_ends(std::string image, const CloseEnd& closes) {
    std::set<uint64_t> own, closed, kept;  // inodes: of the tree, of those; outside
    unix_entries(image, [&](std::string_view socket, bool outer) {
        if (!outer) own.insert(number_in(socket, socket_entry::inode));
    });
    Status status;
    unix_entries(image, [&](std::string_view socket, bool outer) {
        const auto peer = number_in(socket, socket_entry::peer);
        if (outer || peer == 0 || own.count(peer) || !status.ok()) return;
        const auto inode = number_in(socket, socket_entry::inode);
        auto closing = closes(inode);
        if (!closing)
            status = closing.error();
        else if (*closing)
            closed.insert(inode);
        else
            kept.insert(peer);
    });
    if (!status.ok()) return status.error();
    if (closed.empty()) return image;
    auto out = changed_messages(image, [&](std::string_view entry, std::string& changed) {
        const auto socket = text_in(entry, file_entry::unix_socket);
        const auto inode = number_in(socket, socket_entry::inode);
        const bool outer = number_in(socket, socket_entry::marks) & socket_entry::outer;
        if (!socket.empty() && outer && !kept.count(inode)) return true;
        ProtoReader reader(entry);
        while (auto field = reader.next())
            changed += field->number == file_entry::unix_socket && !outer && closed.count(inode)
                           ? proto_text(field->number, closed_socket(field->text))
                           : std::string(field->raw);
        return reader.good();
    });
    return out ? std::move(*out) : std::move(image);
}

int pagemap_owner(std::string_view name) {
    constexpr std::string_view prefix = "pagemap-", suffix = ".img";
    if (!name.starts_with(prefix) || !name.ends_with(suffix)) return 0;
    name.remove_prefix(prefix.size());
    name.remove_suffix(suffix.size());
    int pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc{} || end != name.data() + name.size() || pid <= 0) return 0;
    return pid;
}

Result<std::vector<std::pair<std::string, std::string>>> cores_in(std::string_view cores) {
    std::vector<std::pair<std::string, std::string>> out;
    while (!cores.empty()) {
        uint32_t thread = 0, size = 0;
        if (cores.size() >= sizeof thread + sizeof size) {
            std::memcpy(&thread, cores.data(), sizeof thread);
            std::memcpy(&size, &cores[sizeof thread], sizeof size);
            cores.remove_prefix(sizeof thread + sizeof size);
        }
        if (size <= magics || size > cores.size())
            return make_error(Code::corrupt, "read the threads of the skeleton");
        out.emplace_back(fmt::format("core-{}.img", thread), cores.substr(0, size));
        cores.remove_prefix(size);
    }
    return out;
}

Result<std::vector<PageRun>> lazy_ranges(std::string_view pagemap) {
    std::vector<PageRun> out;
    if (pagemap.size() < magics) return damaged();
    pagemap.remove_prefix(magics);
    for (bool head = true; !pagemap.empty(); head = false) {
        uint32_t size = 0;
        if (pagemap.size() < sizeof size) return damaged();
        std::memcpy(&size, pagemap.data(), sizeof size);
        pagemap.remove_prefix(sizeof size);
        if (size > pagemap.size()) return damaged();
        if (!head) GHOST_TRY(add_entry(pagemap.substr(0, size), out));
        pagemap.remove_prefix(size);
    }
    return out;
}

namespace {

// Nothing: a lease, or a mandatory lock of old kernels.
std::optional<FileLock::Kind> kind_of_lock(std::string_view entry) {
    const auto type = number_in(entry, lock_entry::type);
    if (type != F_RDLCK && type != F_WRLCK) return {};
    switch (number_in(entry, lock_entry::kind)) {
        case lock_entry::of_process:
            return FileLock::Kind::process;
        case lock_entry::of_file:
            return FileLock::Kind::whole;
        case lock_entry::of_open_file:
            return FileLock::Kind::open_file;
        default:
            return {};
    }
}

Error bad_image(const char* name) {
    return make_error(Code::corrupt, "read the skeleton", name);
}

// Calls `each` with every message of an image; false if it is damaged.
template <typename Each>
bool messages(std::string_view image, Each&& each) {
    if (image.size() < magics) return false;
    for (image.remove_prefix(magics); !image.empty();) {
        uint32_t size = 0;
        if (image.size() < sizeof size) return false;
        std::memcpy(&size, image.data(), sizeof size);
        image.remove_prefix(sizeof size);
        if (size > image.size() || !each(image.substr(0, size))) return false;
        image.remove_prefix(size);
    }
    return true;
}

}  // namespace

Result<std::vector<FileLock>> locks_in(std::string_view image) {
    std::vector<FileLock> out;
    const bool good = messages(image, [&](std::string_view entry) {
        const auto kind = kind_of_lock(entry);
        if (!kind) return true;
        const auto number = [&](uint32_t field) { return number_in(entry, field); };
        out.push_back({*kind, number(lock_entry::type) == F_WRLCK,
                       static_cast<int>(number(lock_entry::process)),
                       static_cast<int>(number(lock_entry::descriptor)),
                       static_cast<int64_t>(number(lock_entry::start)),
                       static_cast<int64_t>(number(lock_entry::bytes))});
        return true;
    });
    if (!good) return bad_image("file locks");
    return out;
}

std::string without_locks(std::string_view image) {
    auto out = changed_messages(image, [](std::string_view entry, std::string& kept) {
        if (!kind_of_lock(entry)) kept = entry;
        return true;
    });
    return out ? std::move(*out) : std::string(image);
}

Result<bool> has_interval_timer(std::string_view core) {
    constexpr uint32_t task_core = 3, timers = 7, last_interval = 3;
    bool runs = false;
    const auto look = [&](std::string_view message, auto&& each) {
        ProtoReader reader(message);
        while (auto field = reader.next()) each(*field);
        return reader.good();
    };
    const bool good = messages(core, [&](std::string_view entry) {
        return look(entry, [&](const ProtoField& part) {
            if (part.number != task_core || part.text.data() == nullptr) return;
            look(part.text, [&](const ProtoField& task) {
                if (task.number != timers || task.text.data() == nullptr) return;
                look(task.text, [&](const ProtoField& timer) {
                    if (timer.number > last_interval || timer.text.data() == nullptr) return;
                    look(timer.text, [&](const ProtoField& value) { runs |= value.value != 0; });
                });
            });
        });
    });
    if (!good) return bad_image("core");
    return runs;
}

std::string clocks_image(std::string_view old, int64_t monotonic_ns, int64_t boottime_ns) {
    std::string out(old.substr(0, std::min(old.size(), magics))), entry;
    uint32_t field = 1;
    for (const int64_t ns : {monotonic_ns, boottime_ns}) {
        entry += proto_text(field++, proto_number(1, static_cast<uint64_t>(ns / 1000000000)) +
                                         proto_number(2, static_cast<uint64_t>(ns % 1000000000)));
    }
    const auto size = static_cast<uint32_t>(entry.size());
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    return out + entry;
}

}  // namespace ghost::core
