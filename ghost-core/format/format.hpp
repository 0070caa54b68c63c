// The ghost stream: what a process tree looks like as a sequence of bytes (docs/IMAGE_FORMAT.md).
//
// A fixed header, then chunks, the last of which carries the table of contents and a digest over
// all. It is written and read in one pass. Every chunk carries its own checksum, so that nothing
// wrong is used even before the end has been seen.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

namespace ghost::core {

inline constexpr std::array<unsigned char, 8> ghost_magic = {0x89, 'G', 'H',  'O',
                                                             'S',  'T', '\r', '\n'};
inline constexpr uint32_t ghost_version = 1;
inline constexpr uint32_t ghost_endian_mark = 0x01020304;  // reads 0x04030201 on a foreign machine

// Largest payload of a chunk, bytes. Checked before anything is allocated or read.
inline constexpr uint32_t chunk_limit = 1 << 20;
// Largest name of a skeleton file, and number of them.
inline constexpr uint32_t name_limit = 255;
inline constexpr uint32_t skeleton_file_limit = 1 << 20;

struct FileHeader {
    std::array<unsigned char, 8> magic = ghost_magic;
    uint32_t endian = ghost_endian_mark;
    uint32_t version = ghost_version;
    uint32_t machine = 0;    // e_machine of elf(5)
    uint32_t page_size = 0;  // bytes
    uint64_t reserved = 0;   // 0
    uint64_t checksum = 0;   // XXH3-64 of what is before
};
static_assert(sizeof(FileHeader) == 40);

enum class ChunkType : uint32_t {
    host = 1,            // JSON: facts about the machine it was made on
    metadata = 2,        // JSON: opaque; several chunks are one text
    skeleton_open = 3,   // payload: file name; number: file id, new
    skeleton_data = 4,   // payload: bytes; number: file id; offset: of the bytes in the file
    skeleton_close = 5,  // number: file id; offset: size of the file
    skeleton_end = 6,    // no further skeleton chunk follows; offset: bytes of memory, zeros
                         // included, that the pages chunks are made from
    pages = 7,           // number: inner pid; offset: count of runs; payload: runs, then contents
    end = 8,             // payload: Contents
};
inline constexpr size_t chunk_types = 9;  // largest value + 1

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

// One run of a pages chunk: consecutive pages of the process `number`.
struct PageRun {
    uint64_t start = 0;  // address
    uint64_t bytes = 0;  // multiple of the page size, not 0
};

// Payload of the last chunk.
struct Contents {
    struct Section {
        uint64_t chunks = 0;
        uint64_t bytes = 0;  // of payload
    };
    std::array<Section, chunk_types> sections{};  // by ChunkType; `end` itself is not counted
    uint64_t page_bytes = 0;                      // contents in pages chunks
    uint64_t zero_bytes = 0;                      // pages left out because they hold only zeros
    uint64_t digest_low = 0, digest_high = 0;     // XXH3-128 of all headers (file's and chunks')
                                                  // before this chunk; those cover the payloads
};
static_assert(sizeof(Contents) == 16 * chunk_types + 32);

}  // namespace ghost::core
