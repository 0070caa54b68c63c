// SPDX-License-Identifier: BSD-3-Clause
// Filter `compress`: lz4 or zstd. One byte in front says what the rest is; what does not get
// smaller goes as it is.
#include <cstring>
#include <lz4.h>
#include <zstd.h>

#include "kernet-btl/filter/builtin.hpp"

namespace kernet::filter {

namespace {

constexpr uint8_t is_plain = 0;
constexpr uint8_t is_lz4 = 1;
constexpr uint8_t is_zstd = 2;
// Nothing shorter gets smaller by more than the call costs.
constexpr size_t worth_it = 64;
constexpr int zstd_level = 1;  // messages wait for it

// What the compressors need between calls; one for all sockets, as one thread at a time is there.
struct Lz4 {
    static constexpr const char* name = "lz4";
    static constexpr uint8_t flag = is_lz4;
    std::unique_ptr<uint8_t[]> state =
        std::make_unique<uint8_t[]>(static_cast<size_t>(LZ4_sizeofState()));

    // Bytes made, 0 if they would not fit.
    size_t pack(const uint8_t* in, size_t size, uint8_t* out, size_t room) {
        const int made = LZ4_compress_fast_extState(
            state.get(), reinterpret_cast<const char*>(in), reinterpret_cast<char*>(out),
            static_cast<int>(size), static_cast<int>(room), 1);
        return made > 0 ? static_cast<size_t>(made) : 0;
    }
    // -1: not a packed message of at most `room` bytes.
    ssize_t unpack(const uint8_t* in, size_t size, uint8_t* out, size_t room) {
        return LZ4_decompress_safe(reinterpret_cast<const char*>(in), reinterpret_cast<char*>(out),
                                   static_cast<int>(size), static_cast<int>(room));
    }
};

struct Zstd {
    struct Free {
        void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
        void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
    };
    static constexpr const char* name = "zstd";
    static constexpr uint8_t flag = is_zstd;
    std::unique_ptr<ZSTD_CCtx, Free> packer{ZSTD_createCCtx()};
    std::unique_ptr<ZSTD_DCtx, Free> unpacker{ZSTD_createDCtx()};

    size_t pack(const uint8_t* in, size_t size, uint8_t* out, size_t room) {
        const size_t made = ZSTD_compressCCtx(packer.get(), out, room, in, size, zstd_level);
        return ZSTD_isError(made) ? 0 : made;
    }
    ssize_t unpack(const uint8_t* in, size_t size, uint8_t* out, size_t room) {
        const size_t made = ZSTD_decompressDCtx(unpacker.get(), out, room, in, size);
        return ZSTD_isError(made) ? -1 : static_cast<ssize_t>(made);
    }
};

template <typename Packer>
class Compress final : public Filter {
  public:
    explicit Compress(std::shared_ptr<Packer> packer) : packer_(std::move(packer)) {}

    size_t bound(size_t size) const override { return size + 1; }

    size_t encode(const MessageId&, const uint8_t* in, size_t size, uint8_t* out) override {
        // Room for less than it was: a packer that needs more gives up.
        const size_t made = size < worth_it || size > LZ4_MAX_INPUT_SIZE
                                ? 0
                                : packer_->pack(in, size, out + 1, size - 1);
        out[0] = made > 0 ? Packer::flag : is_plain;
        if (made > 0) return made + 1;
        if (size > 0) std::memcpy(out + 1, in, size);
        return size + 1;
    }

    Result<size_t> decode(const MessageId&, const uint8_t* in, size_t size, uint8_t* out,
                          size_t room) override {
        ssize_t made = -1;
        if (size > 0 && size <= LZ4_MAX_INPUT_SIZE && room <= LZ4_MAX_INPUT_SIZE) {
            if (in[0] == Packer::flag) {
                made = packer_->unpack(in + 1, size - 1, out, room);
            } else if (in[0] == is_plain && size - 1 <= room) {
                made = static_cast<ssize_t>(size - 1);
                if (made > 0) std::memcpy(out, in + 1, size - 1);
            }
        }
        if (made >= 0) return static_cast<size_t>(made);
        return ghost::make_error(ghost::Code::corrupt, "unpack a message in filter compress");
    }

  private:
    std::shared_ptr<Packer> packer_;
};

template <typename Packer>
class CompressRecipe final : public Recipe {
  public:
    std::string name() const override { return std::string("compress=") + Packer::name; }
    std::unique_ptr<Filter> make(const SocketId&) const override {
        return std::make_unique<Compress<Packer>>(packer_);
    }
    bool before_sealing() const override { return true; }

  private:
    std::shared_ptr<Packer> packer_ = std::make_shared<Packer>();
};

}  // namespace

Made make_compress(const std::string& option) {
    if (option.empty() || option == Lz4::name) return Made(std::make_unique<CompressRecipe<Lz4>>());
    if (option == Zstd::name) return Made(std::make_unique<CompressRecipe<Zstd>>());
    return ghost::because(ghost::Code::invalid, "compressions are lz4 and zstd");
}

}  // namespace kernet::filter
