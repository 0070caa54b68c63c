// SPDX-License-Identifier: BSD-3-Clause
// What every resource has to do, run over all of them.
//
// usage: ghost_resource_test [--class-so FILE [--class-parameters TEXT]] [googletest's options]
//   also runs over the class of a shared object; {} in TEXT is a fresh folder ("{}/ghost")
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "base/clock.hpp"
#include "ghost-core/resource/compress.hpp"
#include "ghost-core/resource/file.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/network.hpp"
#include "ghost-core/resource/stripe.hpp"
#include "ghost-core/resource/tee.hpp"
#include "tests/contract/resource_ends.hpp"
#include "tests/contract/strangers.hpp"

namespace ghost::core {
namespace {

using Fault = FaultyResource::Fault;

// Under a sanitizer: less of everything.
bool is_slow() {
    return std::getenv("GHOST_TEST_SLOWER") != nullptr;
}

class ResourceContract : public ::testing::TestWithParam<Kind> {};

TEST_P(ResourceContract, ReadsAllBytesInOrderThenEnd) {
    // nothing, one byte, exact multiples of units and blocks, one more, and longer than all buffers
    std::vector<size_t> sizes = {0, 1, 1 << 20, (4 << 20) + 1, 12 << 20, (21 << 20) + 4097};
    if (is_slow()) sizes.resize(GetParam().in_pieces ? 3 : 4);
    if (GetParam().in_pieces) sizes.resize(std::min<size_t>(sizes.size(), 4));
    for (const size_t size : sizes) {
        auto ends = GetParam().make();
        const auto bytes = content(size);
        std::thread writer([&] {
            auto status = write_all(ends->out(), bytes);
            EXPECT_TRUE(status.ok()) << status.error().message();
        });
        if (!ends->flows()) writer.join();
        auto in = ends->in();
        ASSERT_TRUE(in.ok()) << in.error().message();
        std::vector<char> got(bytes.size());
        auto read = (*in)->read_all(got.data(), got.size());
        EXPECT_TRUE(read.ok()) << read.error().message();
        EXPECT_TRUE(got == bytes) << size;
        char more = 0;
        auto end = (*in)->read(&more, 1);
        ASSERT_TRUE(end.ok()) << end.error().message();
        EXPECT_EQ(*end, 0U);
        EXPECT_EQ((*in)->read_all(&more, 1).error().code, Code::corrupt);
        if (writer.joinable()) writer.join();
    }
}

INSTANTIATE_TEST_SUITE_P(All, ResourceContract, ::testing::ValuesIn(all_kinds()),
                         [](const auto& info) { return info.param.name; });

// What a specification names, in a folder.
class SpecifiedContract : public ::testing::TestWithParam<SpecifiedKind> {
  protected:
    std::unique_ptr<Resource> make(const Folder& folder, Use use) {
        auto made = registry_->make(put_folder(GetParam().specification, folder.path()), use);
        EXPECT_TRUE(made.ok()) << made.error().message();
        return made ? std::move(*made) : nullptr;
    }
    // Everything that can be read of what is there.
    Result<std::vector<char>> read_back(const Folder& folder) {
        auto in = make(folder, Use::read);
        GHOST_TRY(in->init());
        std::vector<char> out(1 << 20);
        size_t size = 0;
        for (;;) {
            auto got = in->read(out.data() + size, out.size() - size);
            if (!got) return got.error();
            if (*got == 0) break;
            size += *got;
            if (size == out.size()) out.resize(2 * size);
        }
        out.resize(size);
        return out;
    }
    std::unique_ptr<ResourceRegistry> registry_ = registry_for_tests();
};

TEST_P(SpecifiedContract, UnfinalizedGhostIsIncomplete) {
    Folder folder;
    {
        auto out = make(folder, Use::write);
        ASSERT_TRUE(out->init().ok());
        const auto bytes = content(5 << 20);
        ASSERT_TRUE(out->write(bytes.data(), bytes.size()).ok());
    }
    EXPECT_FALSE(read_back(folder).ok());
}

TEST_P(SpecifiedContract, OldGhostStaysUntilNewIsComplete) {
    Folder folder;
    const auto old = content(3 << 20), fresh = content(2 << 20);
    ASSERT_TRUE(write_all(*make(folder, Use::write), old).ok());
    {
        auto out = make(folder, Use::write);
        ASSERT_TRUE(out->init().ok());
        ASSERT_TRUE(out->write(fresh.data(), fresh.size()).ok());
    }
    auto found = read_back(folder);
    ASSERT_TRUE(found.ok()) << found.error().message();
    EXPECT_TRUE(*found == old);
    ASSERT_TRUE(write_all(*make(folder, Use::write), fresh).ok());
    found = read_back(folder);
    ASSERT_TRUE(found.ok()) << found.error().message();
    EXPECT_TRUE(*found == fresh);
}

TEST_P(SpecifiedContract, MissingGhostIsAnError) {
    Folder folder;
    auto in = make(folder, Use::read);
    EXPECT_FALSE(in->init().ok());
}

INSTANTIATE_TEST_SUITE_P(All, SpecifiedContract, ::testing::ValuesIn(specified_kinds()),
                         [](const auto& info) { return info.param.name; });

// Files of this size and no more, with the errno of a full disk's sibling: EFBIG.
class SizeLimit {
  public:
    explicit SizeLimit(rlim_t bytes) {
        signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit limit{bytes, before_.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~SizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

  private:
    rlimit before_{};
};

// The kernel takes a part of a transfer (a short write) and then no more.
TEST(FileResource, FailedWriteLeavesNoFile) {
    for (const size_t limit : {size_t{0}, size_t{100000}, (size_t{4} << 20) + 8192}) {
        Folder folder;
        const SizeLimit limited(limit);
        FileResource out(folder.path() + "/ghost", Use::write);
        auto status = write_all(out, content(9 << 20));
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().sys, EFBIG) << status.error().message();
        EXPECT_NE(status.error().message().find(folder.path() + "/ghost"), std::string::npos);
        EXPECT_FALSE(out.write("x", 1).ok()) << "no more after a failure";
        EXPECT_FALSE(out.finalize().ok());
        EXPECT_TRUE(folder.empty());
    }
}

// How many descriptors of this process are of the file with this number.
int held_here(ino_t number) {
    int held = 0;
    for (int fd = 0; fd < 256; fd++) {
        struct stat info {};
        held += fstat(fd, &info) == 0 && info.st_ino == number;
    }
    return held;
}

// Whoever is frozen until the ghost is complete does not wait for the old one's blocks.
TEST(FileResource, ReplacedGhostBlocksAreFreedAfterCommit) {
    const Folder folder;
    const auto path = folder.path() + "/ghost";
    struct stat old {};
    std::ofstream(path) << "old";
    ASSERT_EQ(stat(path.c_str(), &old), 0);
    {
        FileResource out(path, Use::write);
        ASSERT_TRUE(write_all(out, content(10000)).ok());
        struct stat now {};
        ASSERT_EQ(stat(path.c_str(), &now), 0);
        EXPECT_NE(now.st_ino, old.st_ino);
        EXPECT_EQ(held_here(old.st_ino), 1);
    }
    EXPECT_EQ(held_here(old.st_ino), 0);
}

TEST(FileResource, FileModeIsOwnerOnly) {
    Folder folder;
    const auto path = folder.path() + "/ghost";
    FileResource out(path, Use::write);
    ASSERT_TRUE(write_all(out, content(1000)).ok());
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    EXPECT_EQ(info.st_size, 1000);
    EXPECT_EQ(info.st_blocks * 512 / 65536, 0) << "what was allocated ahead is given back";
}

TEST(FileResource, FolderErrorsNameThePath) {
    Folder folder;
    FileResource a_folder(folder.path(), Use::write);
    EXPECT_EQ(a_folder.init().error().code, Code::invalid);
    FileResource missing(folder.path() + "/no/ghost", Use::write);
    EXPECT_EQ(missing.init().error().sys, ENOENT);
}

TEST(FileResource, PipeIsReadAndWritten) {
    Folder folder;
    const auto path = folder.path() + "/pipe";
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    const auto bytes = content(1 << 20);
    std::thread writer([&] {
        usleep(50'000);  // who reads comes first, and waits
        FileResource out(path, Use::write);
        EXPECT_TRUE(write_all(out, bytes).ok());
    });
    FileResource in(path, Use::read);
    ASSERT_TRUE(in.init().ok());
    std::vector<char> got(bytes.size());
    EXPECT_TRUE(in.read_all(got.data(), got.size()).ok());
    EXPECT_TRUE(got == bytes);
    writer.join();
}

// A composition over a memory resource that fails; its parts are the test's.
struct Composed {
    std::string name;
    std::function<std::unique_ptr<Resource>(std::unique_ptr<Resource>, Use)> make;
};

const std::vector<Composed>& compositions() {
    static const std::vector<Composed> all = {
        {"lz4",
         [](std::unique_ptr<Resource> inner, Use use) {
             return use == Use::read ? CompressResource::reader(std::move(inner))
                                     : CompressResource::writer(std::move(inner), Compression::lz4);
         }},
        {"zstd",
         [](std::unique_ptr<Resource> inner, Use use) {
             return use == Use::read
                        ? CompressResource::reader(std::move(inner))
                        : CompressResource::writer(std::move(inner), Compression::zstd, 1);
         }},
        {"encrypt",
         [](std::unique_ptr<Resource> inner, Use use) -> std::unique_ptr<Resource> {
             return std::make_unique<EncryptResource>(std::move(inner), use, test_key());
         }},
        {"sign",
         [](std::unique_ptr<Resource> inner, Use use) -> std::unique_ptr<Resource> {
             return use == Use::write
                        ? SignResource::writer(std::move(inner), signing_key(1))
                        : SignResource::reader(std::move(inner), signing_key(1)->public_key());
         }},
        {"stripe",
         [](std::unique_ptr<Resource> inner, Use use) -> std::unique_ptr<Resource> {
             std::vector<std::unique_ptr<Resource>> members;
             members.push_back(std::move(inner));
             return std::make_unique<StripeResource>(std::move(members), use);
         }},
        {"tee",
         [](std::unique_ptr<Resource> inner, Use use) -> std::unique_ptr<Resource> {
             return std::make_unique<TeeResource>(std::make_unique<MemoryResource>(),
                                                  std::move(inner), use);
         }},
    };
    return all;
}

class CompositionContract : public ::testing::TestWithParam<Composed> {
  protected:
    // A faulty resource over `memory`, given away.
    static std::unique_ptr<FaultyResource> faulty(MemoryResource& memory, Fault fault, uint64_t at,
                                                  int error = EIO) {
        memory.rewind();
        return std::make_unique<FaultyResource>(memory, fault, at, 3, error);
    }
    std::unique_ptr<Resource> make(std::unique_ptr<Resource> inner, Use use) {
        return GetParam().make(std::move(inner), use);
    }
};

TEST_P(CompositionContract, ErrorsBelowAreReported) {
    const auto bytes = content(is_slow() ? 2 << 20 : 5 << 20);
    MemoryResource whole;
    auto counting = faulty(whole, Fault::none, 0);
    auto* counted = counting.get();
    auto out = make(std::move(counting), Use::write);
    ASSERT_TRUE(write_all(*out, bytes).ok());
    const uint64_t operations = counted->operations(), size = whole.buffer().size();
    for (uint64_t at = 0; at < operations; at++) {
        MemoryResource memory;
        auto status = write_all(*make(faulty(memory, Fault::cut, at), Use::write), bytes);
        ASSERT_FALSE(status.ok()) << "operation " << at;
        EXPECT_EQ(status.error().code, Code::peer_lost) << status.error().message();
    }
    for (const int error : {EIO, ENOSPC})
        for (uint64_t at = 0; at < size; at += size / 13) {
            MemoryResource memory;
            auto status =
                write_all(*make(faulty(memory, Fault::fail_write, at, error), Use::write), bytes);
            ASSERT_FALSE(status.ok()) << "byte " << at;
            EXPECT_EQ(status.error().sys, error) << status.error().message();
        }
    MemoryResource memory;
    auto status = write_all(*make(faulty(memory, Fault::fail_finalize, 0), Use::write), bytes);
    EXPECT_FALSE(status.ok());
}

class CheckedContract : public CompositionContract {};

TEST_P(CheckedContract, CorruptionBelowIsDetected) {
    const auto bytes = content(is_slow() ? 1 << 20 : 3 << 20);
    MemoryResource whole;
    ASSERT_TRUE(write_all(*make(faulty(whole, Fault::none, 0), Use::write), bytes).ok());
    const uint64_t size = whole.buffer().size();
    std::vector<char> got(bytes.size());
    for (const auto fault : {Fault::flip_read, Fault::end_read, Fault::fail_read})
        for (uint64_t at = 0; at < size;
             at += at < 64 ? (is_slow() ? 7 : 1) : size / (is_slow() ? 9 : 97)) {
            auto in = make(faulty(whole, fault, at), Use::read);
            auto status = in->init();
            if (status.ok()) status = in->read_all(got.data(), got.size());
            char more = 0;
            if (status.ok()) {  // it can only be the end that is damaged
                auto end = in->read(&more, 1);
                if (!end.ok()) status = end.error();
            }
            if (status.ok()) {
                EXPECT_EQ(fault, Fault::flip_read);
                EXPECT_TRUE(got == bytes) << "byte " << at << ": wrong and not noticed";
            }
        }
}

INSTANTIATE_TEST_SUITE_P(All, CompositionContract, ::testing::ValuesIn(compositions()),
                         [](const auto& info) { return info.param.name; });

// A stripe or tee has no checksum of its own: what goes through it has.
INSTANTIATE_TEST_SUITE_P(All, CheckedContract,
                         ::testing::Values(compositions()[0], compositions()[1], compositions()[2],
                                           compositions()[3]),
                         [](const auto& info) { return info.param.name; });

TEST(Stripe, MixedAndSwappedSetsAreRefused) {
    Folder folder;
    ResourceRegistry registry;
    const auto at = [&](const std::string& text) { return put_folder(text, folder.path()); };
    for (const auto* set : {"stripe:{}/a1;{}/a2", "stripe:{}/b1;{}/b2"}) {
        auto out = registry.make(at(set), Use::write);
        ASSERT_TRUE(out.ok());
        ASSERT_TRUE(write_all(**out, content(3 << 20)).ok());
    }
    for (const auto* wrong :
         {"stripe:{}/a1;{}/b2", "stripe:{}/a2;{}/a1", "stripe:{}/a1", "stripe:{}/a1;{}/a2;{}/b1"}) {
        auto in = registry.make(at(wrong), Use::read);
        ASSERT_TRUE(in.ok());
        EXPECT_FALSE((*in)->init().ok()) << wrong;
    }
    auto one = registry.open(at("{}/a1"));
    EXPECT_EQ(one.error().code, Code::invalid);
}

TEST(Registry, CompressionAndEncryptionAreToldFromFile) {
    Folder folder;
    ResourceRegistry registry;
    const auto bytes = content(3 << 20);
    const auto key_path = folder.path() + "/key";
    for (const auto* spec : {"{}/g", "lz4:{}/g", "encrypt,key={}/key:{}/g",
                             "zstd:encrypt,key={}/key:{}/g", "encrypt,key={}/key:zstd:{}/g"}) {
        auto out = registry.make(put_folder(spec, folder.path()), Use::write);
        ASSERT_TRUE(out.ok());
        ASSERT_TRUE(write_all(**out, bytes).ok());
        const bool encrypted = std::string(spec).find("encrypt") != std::string::npos;
        std::shared_ptr<SecretKey> key;
        if (encrypted) {
            EXPECT_EQ(registry.open(folder.path() + "/g").error().code, Code::refused);
            auto loaded = SecretKey::load(key_path);
            ASSERT_TRUE(loaded.ok());
            key = *loaded;
        }
        auto in = registry.open(folder.path() + "/g", key);
        ASSERT_TRUE(in.ok()) << spec << in.error().message();
        std::vector<char> got(bytes.size());
        EXPECT_TRUE((*in)->read_all(got.data(), got.size()).ok());
        EXPECT_TRUE(got == bytes) << spec;
    }
}

TEST(Registry, DuplicateIdOrNameIsRefused) {
    ResourceRegistry registry;
    const auto make = [](const ResourceRegistry&, Use, const ResourceParameters&) {
        return Result<std::unique_ptr<Resource>>(std::make_unique<MemoryResource>());
    };
    EXPECT_TRUE(registry.add({1000, "mine", make}).ok());
    EXPECT_EQ(registry.add({1000, "other", make}).error().code, Code::refused);
    EXPECT_EQ(registry.add({1001, "mine", make}).error().code, Code::refused);
    EXPECT_EQ(registry.add({999, "low", make}).error().code, Code::invalid);
    EXPECT_EQ(registry.add({1002, "Not a name", make}).error().code, Code::invalid);
    EXPECT_EQ(registry.add({1002, "file", make}).error().code, Code::refused);
    EXPECT_TRUE(registry.make("mine:x", Use::write).ok());
    EXPECT_TRUE(registry.make(1000, Use::write, "x").ok());
    EXPECT_EQ(registry.make(77, Use::write, "x").error().code, Code::invalid);
    EXPECT_EQ(registry.make("lz4,level=x:/a", Use::write).error().code, Code::invalid);
    EXPECT_EQ(registry.make("tee:/a", Use::write).error().code, Code::invalid);
    EXPECT_FALSE(registry.load("/no/such.so").ok());
}

TEST(MemoryBuffer, BufferKeepsMemoryMapped) {
    for (const auto kind : {MemoryBuffer::Kind::own, MemoryBuffer::Kind::shared}) {
        auto buffer = std::make_shared<MemoryBuffer>(kind);
        ASSERT_TRUE(buffer->populate(5 << 20, 2).ok());
        const char* place = buffer->data();
        for (int round = 0; round < 2; round++) {
            MemoryResource out(buffer);
            ASSERT_TRUE(write_all(out, content(5 << 20)).ok());
            EXPECT_EQ(buffer->data(), place);
            buffer->clear();
        }
        ASSERT_TRUE(buffer->append("x", 1).ok());
        ASSERT_TRUE(buffer->reserve(200 << 20).ok());
        EXPECT_EQ(*buffer->data(), 'x');
    }
}

// Contents put where they are to stay, named later and in another order, then read by another one.
TEST(MemoryBuffer, ReservedSpaceIsReferencedNotCopied) {
    const auto all = content(9 << 20);
    for (const auto kind : {MemoryBuffer::Kind::own, MemoryBuffer::Kind::shared}) {
        auto buffer = std::make_shared<MemoryBuffer>(kind);
        for (int round = 0; round < 2; round++) {
            buffer->clear();
            MemoryResource out(buffer);
            ASSERT_TRUE(out.write(all.data(), 1000).ok());
            Space* space = out.space();
            ASSERT_NE(space, nullptr);
            ASSERT_TRUE(space->warm(1 << 20).ok());
            std::vector<iovec> pieces;  // what comes last is made first
            for (size_t end = all.size(); end > 2000;) {
                auto piece = space->take(std::min<size_t>(3 << 20, end - 2000));
                ASSERT_TRUE(piece.ok());
                ASSERT_GT(piece->bytes, 0U);
                end -= piece->bytes;
                std::memcpy(piece->at, all.data() + end, piece->bytes);
                pieces.insert(pieces.begin(), {piece->at, piece->bytes});
            }
            EXPECT_FALSE(out.holds(all.data()));
            const auto used = buffer->capacity();
            ASSERT_TRUE(out.write(all.data() + 1000, 1000).ok());
            for (auto& piece : pieces) {
                EXPECT_TRUE(out.holds(piece.iov_base));
                ASSERT_TRUE(out.write_gather(&piece, 1).ok());
            }
            EXPECT_EQ(buffer->capacity(), used);
            EXPECT_EQ(out.bytes(), all);
            std::vector<char> back(all.size());
            ASSERT_TRUE(out.read_all(back.data(), 1500).ok());
            ASSERT_TRUE(out.read_all(back.data() + 1500, all.size() - 1500).ok());
            EXPECT_EQ(back, all);
            EXPECT_EQ(*out.read(back.data(), 1), 0U);
        }
        if (kind == MemoryBuffer::Kind::own) continue;
        auto layout = buffer->layout();
        ASSERT_TRUE(layout.ok());
        EXPECT_GT(layout->count, 1U);
        auto other = MemoryBuffer::adopt(Fd(dup(buffer->fd())));
        ASSERT_TRUE(other.ok());
        ASSERT_TRUE((*other)->set_layout(*layout, all.size()).ok());
        const std::shared_ptr<MemoryBuffer> shared(std::move(*other));
        EXPECT_EQ(MemoryResource(shared).bytes(), all);
        // A list that cannot be right.
        for (const auto& wrong :
             {MemoryBuffer::Layout{layout->at, layout->count + 1},
              MemoryBuffer::Layout{layout->at, UINT64_MAX / 8},
              MemoryBuffer::Layout{shared->capacity() + 1, 1},
              MemoryBuffer::Layout{shared->capacity() - 8, 1}, MemoryBuffer::Layout{0, 7}})
            EXPECT_EQ(shared->set_layout(wrong, all.size()).error().code, Code::corrupt)
                << wrong.at << " " << wrong.count;
        EXPECT_EQ(shared->set_layout(*layout, all.size() + 1).error().code, Code::corrupt);
    }
}

TEST(NetworkResource, RefusesWrongSecretAndWrongToken) {
    auto listener = NetworkListener::listen("secret");
    ASSERT_TRUE(listener.ok());
    std::thread strangers([&] {
        auto first =
            NetworkResource::connect("127.0.0.1", listener->port(), listener->token(), "guess");
        EXPECT_FALSE(first.ok());
        auto second =
            NetworkResource::connect("127.0.0.1", listener->port(), std::string(64, '0'), "secret");
        ASSERT_FALSE(second.ok());
        EXPECT_EQ(second.error().code, Code::refused);
    });
    auto accepted = listener->accept(500);
    ASSERT_FALSE(accepted.ok());
    EXPECT_EQ(accepted.error().code, Code::timeout);
    strangers.join();
}

// Strangers who say nothing, and some who say a little again and again: whoever can prove himself
// is greeted beside them, and comes first.
TEST(NetworkResource, StrangersKeepNobodyWaiting) {
    auto listener = NetworkListener::listen("secret");
    ASSERT_TRUE(listener.ok());
    Strangers mute(static_cast<uint16_t>(listener->port()));
    mute.come(300, "");
    Strangers dripping(static_cast<uint16_t>(listener->port()));
    dripping.come(300, "G");
    ASSERT_EQ(dripping.came(), 300u);
    std::atomic<bool> over{false};
    std::thread others([&] {
        while (!over) {
            dripping.say("H");
            dripping.come(1, "GHOSTN01");
        }
    });
    const int64_t begun = monotonic_us();
    std::thread connecting([&] {
        auto source =
            NetworkResource::connect("127.0.0.1", listener->port(), listener->token(), "secret");
        EXPECT_TRUE(source.ok()) << source.error().message();
    });
    auto accepted = listener->accept(20'000);
    EXPECT_TRUE(accepted.ok());
    EXPECT_LT(monotonic_us() - begun, 2'000'000);
    over = true;
    others.join();
    connecting.join();
}

// However its bytes come: the whole of a greeting has its time, and accept() its own.
TEST(NetworkResource, DrippingStrangerDoesNotProlongTheWait) {
    auto listener = NetworkListener::listen("secret");
    ASSERT_TRUE(listener.ok());
    Strangers dripping(static_cast<uint16_t>(listener->port()));
    dripping.come(1, "G");
    std::atomic<bool> over{false};
    std::thread other([&] {
        for (int i = 0; !over; i++) {
            if (i % 10 == 0) dripping.say("H");
            usleep(20'000);
        }
    });
    const int64_t begun = monotonic_us();
    auto accepted = listener->accept(5'000);
    EXPECT_EQ(accepted.error().code, Code::timeout);
    EXPECT_LT(monotonic_us() - begun, 5'500'000);
    EXPECT_EQ(dripping.kept(), 0);  // after three seconds
    over = true;
    other.join();
}

TEST(NetworkResource, InterruptEndsAWaitingAccept) {
    auto listener = NetworkListener::listen("secret");
    ASSERT_TRUE(listener.ok());
    Strangers mute(static_cast<uint16_t>(listener->port()));
    mute.come(100, "G");
    std::thread other([&] {
        usleep(50'000);  // at some moment
        listener->interrupt();
    });
    auto accepted = listener->accept(20'000);
    other.join();
    EXPECT_EQ(accepted.error().code, Code::refused);
}

// A connected pair.
struct Pair {
    std::unique_ptr<NetworkResource> source, target;
    explicit Pair(NetworkOptions options = {}) {
        auto listener = NetworkListener::listen("secret", options);
        EXPECT_TRUE(listener.ok());
        std::thread connecting([&] {
            auto made = NetworkResource::connect("localhost", listener->port(), listener->token(),
                                                 "secret", options);
            if (made) source = std::move(*made);
        });
        auto accepted = listener->accept(5000);
        connecting.join();
        EXPECT_TRUE(accepted.ok());
        if (accepted) target = std::move(*accepted);
    }
};

TEST(NetworkResource, SilentPeerIsTimeout) {
    NetworkOptions options;
    options.operation_ms = 100;
    Pair pair(options);
    char byte = 0;
    auto got = pair.target->read(&byte, 1);
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code, Code::timeout);
}

TEST(NetworkResource, InterruptEndsAWaitingRead) {
    Pair pair;
    std::thread other([&] { pair.target->interrupt(); });
    char byte = 0;
    auto got = pair.target->read(&byte, 1);
    EXPECT_TRUE(!got.ok() || *got == 0);
    other.join();
}

}  // namespace
}  // namespace ghost::core

// The class to run over has to be known before googletest lists the cases.
int main(int argc, char** argv) {
    if (std::getenv("GHOST_TEST_SLOWER") != nullptr)
        std::puts("GHOST_TEST_SLOWER: shorter ghosts are written and read");
    std::vector<char*> rest;
    for (int i = 0; i < argc; i++) {
        const char* name = std::strcmp(argv[i], "--class-so") == 0 ? "GHOST_TEST_CLASS_SO"
                           : std::strcmp(argv[i], "--class-parameters") == 0
                               ? "GHOST_TEST_CLASS_PARAMETERS"
                               : nullptr;
        if (name != nullptr && i + 1 < argc)
            setenv(name, argv[++i], 1);
        else
            rest.push_back(argv[i]);
    }
    int count = static_cast<int>(rest.size());
    rest.push_back(nullptr);
    ::testing::InitGoogleTest(&count, rest.data());
    return RUN_ALL_TESTS();
}
