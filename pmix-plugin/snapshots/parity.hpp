// SPDX-License-Identifier: BSD-3-Clause
// Snapshots in the nodes' memory that survive the loss of one node of each group by parity, as
// RAID 5 and SCR's scheme XOR do (docs/SNAPSHOT_FORMAT.md, "Parity"): who keeps what, what is sent
// for it, and the files it is kept in.
//
// Of a group of n nodes each has data: its files one after the other, taken to be as long as the
// longest node's. That is cut into n - 1 chunks; the chunk for row j goes to node j, which keeps
// the exclusive or of what the others send it, and has no data of its own in its row. What one node
// had is the exclusive or of what the others have of each row.
//
// No state: any thread. What opens files blocks on them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/schema.hpp"
#include "pmix-plugin/protocol/parts.hpp"

namespace ghost::plugin {

// One group: whose files are protected.
struct ParitySet {
    struct File {
        std::string file;  // in the folder of snapshots
        uint64_t bytes = 0;
        static const schema::Record table;
    };
    struct Member {
        uint32_t id = 0;
        std::string node;  // its name
        std::vector<File> files;
        uint64_t length() const;  // bytes
        static const schema::Record table;
    };
    std::string id;        // its own in the snapshot's folder, "17.0"
    std::string snapshot;  // whose folder has its parity
    std::vector<Member> members;

    // Bytes of each row at most: the longest member's by the number of the others.
    uint64_t chunk() const;
    // Name in the folder of snapshots of what member `row` keeps.
    std::string file(size_t row) const;
    // Bytes of parity there; 0: nobody has data in this row, and there is no file.
    uint64_t parity_bytes(size_t row) const;
    static const schema::Record table;
};

// What all send to all, so that every row has its parity. `now`: the snapshot's folder as long as
// it is not complete.
std::vector<XorStream> parity_streams(const ParitySet& set, const std::string& now,
                                      uint64_t attempt);
// What the others send to `to`, so that a file of member `lost` is there again.
std::vector<XorStream> rebuild_streams(const ParitySet& set, size_t lost, size_t file, uint32_t to,
                                       uint64_t attempt);

// What a file of parity begins with, before its parity's checksum is known.
struct ParityHead {
    struct Member {
        std::string node;
        uint64_t bytes = 0;  // of its data
        static const schema::Record table;
    };
    std::string snapshot;
    std::string id;
    uint32_t row = 0;
    std::vector<Member> members;
    static const schema::Record table;
};
std::string parity_head(const ParitySet& set, size_t row);
// The head of a file of `size` bytes that begins with `begin`. corrupt: it is no parity, damaged or
// cut off; unsupported: of a newer format. `offset`: where its parity begins.
Result<ParityHead> read_parity_head(std::string_view begin, uint64_t size, uint64_t& offset,
                                    uint64_t& checksum);
// Writes the checksum of what lies behind the head into it.
Status seal_parity(int fd, const std::string& path);
// That it is whole, and the one of this name (ParitySet::file()).
Status check_parity(const std::string& path, const std::string& file);
// Makes a file, synced, of streams that are all for it; `where` says the path of a file of theirs.
// Done by one process, instead of by nodes that send.
Status make_of_streams(const std::vector<XorStream>& streams,
                       const std::function<std::string(const std::string& file)>& where,
                       const std::string& path);
// Whether a file of a snapshot's folder is named as parity is.
bool names_parity(std::string_view file);

// Exclusive or of streams, piece by piece (ISA-L, which takes aligned bytes only).
class XorBuffer {
  public:
    explicit XorBuffer(size_t most) : most_((most + alignment - 1) / alignment * alignment) {
        for (auto& one : parts_) one.resize(most_ + alignment);
    }
    char* old() { return aligned(0); }
    char* more() { return aligned(1); }
    // The two, in a place of its own.
    Result<const char*> combine(size_t bytes);

  private:
    static constexpr size_t alignment = 64;
    char* aligned(size_t which);

    size_t most_;
    std::vector<char> parts_[3];
};

}  // namespace ghost::plugin
