// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/snapshots/parity.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <isa-l/raid.h>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/json_text.hpp"
#include "base/own_file.hpp"
#include "base/schema_json.hpp"

namespace ghost::plugin {
namespace {

using schema::Field;
using schema::field;
using schema::Record;
using schema::record;

constexpr Field file_fields[] = {
    field<&ParitySet::File::file>("file", "in the folder of snapshots"),
    field<&ParitySet::File::bytes>("bytes", "of it").in("bytes"),
};
constexpr Field member_fields[] = {
    field<&ParitySet::Member::id>("id", "of the node"),
    field<&ParitySet::Member::node>("node", "its name"),
    field<&ParitySet::Member::files>("files", "that are protected, in this order"),
};
constexpr Field set_fields[] = {
    field<&ParitySet::id>("id", "of the group"),
    field<&ParitySet::snapshot>("snapshot", "whose folder has the parity"),
    field<&ParitySet::members>("members", "nodes, in the order of their rows"),
};
constexpr Field head_member_fields[] = {
    field<&ParityHead::Member::node>("node", "its name"),
    field<&ParityHead::Member::bytes>("bytes", "of its data").in("bytes"),
};
constexpr Field head_fields[] = {
    field<&ParityHead::snapshot>("snapshot", "name of its folder"),
    field<&ParityHead::id>("id", "of the group"),
    field<&ParityHead::row>("row", "place of the node that has it"),
    field<&ParityHead::members>("members", "nodes of the group"),
};

constexpr const char* prefix = "parity-";
constexpr std::array<char, 8> magic{'G', 'H', 'S', 'T', 'X', 'O', 'R', '\n'};
constexpr uint32_t format = 1;
constexpr size_t aligned_to = 64;
constexpr uint32_t longest_text = 1 << 20;
constexpr size_t piece_bytes = 256 << 10;

// All numbers little-endian.
struct Fixed {
    std::array<char, 8> magic = {};
    uint32_t format = 0;
    uint32_t text_bytes = 0;
    uint64_t parity_bytes = 0;
    uint64_t text_sum = 0;    // XXH3-64 of what is above, and the text
    uint64_t parity_sum = 0;  // XXH3-64 of the parity
    std::array<char, 24> rest = {};
};
static_assert(sizeof(Fixed) == aligned_to);

uint64_t sum_of(const Fixed& fixed, std::string_view text) {
    std::string all(reinterpret_cast<const char*>(&fixed), offsetof(Fixed, text_sum));
    all += text;
    return XXH3_64bits(all.data(), all.size());
}

size_t rounded(size_t bytes) {
    return (bytes + aligned_to - 1) / aligned_to * aligned_to;
}

// Which chunk of member `whose` is of this row.
uint64_t place_of(size_t whose, size_t row) {
    return row < whose ? row : row - 1;
}

// Bytes of a member's data; behind its end nothing.
std::vector<XorPiece> pieces_of(const ParitySet::Member& member, uint64_t offset, uint64_t bytes) {
    std::vector<XorPiece> out;
    uint64_t at = 0;
    for (const auto& file : member.files) {
        const uint64_t from = std::max(offset, at);
        const uint64_t to = std::min(offset + bytes, at + file.bytes);
        if (from < to) out.push_back({file.file, from - at, to - from});
        at += file.bytes;
    }
    return out;
}

uint64_t length_of(const std::vector<XorPiece>& pieces) {
    uint64_t out = 0;
    for (const XorPiece& piece : pieces) out += piece.bytes;
    return out;
}

// As long as the row's part is, with zeros behind the end of the data.
void add(std::vector<XorPiece>& all, std::vector<XorPiece> more, uint64_t bytes) {
    const uint64_t there = length_of(more);
    all.insert(all.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
    if (there < bytes) all.push_back({{}, 0, bytes - there});
}

void trim(std::vector<XorPiece>& pieces) {
    while (!pieces.empty() && pieces.back().file.empty()) pieces.pop_back();
}

std::string in_folder(const std::string& file, const std::string& folder) {
    return folder + file.substr(file.find('/'));
}

void count(std::vector<XorStream>& streams) {
    for (XorStream& one : streams) one.target.streams = static_cast<uint32_t>(streams.size());
}

Error damaged(std::string what) {
    return make_error(Code::corrupt, "use the parity:", std::move(what));
}

Status read_whole(int fd, void* data, size_t size, uint64_t offset, const std::string& path) {
    const auto got = read_at(fd, data, size, offset, path);
    if (!got) return got.error();
    return *got == size ? Status() : damaged("cut off: " + path);
}

struct Opened {
    ParityHead head;
    uint64_t offset = 0, size = 0, checksum = 0;
};

Result<Opened> look_at(int fd, const std::string& path) {
    struct stat info {};
    if (::fstat(fd, &info) != 0) return sys_error("look at", path);
    Opened out;
    out.size = static_cast<uint64_t>(info.st_size);
    std::string begin(std::min<uint64_t>(out.size, rounded(sizeof(Fixed) + longest_text)), '\0');
    GHOST_TRY(read_whole(fd, begin.data(), begin.size(), 0, path));
    auto head = read_parity_head(begin, out.size, out.offset, out.checksum);
    if (!head) {
        Error error = head.error();
        error.object += " (" + path + ")";
        return error;
    }
    out.head = std::move(*head);
    return out;
}

Result<uint64_t> sum_of_rest(int fd, const Opened& file, const std::string& path) {
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                         &XXH3_freeState);
    XXH3_64bits_reset(state.get());
    std::vector<char> piece(piece_bytes);
    for (uint64_t at = file.offset; at < file.size;) {
        const size_t size = std::min<uint64_t>(piece.size(), file.size - at);
        GHOST_TRY(read_whole(fd, piece.data(), size, at, path));
        XXH3_64bits_update(state.get(), piece.data(), size);
        at += size;
    }
    return XXH3_64bits_digest(state.get());
}

}  // namespace

constinit const Record ParitySet::File::table = record<File>("file", "of a node", file_fields);
constinit const Record ParitySet::Member::table =
    record<Member>("member", "a node of a group", member_fields);
constinit const Record ParitySet::table =
    record<ParitySet>("group", "of nodes that have parity of each other's ghosts", set_fields);
constinit const Record ParityHead::Member::table =
    record<Member>("member", "a node of a group", head_member_fields);
constinit const Record ParityHead::table =
    record<ParityHead>("parity", "of a row of a group", head_fields);

uint64_t ParitySet::Member::length() const {
    uint64_t out = 0;
    for (const File& file : files) out += file.bytes;
    return out;
}

uint64_t ParitySet::chunk() const {
    uint64_t longest = 0;
    for (const Member& member : members) longest = std::max(longest, member.length());
    const uint64_t others = std::max<size_t>(members.size(), 2) - 1;
    return (longest + others - 1) / others;
}

std::string ParitySet::file(size_t row) const {
    return fmt::format("{}/{}{}.{}", snapshot, prefix, id, row);
}

uint64_t ParitySet::parity_bytes(size_t row) const {
    uint64_t out = 0;
    for (size_t i = 0; i < members.size(); i++) {
        if (i == row) continue;
        const uint64_t begin = place_of(i, row) * chunk(), length = members[i].length();
        if (begin < length) out = std::max(out, std::min(chunk(), length - begin));
    }
    return out;
}

std::vector<XorStream> parity_streams(const ParitySet& set, const std::string& now,
                                      uint64_t attempt) {
    std::vector<XorStream> out;
    for (size_t row = 0; row < set.members.size(); row++) {
        const std::string head = parity_head(set, row);
        const uint64_t size = head.size() + set.parity_bytes(row);
        std::vector<XorStream> streams;
        for (size_t i = 0; i < set.members.size(); i++) {
            if (i == row) continue;
            auto pieces = pieces_of(set.members[i], place_of(i, row) * set.chunk(), set.chunk());
            if (pieces.empty()) continue;
            for (XorPiece& piece : pieces)
                if (piece.file.starts_with(set.snapshot + "/"))
                    piece.file = in_folder(piece.file, now);
            streams.push_back({set.members[i].id, set.members[row].id,
                               in_folder(set.file(row), now),
                               XorTarget{attempt, size, 0, head.size(), {}}, std::move(pieces)});
        }
        count(streams);
        if (!streams.empty()) streams.front().target.head.data = head;
        out.insert(out.end(), streams.begin(), streams.end());
    }
    return out;
}

std::vector<XorStream> rebuild_streams(const ParitySet& set, size_t lost, size_t file, uint32_t to,
                                       uint64_t attempt) {
    const auto& member = set.members[lost];
    const uint64_t chunk = set.chunk(), bytes = member.files[file].bytes;
    uint64_t begin = 0;
    for (size_t i = 0; i < file; i++) begin += member.files[i].bytes;
    std::vector<XorStream> out;
    for (size_t who = 0; who < set.members.size(); who++) {
        if (who == lost) continue;
        std::vector<XorPiece> pieces;
        for (uint64_t at = begin; at < begin + bytes;) {
            const uint64_t place = at / chunk, in_row = at % chunk;
            const size_t row = place < lost ? place : place + 1;
            const uint64_t n = std::min(chunk - in_row, begin + bytes - at);
            if (row == who)
                add(pieces, {{set.file(row), parity_head(set, row).size() + in_row, n}}, n);
            else
                add(pieces, pieces_of(set.members[who], place_of(who, row) * chunk + in_row, n), n);
            at += n;
        }
        trim(pieces);
        if (!pieces.empty())
            out.push_back({set.members[who].id, to, member.files[file].file,
                           XorTarget{attempt, bytes, 0, 0, {}}, std::move(pieces)});
    }
    count(out);
    return out;
}

// --- its files ---

bool names_parity(std::string_view file) {
    return file.starts_with(prefix);
}

std::string parity_head(const ParitySet& set, size_t row) {
    ParityHead head{set.snapshot, set.id, static_cast<uint32_t>(row), {}};
    for (const auto& member : set.members) head.members.push_back({member.node, member.length()});
    const std::string text = schema::to_json(head).dump();
    Fixed fixed{magic, format, static_cast<uint32_t>(text.size()), set.parity_bytes(row), 0, 0, {}};
    fixed.text_sum = sum_of(fixed, text);
    std::string out(reinterpret_cast<const char*>(&fixed), sizeof fixed);
    out += text;
    out.resize(rounded(out.size()), '\0');
    return out;
}

Result<ParityHead> read_parity_head(std::string_view begin, uint64_t size, uint64_t& offset,
                                    uint64_t& checksum) {
    Fixed fixed;
    if (begin.size() < sizeof fixed) return damaged("cut off");
    std::memcpy(&fixed, begin.data(), sizeof fixed);
    if (fixed.magic != magic) return damaged("it is no parity of a snapshot");
    if (fixed.format != format)
        return make_error(
            Code::unsupported, "use the parity:",
            fmt::format("it is of format {}, this Ghost reads {}", fixed.format, format));
    if (fixed.text_bytes > longest_text) return damaged("its head is too long");
    offset = rounded(sizeof fixed + fixed.text_bytes);
    if (begin.size() < offset) return damaged("cut off");
    const auto text = begin.substr(sizeof fixed, fixed.text_bytes);
    if (fixed.text_sum != sum_of(fixed, text)) return damaged("its head has been changed");
    for (const char c :
         begin.substr(sizeof fixed + fixed.text_bytes, offset - sizeof fixed - fixed.text_bytes))
        if (c != '\0') return damaged("its head has been changed");
    if (fixed.rest != Fixed().rest) return damaged("its head has been changed");
    if (size < offset || size - offset != fixed.parity_bytes)
        return damaged(fmt::format("it has {} bytes of {}", size, offset + fixed.parity_bytes));
    checksum = fixed.parity_sum;
    const nlohmann::json object = parse_json(text);
    if (object.is_discarded()) return damaged("its head is no JSON");
    auto head = schema::from_json<ParityHead>(object);
    if (!head) return damaged(head.error().why);
    if (head->members.size() < 2 || head->row >= head->members.size())
        return damaged("its group has no such row");
    return head;
}

Status seal_parity(int fd, const std::string& path) {
    const auto file = look_at(fd, path);
    GHOST_TRY(file);
    const auto sum = sum_of_rest(fd, *file, path);
    GHOST_TRY(sum);
    return write_at(fd, &*sum, sizeof *sum, offsetof(Fixed, parity_sum), path);
}

Status check_parity(const std::string& path, const std::string& name) {
    auto fd = open_own_file(path);
    if (!fd) return fd.error();
    const auto file = look_at(fd->get(), path);
    GHOST_TRY(file);
    const auto sum = sum_of_rest(fd->get(), *file, path);
    GHOST_TRY(sum);
    if (*sum != file->checksum) return damaged("its checksum is another: " + path);
    const ParitySet place{file->head.id, file->head.snapshot, {}};
    if (name != place.file(file->head.row))
        return damaged(fmt::format("it is of {}: {}", place.file(file->head.row), path));
    return {};
}

namespace {

Status add_stream(const XorStream& stream, int to, const std::string& path,
                  const std::function<std::string(const std::string& file)>& where) {
    XorBuffer buffer(piece_bytes);
    uint64_t at = stream.target.offset;
    for (const XorPiece& piece : stream.pieces) {
        if (piece.file.empty()) {
            at += piece.bytes;
            continue;
        }
        const std::string from = where(piece.file);
        const auto fd = open_own_file(from);
        if (!fd) return fd.error();
        for (uint64_t done = 0; done < piece.bytes;) {
            const size_t size = std::min<uint64_t>(piece_bytes, piece.bytes - done);
            GHOST_TRY(read_whole(fd->get(), buffer.more(), size, piece.offset + done, from));
            GHOST_TRY(read_whole(to, buffer.old(), size, at, path));
            const auto both = buffer.combine(size);
            GHOST_TRY(both);
            GHOST_TRY(write_at(to, *both, size, at, path));
            done += size;
            at += size;
        }
    }
    return {};
}

}  // namespace

Status make_of_streams(const std::vector<XorStream>& streams,
                       const std::function<std::string(const std::string& file)>& where,
                       const std::string& path) {
    if (streams.empty()) return make_error(Code::invalid, "make of nothing", path);
    const auto fd = open_own_file(path, O_RDWR | O_CREAT | O_TRUNC);
    if (!fd) return fd.error();
    if (::ftruncate(fd->get(), static_cast<off_t>(streams.front().target.size)) != 0)
        return sys_error("make room for", path);
    for (const XorStream& stream : streams) GHOST_TRY(add_stream(stream, fd->get(), path, where));
    return ::fsync(fd->get()) == 0 ? Status() : Status(sys_error("sync", path));
}

// --- exclusive or ---

char* XorBuffer::aligned(size_t which) {
    const auto at = reinterpret_cast<uintptr_t>(parts_[which].data());
    return parts_[which].data() + (alignment - at % alignment) % alignment;
}

// What lies behind `bytes` is combined too, up to the alignment: it is nobody's.
Result<const char*> XorBuffer::combine(size_t bytes) {
    if (bytes > most_) return because(Code::invalid, "so much cannot be combined at once");
    void* parts[] = {old(), more(), aligned(2)};
    const auto length = static_cast<int>((bytes + alignment - 1) / alignment * alignment);
    if (xor_gen(3, length, parts) != 0) return because(Code::internal, "xor_gen has failed");
    return static_cast<const char*>(parts[2]);
}

}  // namespace ghost::plugin
