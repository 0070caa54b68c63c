// SPDX-License-Identifier: BSD-3-Clause
// Filters by themselves: what one end encodes the other decodes, and nothing else passes.
#include <gtest/gtest.h>

#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kernet-btl/filter/backup_format.hpp"
#include "kernet-btl/filter/list.hpp"
#include "kernet-btl/wire/frame.hpp"
#include "tests/unit/kernet_filters.hpp"

namespace {

using namespace kernet::filter;
using Bytes = std::vector<uint8_t>;
using kernettest::checked_filter;
using kernettest::Folder;
using kernettest::read_backup;

SocketId socket_id(uint32_t rank, uint32_t peer) {
    SocketId id;
    id.job = "7";
    id.life = "1";
    id.secret.fill(0x5a);
    id.rank = rank;
    id.peer = peer;
    return id;
}

// Rank 0's and rank 1's ends of one stream.
struct Ends {
    explicit Ends(const std::string& text) : list(parse(text)) {}
    static List parse(const std::string& text) {
        auto made = List::parse(text);
        if (!made) {
            ADD_FAILURE() << made.error().message();
            return {};
        }
        auto ready = made->prepare();
        if (!ready) ADD_FAILURE() << ready.error().message();
        return std::move(*made);
    }
    Bytes encode(const MessageId& id, const Bytes& plain) {
        Bytes out(a.bound(plain.size()) + 16, 0xee);  // and what must not be written to
        const size_t made = a.encode(id, plain.data(), plain.size(), out.data(), scratch);
        EXPECT_LE(made, a.bound(plain.size()));
        for (size_t i = out.size() - 16; i < out.size(); i++) EXPECT_EQ(out[i], 0xee);
        out.resize(made);
        return out;
    }
    // Nothing if it is refused.
    std::optional<Bytes> decode(const MessageId& id, const Bytes& sealed, size_t room) {
        Bytes out(room + 16, 0xee);
        auto made = b.decode(id, sealed.data(), sealed.size(), out.data(), room, scratch);
        for (size_t i = room; i < out.size(); i++) EXPECT_EQ(out[i], 0xee);
        if (!made) return std::nullopt;
        EXPECT_LE(*made, room);
        out.resize(*made);
        return out;
    }

