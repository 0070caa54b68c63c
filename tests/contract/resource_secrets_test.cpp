// SPDX-License-Identifier: BSD-3-Clause
// Encrypted and signed ghosts: what is read of them without the key, or of another's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include "ghost-core/resource/encrypt.hpp"
#include "ghost-core/resource/memory.hpp"
#include "ghost-core/resource/sign.hpp"
#include "tests/contract/resource_ends.hpp"

namespace ghost::core {
namespace {

using Fault = FaultyResource::Fault;
using Bytes = std::vector<char>;

TEST(Encrypt, GhostWithoutKeyIsUnreadable) {
    MemoryResource memory;
    const std::string text(5000, 's');
    {
        EncryptResource out(std::make_unique<FaultyResource>(memory, Fault::none, 0), Use::write,
                            test_key());
        ASSERT_TRUE(write_all(out, std::vector<char>(text.begin(), text.end())).ok());
    }
    const auto bytes = memory.bytes();
    EXPECT_EQ(std::string(bytes.begin(), bytes.end()).find("ssss"), std::string::npos);
    auto other = std::make_shared<SecretKey>(std::array<unsigned char, 32>{9});
    EncryptResource in(std::make_unique<FaultyResource>(memory, Fault::none, 0), Use::read, other);
    char byte = 0;
    ASSERT_TRUE(in.init().ok());
    auto got = in.read(&byte, 1);
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().code, Code::refused);
}

TEST(Encrypt, KeyReadableByOthersIsRefused) {
    Folder folder;
    const auto path = folder.path() + "/key";
    std::ofstream(path) << std::string(64, '0');
    ASSERT_EQ(chmod(path.c_str(), 0644), 0);
    EXPECT_EQ(SecretKey::load(path).error().code, Code::refused);
    ASSERT_EQ(chmod(path.c_str(), 0600), 0);
    EXPECT_TRUE(SecretKey::load(path).ok());
    std::ofstream(path) << "short";
    EXPECT_EQ(SecretKey::load(path).error().code, Code::invalid);
}

Bytes signed_ghost(const Bytes& bytes, unsigned char key) {
    auto memory = std::make_shared<MemoryBuffer>();
    auto out = SignResource::writer(std::make_unique<MemoryResource>(memory), signing_key(key));
    EXPECT_TRUE(write_all(*out, bytes).ok());
    Bytes made(memory->size());
    MemoryResource in(memory);
    EXPECT_TRUE(in.read_all(made.data(), made.size()).ok());
    return made;
}

// Reads all that is given, as an import does: to the end.
Status read_signed(const Bytes& ghost, std::optional<PublicKey> signer, Bytes& got) {
    auto memory = std::make_shared<MemoryBuffer>();
    GHOST_TRY(memory->append(ghost.data(), ghost.size()));
    auto in = SignResource::reader(std::make_unique<MemoryResource>(memory), signer);
    GHOST_TRY(in->init());
    got.clear();
    Bytes part(300'000);
    for (;;) {
        auto count = in->read(part.data(), part.size());
        if (!count) return count.error();
        if (*count == 0) return {};
        got.insert(got.end(), part.begin(), part.begin() + static_cast<long>(*count));
    }
}

constexpr size_t sign_header = 56, sign_record = 72;

TEST(Sign, WholeGhostOfSignerIsReadAndNobodyElses) {
    const auto bytes = content((2 << 20) + 12345);
    const auto ghost = signed_ghost(bytes, 1);
    EXPECT_EQ(ghost.size(), bytes.size() + sign_header + 4 * sign_record);
    Bytes got;
    ASSERT_TRUE(read_signed(ghost, signing_key(1)->public_key(), got).ok());
    EXPECT_TRUE(got == bytes);
    ASSERT_TRUE(read_signed(ghost, std::nullopt, got).ok());
    EXPECT_TRUE(got == bytes);
    const auto other = read_signed(ghost, signing_key(2)->public_key(), got);
    EXPECT_EQ(other.error().code, Code::refused);
    EXPECT_NE(other.error().message().find("signed by another"), std::string::npos);
    auto renamed = ghost;  // says it is of 2, with the signatures of 1
    std::memcpy(renamed.data() + 8, signing_key(2)->public_key().bytes(), 32);
    const auto false_name = read_signed(renamed, signing_key(2)->public_key(), got);
    EXPECT_NE(false_name.error().message().find("not what was signed"), std::string::npos);
    EXPECT_TRUE(got.empty());
    Bytes empty;
    ASSERT_TRUE(read_signed(signed_ghost({}, 1), signing_key(1)->public_key(), empty).ok());
}

// One bit of any byte, anything cut off or added: refused, and nothing wrong is given before.
TEST(Sign, ChangedCutAndExtendedGhostsAreRefused) {
    const auto bytes = content(700);
    const auto ghost = signed_ghost(bytes, 1);
    const auto signer = signing_key(1)->public_key();
    Bytes got;
    for (size_t at = 0; at < ghost.size(); at++) {
        auto bad = ghost;
        bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
        EXPECT_FALSE(read_signed(bad, signer, got).ok()) << "bit of byte " << at;
        EXPECT_TRUE(got.empty() || got == bytes) << "byte " << at;
        bad = {ghost.begin(), ghost.begin() + static_cast<long>(at)};
        EXPECT_FALSE(read_signed(bad, signer, got).ok()) << "cut at " << at;
    }
    auto longer = ghost;
    longer.push_back(0);
    EXPECT_FALSE(read_signed(longer, signer, got).ok());
    longer = ghost;
    longer.insert(longer.end(), ghost.begin() + sign_header, ghost.end());
    EXPECT_FALSE(read_signed(longer, signer, got).ok());
}

TEST(Sign, UnitsCannotBeTakenFromElsewhere) {
    const auto signer = signing_key(1)->public_key();
    const auto ghost = signed_ghost(content(3 << 20), 1), twin = signed_ghost(content(3 << 20), 1);
    constexpr size_t unit = sign_record + (1 << 20);
    Bytes got;
    auto swapped = ghost;
    std::swap_ranges(swapped.begin() + sign_header, swapped.begin() + sign_header + unit,
                     swapped.begin() + sign_header + unit);
    EXPECT_FALSE(read_signed(swapped, signer, got).ok());
    auto left_out = ghost;
    left_out.erase(left_out.begin() + sign_header + unit,
                   left_out.begin() + sign_header + 2 * unit);
    EXPECT_FALSE(read_signed(left_out, signer, got).ok());
    auto mixed = ghost;  // the same bytes in the same place, but of another ghost
    std::copy_n(twin.begin() + sign_header, unit, mixed.begin() + sign_header);
    EXPECT_FALSE(read_signed(mixed, signer, got).ok());
    auto ended = ghost;  // the end of a shorter one
    const auto end = signed_ghost(content(1 << 20), 1);
    ended.resize(sign_header + unit);
    ended.insert(ended.end(), end.end() - sign_record, end.end());
    EXPECT_FALSE(read_signed(ended, signer, got).ok());
}

TEST(Sign, KeysAreMadeOnceAndLookedAt) {
    Folder folder;
    const auto path = folder.path() + "/k";
    auto made = make_keys(path);
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_FALSE(make_keys(path).ok()) << "a key is never written over";
    struct stat info {};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U);
    auto secret = SigningKey::load(path);
    ASSERT_TRUE(secret.ok()) << secret.error().message();
    EXPECT_EQ((*secret)->public_key(), *made);
    EXPECT_EQ(*PublicKey::load(path + ".pub"), *made);
    EXPECT_EQ(SigningKey::load(path + ".pub").error().code, Code::invalid);
    ASSERT_EQ(chmod(path.c_str(), 0644), 0);
    EXPECT_EQ(SigningKey::load(path).error().code, Code::refused);
    ASSERT_EQ(chmod((path + ".pub").c_str(), 0666), 0);
    EXPECT_EQ(PublicKey::load(path + ".pub").error().code, Code::refused);
    ASSERT_EQ(unlink(path.c_str()), 0);
    EXPECT_FALSE(make_keys(path).ok());
    EXPECT_NE(stat(path.c_str(), &info), 0) << "half a pair is left";
}

// Whatever it is packed in; and a chain is as good as its worst ghost.
TEST(Registry, OpensOnlyWhatExpectedSignerMade) {
    Folder folder;
    ResourceRegistry registry;
    const auto bytes = content(2 << 20);
    for (const auto* spec : {"{}/g", "lz4:{}/g", "zstd:encrypt,key={}/key:{}/g"}) {
        for (const bool sign : {false, true}) {
            auto out = registry.make(put_folder(spec, folder.path()), Use::write);
            ASSERT_TRUE(out.ok());
            auto to =
                sign ? SignResource::writer(std::move(*out), signing_key(1)) : std::move(*out);
            ASSERT_TRUE(write_all(*to, bytes).ok());
            auto key = SecretKey::load(folder.path() + "/key");
            ResourceRegistry expecting;
            expecting.expect_signer(signing_key(1)->public_key());
            const auto strict = expecting.reading(Whose::trusted);
            auto in = strict.open(folder.path() + "/g", key ? *key : nullptr);
            ASSERT_EQ(in.ok(), sign) << spec;
            EXPECT_TRUE(sign || in.error().message().find("not signed") != std::string::npos);
            auto plain = registry.open(folder.path() + "/g", key ? *key : nullptr);
            ASSERT_TRUE(plain.ok()) << spec << plain.error().message();
            std::vector<char> got(bytes.size());
            EXPECT_TRUE((*plain)->read_all(got.data(), got.size()).ok());
            EXPECT_TRUE(got == bytes) << spec;
        }
    }
}

}  // namespace
}  // namespace ghost::core
