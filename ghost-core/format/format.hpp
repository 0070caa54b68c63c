// SPDX-License-Identifier: BSD-3-Clause
// The ghost stream: what a process tree looks like as a sequence of bytes (docs/IMAGE_FORMAT.md).
//
// A fixed header, then chunks, the last of which carries the table of contents and a digest over
// all. It is written and read in one pass. Every chunk carries its own checksum, so that nothing
// wrong is used even before the end has been seen.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

namespace ghost::core {

inline constexpr std::array<unsigned char, 8> ghost_magic = {0x89, 'G', 'H',  'O',
                                                             'S',  'T', '\r', '\n'};
inline constexpr uint32_t ghost_version = 2;
inline constexpr uint32_t ghost_endian_mark = 0x01020304;  // reads 0x04030201 on a foreign machine

// Largest payload of a chunk, bytes. Checked before anything is allocated or read.
inline constexpr uint32_t chunk_limit = 1 << 20;
// Largest name of a skeleton file or a parent, and number of skeleton files.
inline constexpr uint32_t name_limit = 255;
inline constexpr uint32_t skeleton_file_limit = 1 << 20;
// User addresses end here at the latest (57-bit paging).
inline constexpr uint64_t address_limit = uint64_t{1} << 56;

// 128 bits, random (the id of a ghost) or an XXH3-128 (its digest).
struct Hash128 {
    uint64_t low = 0, high = 0;
    bool operator==(const Hash128&) const = default;
    std::string hex() const;  // 32 digits, high part first
};

struct FileHeader {
    std::array<unsigned char, 8> magic = ghost_magic;
    uint32_t endian = ghost_endian_mark;
    uint32_t version = ghost_version;
    uint32_t machine = 0;    // e_machine of elf(5)
    uint32_t page_size = 0;  // bytes
    uint64_t flags = 0;      // GhostFlag
    Hash128 id;              // random; no two ghosts have the same
    uint64_t reserved = 0;   // 0
    uint64_t checksum = 0;   // XXH3-64 of what is before
};
static_assert(sizeof(FileHeader) == 64);

enum GhostFlag : uint64_t {
    flag_incremental = 1,  // a parent chunk follows; pages may be the parent's
    flag_rounds = 2,       // a page may be given again, the last time counts (pre-copy). Such a
                           // ghost can be imported, but be no parent
};
inline constexpr uint64_t known_flags = flag_incremental | flag_rounds;

enum class ChunkType : uint32_t {
    host = 1,            // JSON: facts about the machine it was made on
    metadata = 2,        // JSON: opaque; several chunks are one text
    skeleton_open = 3,   // payload: file name; number: file id, new
    skeleton_data = 4,   // payload: bytes; number: file id; offset: of the bytes in the file
    skeleton_close = 5,  // number: file id; offset: size of the file
    skeleton_end = 6,    // no further skeleton chunk follows; offset: bytes of memory, zeros
                         // included, that the pages chunks are made from
    pages = 7,           // number: inner pid; offset: count of runs; payload: runs, then contents
    end = 8,             // payload: ProcessSummary…, Contents
    present = 9,         // number: inner pid; offset: count of runs; payload: runs of pages that
                         // exist; ascending over all chunks of one process
    zero = 10,           // the same: runs of pages that hold only zeros, whatever the parent has
    parent = 11,         // number: generation; payload: Hash128 digest, Hash128 id, file name
};
inline constexpr size_t chunk_types = 12;  // largest value + 1
// Lower-case English name of a type, as `ghost inspect` prints it.
const char* chunk_name(ChunkType type);

struct ChunkHeader {
    uint32_t type = 0;
    uint32_t size = 0;      // bytes of payload
    uint64_t sequence = 0;  // 0, 1, 2, …
    uint64_t offset = 0;    // meaning by type
    int32_t number = 0;     // meaning by type
    uint32_t reserved = 0;  // 0
    uint64_t checksum = 0;  // XXH3-64 of the payload, seeded with XXH3-64 of what is before
};
static_assert(sizeof(ChunkHeader) == 40);

// Consecutive pages of one process.
struct PageRun {
    uint64_t start = 0;  // address
    uint64_t bytes = 0;  // multiple of the page size, not 0
    uint64_t end() const { return start + bytes; }
    bool operator==(const PageRun&) const = default;
};

// The ghost an incremental one builds on: what it does not say itself is found there.
struct ParentRef {
    Hash128 digest;          // Contents::digest of the parent
    Hash128 id;              // FileHeader::id of the parent: known before all of it is read
    int32_t generation = 1;  // parents up to the full ghost: 1 if the parent is one
    std::string name;        // file name without folder, a hint; may be empty
};

// The head of a ghost: what is known before the skeleton.
struct GhostHead {
    Hash128 id;
    bool rounds = false;
    std::string host;      // JSON, host.hpp
    std::string metadata;  // JSON
    std::optional<ParentRef> parent;
};

// What a ghost holds of one process; one entry for each that has pages, present or zero chunks,
// ascending by number.
struct ProcessSummary {
    int32_t inner_pid = 0;
    uint32_t reserved = 0;
    uint64_t page_bytes = 0;     // contents in pages chunks
    uint64_t present_bytes = 0;  // named by present chunks
    uint64_t zero_bytes = 0;     // named by zero chunks
};
static_assert(sizeof(ProcessSummary) == 32);

// The last bytes of a ghost. `sections` leads a reader of a file straight to a section.
struct Contents {
    struct Section {
        uint64_t first = 0;  // offset in the stream of the header of its first chunk; 0: none
        uint64_t chunks = 0;
        uint64_t bytes = 0;  // of payload
    };
    std::array<Section, chunk_types> sections{};  // by ChunkType; `end` itself is not counted
    uint64_t page_bytes = 0;                      // contents in pages chunks
    uint64_t zero_bytes = 0;                      // pages left out because they hold only zeros
    uint64_t present_bytes = 0;                   // named by present chunks
    uint64_t processes = 0;                       // number of ProcessSummary before this
    uint64_t stream_bytes = 0;  // of the stream before the header of the end chunk
    Hash128 digest;             // XXH3-128 of all headers (file's and chunks') before the end
                                // chunk; those cover the payloads
};
static_assert(sizeof(Contents) == 24 * chunk_types + 56);
inline constexpr size_t process_limit = (chunk_limit - sizeof(Contents)) / sizeof(ProcessSummary);

}  // namespace ghost::core