    List list;
    Chain a = list.chain(socket_id(0, 1)), b = list.chain(socket_id(1, 0));
    Scratch scratch;
};

const MessageId here{0, 1, 5, 65, Part::whole};

// Half of them compress.
Bytes some_bytes(size_t size, unsigned seed) {
    std::mt19937 random(seed);
    Bytes out(size);
    for (auto& byte : out) byte = static_cast<uint8_t>(seed % 2 ? random() : random() % 3);
    return out;
}

// --- lists ---

TEST(FilterList, NameListsFiltersBothEndsNeed) {
    auto name = [](const char* text) {
        auto list = List::parse(text);
        return list.ok() ? list->name() : list.error().message();
    };
    EXPECT_EQ(name(""), "none");
    EXPECT_EQ(name("none"), "none");
    EXPECT_EQ(name("crypto"), "crypto=xchacha20poly1305");
    EXPECT_EQ(name("compress"), "compress=lz4");
    EXPECT_EQ(name("backup=/a,compress=zstd,crypto=aes256gcm"),
              "backup=/a,compress=zstd,crypto=aes256gcm");
    // What is sealed cannot be compressed.
    EXPECT_EQ(name("crypto,compress"), "compress=lz4,crypto=xchacha20poly1305");
    EXPECT_EQ(name("backup=/a,crypto,backup=/b,compress"),
              "backup=/a,compress=lz4,crypto=xchacha20poly1305,backup=/b");
    EXPECT_EQ(List::parse("none")->digest(), 0U);
    EXPECT_NE(List::parse("crypto")->digest(), 0U);
    EXPECT_NE(List::parse("crypto")->digest(), List::parse("crypto=aes256gcm")->digest());
    EXPECT_EQ(List::parse("crypto,compress")->digest(), List::parse("compress,crypto")->digest());
}

TEST(FilterList, InvalidFilterIsRefusedByName) {
    for (const char* text : {"zip", "crypto,zip", "zip,crypto", "cryptox", "crypto=rot13",
                             "compress=rar", "backup", "backup=relative", "so", "so:relative.so",
                             "so:", "crypto,", ",crypto", "none,crypto", " crypto"}) {
        auto list = List::parse(text);
        ASSERT_FALSE(list.ok()) << text;
        const std::string said = list.error().message();
        EXPECT_NE(said.find("filter \""), std::string::npos) << said;
        if (std::string(text).find("zip") != std::string::npos) {
            EXPECT_NE(said.find("zip\""), std::string::npos) << said;
        }
    }
}

TEST(FilterList, InvalidSharedObjectIsRefused) {
    for (const std::string& path :
         {std::string("/nowhere/filter.so"), std::string("/etc/passwd")}) {
        auto list = List::parse("so:" + path);
        ASSERT_TRUE(list.ok());
        auto ready = list->prepare();
        ASSERT_FALSE(ready.ok());
        EXPECT_NE(ready.error().message().find(path), std::string::npos) << ready.error().message();
    }
    // A library, but no filter.
    auto list = List::parse("so:libsodium.so.23");
    EXPECT_FALSE(list.ok());
}

// --- every chain ---

class FilterChain : public testing::TestWithParam<const char*> {
  protected:
    Folder folder;
    Ends ends{kernettest::with_places(GetParam(), folder)};
};

TEST_P(FilterChain, DecodesEverySize) {
    std::vector<size_t> sizes;
    for (size_t size = 0; size < 700; size++) sizes.push_back(size);
    for (size_t size : {4095, 4096, 65536, 100'000, 131'072, 131'072 + 700}) sizes.push_back(size);
    MessageId id = here;
    for (size_t size : sizes) {
        for (unsigned seed : {1U, 2U}) {
            id.number++;
            const Bytes plain = some_bytes(size, seed);
            const Bytes sealed = ends.encode(id, plain);
            ASSERT_EQ(ends.decode(id, sealed, size), plain) << size;
            ASSERT_EQ(ends.decode(id, sealed, size + 100), plain) << size;
            if (size > 0) {
                ASSERT_FALSE(ends.decode(id, sealed, size - 1)) << size;
            }
        }
    }
}

TEST_P(FilterChain, DecodesAfterEveryWakeup) {
    MessageId id = here;
    for (int i = 0; i < 20; i++) {
        id.number++;
        const Bytes plain = some_bytes(1000, static_cast<unsigned>(i));
        const Bytes sealed = ends.encode(id, plain);
        for (Chain* chain : {&ends.a, &ends.b}) {
            if (i % 3 == (chain == &ends.a ? 0 : 1)) continue;
            chain->suspend();
            chain->wakeup();
        }
        ASSERT_EQ(ends.decode(id, sealed, 1000), plain);
    }
}

// Neither a crash nor a write out of bounds, whatever a stranger sends.
TEST_P(FilterChain, MalformedFramesAreRefused) {
    std::mt19937 random(3);
    for (int i = 0; i < 3000; i++) {
        Bytes sealed = ends.encode(here, some_bytes(random() % 500, static_cast<unsigned>(i)));
        if (sealed.empty()) continue;
        for (int spoils = 0; spoils < 3; spoils++) {
            sealed[random() % sealed.size()] = static_cast<uint8_t>(random());
        }
        sealed.resize(random() % (sealed.size() + 10));
        ends.decode(here, sealed, random() % 600);
    }
}

INSTANTIATE_TEST_SUITE_P(Chains, FilterChain, testing::ValuesIn(kernettest::all_chains),
                         [](const auto& info) { return kernettest::case_name(info.param); });

// --- crypto ---

class FilterCrypto : public testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        auto list = List::parse(GetParam());
        ASSERT_TRUE(list.ok());
        if (auto ready = list->prepare(); !ready) GTEST_SKIP() << ready.error().message();
        ends = std::make_unique<Ends>(GetParam());
    }
    std::unique_ptr<Ends> ends;
};

TEST_P(FilterCrypto, AnyFlippedBitIsRefused) {
    const Bytes plain = some_bytes(100, 1);
    Bytes sealed = ends->encode(here, plain);
    for (size_t bit = 0; bit < sealed.size() * 8; bit++) {
        sealed[bit / 8] ^= static_cast<uint8_t>(1U << bit % 8);
        EXPECT_FALSE(ends->decode(here, sealed, 100)) << bit;
        sealed[bit / 8] ^= static_cast<uint8_t>(1U << bit % 8);
    }
    EXPECT_EQ(ends->decode(here, sealed, 100), plain);
    for (size_t size = 0; size < sealed.size(); size++) {
        EXPECT_FALSE(ends->decode(here, Bytes(sealed.begin(), sealed.begin() + size), 100)) << size;
    }
    sealed.push_back(0);
    EXPECT_FALSE(ends->decode(here, sealed, 101));
}

TEST_P(FilterCrypto, WrongPlaceInStreamIsRefused) {
    const Bytes sealed = ends->encode(here, some_bytes(100, 1));
    void (*const change[])(MessageId&) = {
        [](MessageId& id) { id.from++; },   [](MessageId& id) { id.to++; },
        [](MessageId& id) { id.number++; }, [](MessageId& id) { id.number += 1ULL << 32; },
        [](MessageId& id) { id.tag++; },    [](MessageId& id) { id.part = Part::piece; },
    };
    for (auto* one : change) {
        MessageId other = here;
        one(other);
        EXPECT_FALSE(ends->decode(other, sealed, 100));
    }
}

TEST_P(FilterCrypto, WrongKeyIsRefused) {
    const Bytes sealed = ends->encode(here, some_bytes(100, 1));
    Bytes out(100);
    auto opens = [&](const SocketId& id) {
        Chain chain = ends->list.chain(id);
        return chain.decode(here, sealed.data(), sealed.size(), out.data(), 100, ends->scratch)
            .ok();
    };
    EXPECT_TRUE(opens(socket_id(1, 0)));
    EXPECT_FALSE(opens(socket_id(0, 1)));  // the other direction
    EXPECT_FALSE(opens(socket_id(1, 2)));
    EXPECT_FALSE(opens(socket_id(2, 0)));
    SocketId other = socket_id(1, 0);
    other.secret[31] ^= 1;
    EXPECT_FALSE(opens(other));
    other = socket_id(1, 0);
    other.job = "8";
    EXPECT_FALSE(opens(other));
    other = socket_id(1, 0);
    other.life = "2";
    EXPECT_FALSE(opens(other));
}

// What was sealed before a restart is sent again as it is; behind the first frame of the new life
// nothing of those before it is taken, from whoever has recorded it or lives on in them.
TEST_P(FilterCrypto, FramesOfEarlierLivesComeBeforeTheNew) {
    const auto begin = [&](const char* life) {
        SocketId a = socket_id(0, 1), b = socket_id(1, 0);
        a.life = b.life = life;
        ends->a.begin_life(a);
        ends->b.begin_life(b);
    };
    const Bytes plain = some_bytes(50, 1);
    const Bytes first = ends->encode(here, plain);
    begin("2");
    const Bytes second = ends->encode(here, plain);
    begin("3");
    const Bytes third = ends->encode(here, plain);
    EXPECT_EQ(ends->decode(here, first, 50), plain);
    EXPECT_EQ(ends->decode(here, second, 50), plain);
    EXPECT_FALSE(ends->decode(here, first, 50));
    EXPECT_EQ(ends->decode(here, third, 50), plain);
    EXPECT_FALSE(ends->decode(here, second, 50));
    EXPECT_EQ(ends->decode(here, third, 50), plain);
}

// A snapshot is continued any number of times, and each time it counts from the same number.
TEST_P(FilterCrypto, NonceIsNeverReusedAfterContinuation) {
    std::set<Bytes> nonces, salts;
    MessageId id = here;
    for (int life = 0; life < 100; life++) {
        ends->a.suspend();
        ends->a.wakeup();
        for (int i = 0; i < 100; i++) {
            id.number = static_cast<uint64_t>(i + 1);
            const Bytes sealed = ends->encode(id, {});
            EXPECT_TRUE(nonces.emplace(sealed.begin(), sealed.begin() + 24).second);
            salts.emplace(sealed.begin(), sealed.begin() + 16);
            EXPECT_TRUE(ends->decode(id, sealed, 0));
        }
    }
    EXPECT_EQ(salts.size(), 100U);
}

// The peer took some before the sender was continued: what was sealed under several salts opens.
TEST_P(FilterCrypto, MessagesAcrossWakeupAreOpened) {
    const Bytes plain = some_bytes(50, 1);
    MessageId later = here;
    later.number++;
    const Bytes before = ends->encode(here, plain);
    ends->a.wakeup();
    const Bytes after = ends->encode(later, plain);
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(ends->decode(here, before, 50), plain);
        EXPECT_EQ(ends->decode(later, after, 50), plain);
    }
}

