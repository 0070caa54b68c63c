// SPDX-License-Identifier: BSD-3-Clause
#include "tests/fuzz/targets.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.hpp"
#include "base/hash.hpp"
#include "base/lender.hpp"
#include "ghost-core/format/host.hpp"
#include "ghost-core/format/merge.hpp"
#include "ghost-core/format/summary.hpp"
#include "ghost-core/format/writer.hpp"
#include "ghost-core/criu/criu_images.hpp"
#include "ghost-core/resource/compress.hpp"
#include "ghost-core/resource/encrypt.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/sign.hpp"
#include "ghost-core/resource/stripe.hpp"
#include "tools/ghost_skeleton.hpp"

namespace ghost::fuzz {
namespace {

using namespace ghost::core;

class View : public ByteSource {
  public:
    View(const uint8_t* data, size_t size) : data_(data), left_(size) {}
    Result<size_t> read(void* to, size_t size) override {
        const size_t part = std::min(size, left_);
        if (part > 0) std::memcpy(to, data_, part);
        data_ += part;
        left_ -= part;
        return part;
    }

  private:
    const uint8_t* data_;
    size_t left_;
};

Bytes to_bytes(const MemoryResource& memory) {
    const auto content = memory.bytes();
    return {content.begin(), content.end()};
}

// A memory resource with these bytes.
std::unique_ptr<Resource> memory_of(const uint8_t* data, size_t size) {
    return std::make_unique<MemoryResource>(std::vector<char>(
        reinterpret_cast<const char*>(data), reinterpret_cast<const char*>(data) + size));
}

void write_pages(GhostWriter& writer, int pid, uint64_t address, unsigned count) {
    std::string content(count * this_page_size(), static_cast<char>('a' + count));
    (void)writer.pages(pid, {{address, content.size()}}, {{content.data(), content.size()}});
}

// A small pstree.img: two magic numbers, then one entry {pid 1, ppid 0, threads 1}.
std::string small_image() {
    const char entry[] = {8, 1, 16, 0, 24, 1, 32, 1, 40, 1};
    std::string out(8, 'm');
    const uint32_t size = sizeof entry;
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    return out.append(entry, sizeof entry);
}

void write_ghost(ByteSink& out, const std::optional<ParentRef>& parent, unsigned variant) {
    const uint64_t page = this_page_size();
    GhostWriter writer(out);
    GhostHead head;
    head.host = R"({"flags":[]})";
    head.metadata = R"({"x":1})";
    head.parent = parent;
    (void)writer.head(head);
    (void)writer.skeleton_open(0, "pstree.img");
    if (variant % 3 == 1) write_pages(writer, 1, 0x10000, 1);
    const auto image = small_image();
    (void)writer.skeleton_data(0, 0, image.data(), image.size());
    (void)writer.skeleton_close(0, image.size());
    (void)writer.skeleton_end(4 * page);
    (void)writer.present(1, std::vector<PageRun>{{0x10000, 8 * page}, {0x90000, page}});
    if (variant % 3 == 2) (void)writer.zero(1, std::vector<PageRun>{{0x12000, 2 * page}});
    write_pages(writer, 1, 0x14000, 1 + variant % 2);
    (void)writer.end();
}

ParentRef seed_parent() {
    return {{1, 2}, {3, 4}, 1, "parent"};
}

Bytes ghost_seed(unsigned variant) {
    MemoryResource out;
    write_ghost(out, variant % 2 ? std::optional(seed_parent()) : std::nullopt, variant);
    return to_bytes(out);
}

// Walks the chunks as far as they make sense and gives each the checksum and number it should have;
// what is left over is cut off, and the table of contents is right in its digest and size.
void repair_ghost(Bytes& bytes) {
    if (bytes.size() < sizeof(FileHeader)) return;
    FileHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    header.magic = ghost_magic;
    header.endian = ghost_endian_mark;
    header.version = ghost_version;
    header.machine = this_machine();
    header.page_size = this_page_size();
    header.flags &= known_flags;
    header.reserved = 0;
    header.checksum = XXH3_64bits(&header, offsetof(FileHeader, checksum));
    std::memcpy(bytes.data(), &header, sizeof header);
    XXH3_state_t digest;
    XXH3_INITSTATE(&digest);
    XXH3_128bits_reset(&digest);
    XXH3_128bits_update(&digest, &header, sizeof header);
    uint64_t number = 0;
    for (size_t at = sizeof header; at + sizeof(ChunkHeader) <= bytes.size();) {
        ChunkHeader chunk;
        std::memcpy(&chunk, bytes.data() + at, sizeof chunk);
        chunk.sequence = number++;
        chunk.reserved = 0;
        chunk.size =
            static_cast<uint32_t>(std::min<size_t>(chunk.size, bytes.size() - at - sizeof chunk));
        auto* payload = bytes.data() + at + sizeof chunk;
        if (chunk.type == static_cast<uint32_t>(ChunkType::end) && chunk.size >= sizeof(Contents)) {
            Contents contents;
            std::memcpy(&contents, payload + chunk.size - sizeof contents, sizeof contents);
            const auto all = XXH3_128bits_digest(&digest);
            contents.digest = {all.low64, all.high64};
            contents.stream_bytes = at;
            std::memcpy(payload + chunk.size - sizeof contents, &contents, sizeof contents);
        }
        const auto seed = XXH3_64bits(&chunk, offsetof(ChunkHeader, checksum));
        chunk.checksum = XXH3_64bits_withSeed(payload, chunk.size, seed);
        std::memcpy(bytes.data() + at, &chunk, sizeof chunk);
        XXH3_128bits_update(&digest, &chunk, sizeof chunk);
        at += sizeof chunk + chunk.size;
    }
}

bool read_ghost(const uint8_t* data, size_t size) {
    View view(data, size);
    GhostReader reader(view);
    GhostHead head;
    if (!reader.head(head).ok()) return false;
    (void)host_differences(head.host);
    static std::vector<uint64_t> space(chunk_limit / sizeof(uint64_t));
    auto* buffer = reinterpret_cast<char*>(space.data());
    for (;;) {
        auto chunk = reader.next(buffer);
        if (!chunk) return false;
        if (chunk->type == ChunkType::end) return true;
        if (chunk->type == ChunkType::skeleton_data)
            (void)lazy_ranges({buffer, chunk->size});  // whatever it is
    }
}

// Head and end of a file, and its skeleton by chunk headers alone: `ghost inspect`.
bool inspect_ghost(const uint8_t* data, size_t size) {
    static const Fd file(memfd_create("fuzz", MFD_CLOEXEC));
    if (ftruncate(file.get(), 0) != 0 ||
        pwrite(file.get(), data, size, 0) != static_cast<ssize_t>(size))
        return false;
    auto summary = read_summary(file.get());
    if (!summary) return false;
    tools::SkeletonFiles files;
    const auto section = static_cast<size_t>(ChunkType::skeleton_open);
    if (!tools::read_skeleton(file.get(), summary->contents.sections[section].first, files).ok())
        return false;
    (void)files.processes();
    return true;
}

// The bytes are the child of a good ghost, or the other way round.
bool merge_bytes(const uint8_t* data, size_t size) {
    static const Bytes full = [] {
        MemoryResource out;
        write_ghost(out, std::nullopt, 0);
        return to_bytes(out);
    }();
    for (const bool child : {true, false}) {
        std::vector<OpenGhost> chain;
        auto first = OpenGhost::open(child ? std::make_unique<View>(data, size)
                                           : std::make_unique<View>(full.data(), full.size()));
        auto second = OpenGhost::open(child ? std::make_unique<View>(full.data(), full.size())
                                            : std::make_unique<View>(data, size));
        if (!first || !second) continue;
        // As if each were the one that is named.
        ParentRef parent = first->head.parent.value_or(seed_parent());
        parent.id = second->head.id;
        parent.generation = second->head.parent ? second->head.parent->generation + 1 : 1;
        first->head.parent = parent;
        second->head.parent.reset();
        chain.push_back(std::move(*first));
        chain.push_back(std::move(*second));
        chain[1].head.parent.reset();
        chain[0].head.parent->generation = 1;
        MemoryResource out;
        (void)merge_ghosts(chain, out);
    }
    return false;
}

bool read_resource(Resource& in) {
    if (!in.init().ok()) return false;
    std::vector<char> space(100000);
    for (;;) {
        auto got = in.read(space.data(), space.size());
        if (!got) return false;
        if (*got == 0) return true;
    }
}

Bytes packed_seed(Compression algorithm, unsigned variant) {
    auto memory = std::make_shared<MemoryBuffer>();
    auto out = CompressResource::writer(std::make_unique<MemoryResource>(memory), algorithm, 1);
    std::string text(1000 * (1 + variant % 3), 'x');
    for (size_t i = 0; i < text.size(); i += 3) text[i] = static_cast<char>(i * 7);
    (void)out->init();
    (void)out->write(text.data(), text.size());
    (void)out->finalize();
    return to_bytes(MemoryResource(memory));
}

Bytes compress_seed(unsigned variant) {
    return packed_seed(variant % 2 ? Compression::lz4 : Compression::zstd, variant / 2);
}

bool read_compressed(const uint8_t* data, size_t size) {
    return read_resource(*CompressResource::reader(memory_of(data, size)));
}

std::shared_ptr<SecretKey> fuzz_key() {
    return std::make_shared<SecretKey>(std::array<unsigned char, 32>{7});
}

Bytes encrypt_seed(unsigned variant) {
    auto memory = std::make_shared<MemoryBuffer>();
    EncryptResource out(std::make_unique<MemoryResource>(memory), Use::write, fuzz_key());
    const std::string text(100 * (variant % 5), 's');
    (void)out.init();
    (void)out.write(text.data(), text.size());
    (void)out.finalize();
    return to_bytes(MemoryResource(memory));
}

const SigningKey& fuzz_signer() {
    static const SigningKey key(std::array<unsigned char, 32>{7});
    return key;
}

Bytes signed_seed(unsigned variant) {
    auto memory = std::make_shared<MemoryBuffer>();
    const std::shared_ptr<const SigningKey> key(&fuzz_signer(), [](const SigningKey*) {});
    auto out = SignResource::writer(std::make_unique<MemoryResource>(memory), key);
    const std::string text(100 * (variant % 5), 's');
    (void)out->init();
    (void)out->write(text.data(), text.size());
    (void)out->finalize();
    return to_bytes(MemoryResource(memory));
}

bool read_signed(const uint8_t* data, size_t size) {
    (void)read_resource(*SignResource::reader(memory_of(data, size), std::nullopt));
    return read_resource(*SignResource::reader(memory_of(data, size), fuzz_signer().public_key()));
}

bool read_encrypted(const uint8_t* data, size_t size) {
    EncryptResource in(memory_of(data, size), Use::read, fuzz_key());
    return read_resource(in);
}

Bytes stripe_seed(unsigned variant) {
    auto memory = std::make_shared<MemoryBuffer>();
    std::vector<std::unique_ptr<Resource>> members;
    members.push_back(std::make_unique<MemoryResource>(memory));
    StripeResource out(std::move(members), Use::write);
    const std::string text(1000 * (variant % 5), 't');
    (void)out.init();
    (void)out.write(text.data(), text.size());
    (void)out.finalize();
    return to_bytes(MemoryResource(memory));
}

bool read_striped(const uint8_t* data, size_t size) {
    std::vector<std::unique_ptr<Resource>> members;
    members.push_back(memory_of(data, size));
    StripeResource in(std::move(members), Use::read);
    return read_resource(in);
}

// What users send to ghostd, which is root's, and what it answers them.
Bytes loan_seed(unsigned variant) {
    const auto request = loan_request(static_cast<Loan>(variant % 3));
    const auto answer = loan_answer(static_cast<Verdict>(variant % 7), variant, 0);
    const auto* from = variant < 6 ? reinterpret_cast<const uint8_t*>(&request)
                                   : reinterpret_cast<const uint8_t*>(&answer);
    return {from, from + sizeof request};
}

bool read_loan(const uint8_t* data, size_t size) {
    const auto what = read_loan_request(data, size);
    if (what) {
        const auto again = loan_request(*what);
        if (size != sizeof again || std::memcmp(&again, data, size) != 0) __builtin_trap();
    }
    const bool answered = read_loan_answer(data, size).ok();
    return what || answered;
}

}  // namespace

const std::vector<Target>& targets() {
    static const std::vector<Target> all = {
        {"reader", read_ghost, ghost_seed, repair_ghost, true},
        {"inspect", inspect_ghost, ghost_seed, repair_ghost, false},
        {"merge", merge_bytes, ghost_seed, repair_ghost, false},
        {"compressed", read_compressed, compress_seed, nullptr, false},
        {"encrypted", read_encrypted, encrypt_seed, nullptr, true},
        {"signed", read_signed, signed_seed, nullptr, true},
        {"striped", read_striped, stripe_seed, nullptr, false},
        {"loan", read_loan, loan_seed, nullptr, false},
    };
    return all;
}

}  // namespace ghost::fuzz