INSTANTIATE_TEST_SUITE_P(Ciphers, FilterCrypto, testing::Values("crypto", "crypto=aes256gcm"),
                         [](const auto& info) { return kernettest::case_name(info.param); });

// --- compress ---

TEST(FilterCompress, CompressibleShrinksOthersDoNotGrow) {
    for (const char* text : {"compress", "compress=zstd"}) {
        Ends ends(text);
        EXPECT_LT(ends.encode(here, Bytes(100'000, 7)).size(), 1000U) << text;
        EXPECT_EQ(ends.encode(here, some_bytes(100'000, 1)).size(), 100'001U) << text;
        EXPECT_EQ(ends.encode(here, {}).size(), 1U) << text;
        // Made by the other one: both ends have the same list, so this is a mistake.
        Ends other(std::string(text) == "compress" ? "compress=zstd" : "compress");
        EXPECT_FALSE(other.decode(here, ends.encode(here, Bytes(1000, 7)), 1000));
    }
}

// --- backup ---

TEST(FilterBackup, BackupHasAllMessagesOfBothDirections) {
    Folder folder;
    const std::string path = folder.path + "/7-0-1.backup";
    {
        Ends ends("backup=" + folder.path);
        for (uint64_t i = 1; i <= 50; i++) {
            MessageId out = here, in{1, 0, i, 66, Part::piece};
            out.number = i;
            ends.encode(out, some_bytes(i * 10, static_cast<unsigned>(i)));
            Bytes room(i);
            ASSERT_TRUE(ends.a.decode(in, Bytes(i, 9).data(), i, room.data(), i, ends.scratch));
            if (i == 25) {
                ends.a.suspend();
                ends.a.wakeup();
            }
        }
    }
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    const auto records = read_backup(path);
    ASSERT_EQ(records.size(), 102U);
    uint64_t sent = 0, received = 0, opened = 0;
    for (const auto& record : records) {
        EXPECT_EQ(record.head.rank, 0U);
        EXPECT_EQ(record.head.peer, 1U);
        if (record.head.kind == BackupKind::sent) {
            sent++;
            EXPECT_EQ(record.head.number, sent);
            EXPECT_EQ(record.head.tag, 65);
            EXPECT_EQ(record.bytes, some_bytes(sent * 10, static_cast<unsigned>(sent)));
        } else if (record.head.kind == BackupKind::received) {
            received++;
            EXPECT_EQ(record.head.number, received);
            EXPECT_EQ(record.head.part, static_cast<uint8_t>(Part::piece));
            EXPECT_EQ(record.bytes, Bytes(received, 9));
        } else {
            opened++;
        }
    }
    EXPECT_EQ(sent, 50U);
    EXPECT_EQ(received, 50U);
    EXPECT_EQ(opened, 2U);
}

TEST(FilterBackup, BackupHoldsNoFileWhileSuspended) {
    Folder folder;
    Ends ends("backup=" + folder.path);
    auto open_files = [&] {
        size_t count = 0;
        for (const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
            std::error_code failed;
            const auto target = std::filesystem::read_symlink(fd.path(), failed).string();
            count += !failed && target.starts_with(folder.path) ? 1 : 0;
        }
        return count;
    };
    ends.encode(here, Bytes(10));
    EXPECT_EQ(open_files(), 1U);
    ends.a.suspend();
    EXPECT_EQ(open_files(), 0U);
    ends.a.wakeup();
    ends.encode(here, Bytes(10));
    EXPECT_EQ(open_files(), 1U);
}

// Of what no longer fits nothing is there, all before it is whole, and messages go their way.
void write_until_full(const std::string& folder) {
    Ends ends("backup=" + folder);
    for (uint64_t i = 1; i <= 500; i++) {
        MessageId id = here;
        id.number = i;
        const Bytes plain = some_bytes(1000, static_cast<unsigned>(i));
        ASSERT_EQ(ends.encode(id, plain), plain);
    }
    const auto records = read_backup(folder + "/7-0-1.backup");
    ASSERT_GT(records.size(), 20U);
    EXPECT_LT(records.size(), 400U);
    for (size_t i = 1; i < records.size(); i++) {
        EXPECT_EQ(records[i].head.number, i);
        EXPECT_EQ(records[i].bytes, some_bytes(1000, static_cast<unsigned>(i)));
    }
}

// In a process of its own, as it changes what belongs to all of one.
template <typename Test>
void in_a_child(Test test) {
    const pid_t child = fork();
    if (child == 0) {
        test();
        _exit(testing::Test::HasFailure() ? 1 : testing::Test::IsSkipped() ? 77 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no mount name space";
    EXPECT_EQ(status, 0);
}

TEST(FilterBackup, FileSizeLimitStopsBackupOnly) {
    Folder folder;
    in_a_child([&] {
        const rlimit limit{100'000, 100'000};
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
        write_until_full(folder.path);
    });
}

TEST(FilterBackup, FullDiskStopsBackupOnly) {
    Folder folder;
    in_a_child([&] {
        if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0 ||
            mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            mount("small", folder.path.c_str(), "tmpfs", 0, "size=128k,mode=777") != 0) {
            GTEST_SKIP();
        }
        write_until_full(folder.path);
    });
}

TEST(FilterBackup, ForeignFileIsNotOverwritten) {
    Folder folder;
    const std::string path = folder.path + "/7-0-1.backup";
    std::ofstream(path) << "mine";
    ASSERT_EQ(chmod(path.c_str(), 0644), 0);
    Ends ends("backup=" + folder.path);
    EXPECT_EQ(ends.encode(here, Bytes(10, 1)), Bytes(10, 1));
    std::string there;
    std::getline(std::ifstream(path), there);
    EXPECT_EQ(there, "mine");
}

TEST(FilterBackup, ImpossibleFolderIsRefusedAtStart) {
    auto list = List::parse("backup=/proc/nowhere");
    ASSERT_TRUE(list.ok());
    auto ready = list->prepare();
    ASSERT_FALSE(ready.ok());
    EXPECT_NE(ready.error().message().find("/proc/nowhere"), std::string::npos);
}

// --- a user's own ---

TEST(FilterSharedObject, SharedObjectHasNameAndOption) {
    const std::string path = checked_filter();
    auto list = List::parse("so:" + path + "=7");
    ASSERT_TRUE(list.ok());
    ASSERT_TRUE(list->prepare().ok());
    EXPECT_EQ(list->name(), "so:checked/1=7");
    Ends ends("so:" + path + "=7");
    const Bytes sealed = ends.encode(here, Bytes(10, 1));
    EXPECT_EQ(Bytes(sealed.begin(), sealed.begin() + 10), Bytes(10, 8));
    Bytes spoilt = sealed;
    spoilt[3]++;
    EXPECT_FALSE(ends.decode(here, spoilt, 10));
}

}  // namespace
