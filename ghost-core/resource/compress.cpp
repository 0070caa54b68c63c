// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/resource/compress.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <lz4frame.h>
#include <thread>
#include <zstd.h>

namespace ghost::core {
namespace {

constexpr uint32_t skippable = 0x184D2A5E;  // of both formats: 0x184D2A50 to 5F
constexpr std::array<char, 4> tag = {'G', 'H', 'Z', '1'};

// A skippable frame that says what follows; raw 0: the end.
struct FrameHeader {
    uint32_t magic = skippable;
    uint32_t length = 16;  // of what follows in this header
    std::array<char, 4> mark = tag;
    uint32_t raw = 0;     // bytes of the unit
    uint32_t packed = 0;  // bytes of the frame after this header
    uint32_t algorithm = 0;
};
static_assert(sizeof(FrameHeader) == 24);

Error damaged(const char* what, uint64_t unit) {
    return make_error(Code::corrupt, fmt::format("unpack MiB {} of a ghost", unit), {}, what);
}

// One more than the cores, so that all of them have something while the owner copies.
size_t slot_count() {
    return std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 16) + 1;
}

// Frames with the content's checksum and size.
LZ4F_preferences_t lz4_preferences(int level, size_t size) {
    LZ4F_preferences_t out{};
    out.frameInfo.blockSizeID = LZ4F_max1MB;
    out.frameInfo.blockMode = LZ4F_blockIndependent;
    out.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
    out.frameInfo.contentSize = size;
    out.compressionLevel = level;
    return out;
}

}  // namespace

// Contexts of the libraries, made when first used.
struct CompressResource::Tools {
    ZSTD_CCtx* pack = nullptr;
    ZSTD_DCtx* unpack = nullptr;
    LZ4F_dctx* lz4 = nullptr;
    Compression algorithm = Compression::lz4;
    uint32_t raw = 0;

    Tools() = default;
    Tools(const Tools&) = delete;
    Tools& operator=(const Tools&) = delete;
    ~Tools() {
        ZSTD_freeCCtx(pack);
        ZSTD_freeDCtx(unpack);
        LZ4F_freeDecompressionContext(lz4);
    }
};

CompressResource::CompressResource(std::unique_ptr<Resource> inner, Use use, Compression algorithm,
                                   int level)
    : UnitResource(use, slot_count()),
      inner_(std::move(inner)),
      algorithm_(algorithm),
      level_(level),
      tools_(std::make_unique<Tools[]>(slot_count())) {}

CompressResource::~CompressResource() {
    stop();
}

std::unique_ptr<Resource> CompressResource::writer(std::unique_ptr<Resource> inner,
                                                   Compression algorithm, int level) {
    return std::unique_ptr<Resource>(
        new CompressResource(std::move(inner), Use::write, algorithm, level));
}

std::unique_ptr<Resource> CompressResource::reader(std::unique_ptr<Resource> inner) {
    return std::unique_ptr<Resource>(
        new CompressResource(std::move(inner), Use::read, Compression::lz4, 0));
}

bool CompressResource::is_mine(const char* start) {
    FrameHeader header;
    std::memcpy(static_cast<void*>(&header), start, start_bytes);
    return header.magic == skippable && header.length == 16 && header.mark == tag;
}

void CompressResource::work(Slot& slot) {
    use() == Use::write ? pack(slot) : unpack(slot);
}

void CompressResource::pack(Slot& slot) {
    size_t packed = 0;
    if (algorithm_ == Compression::zstd) {
        auto& context = tools_[slot.index].pack;
        if (context == nullptr) context = ZSTD_createCCtx();
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level_);
        slot.coded.resize(ZSTD_compressBound(slot.size));
        packed = ZSTD_compress2(context, slot.coded.data(), slot.coded.size(), slot.raw.data(),
                                slot.size);
        if (ZSTD_isError(packed))
            slot.error =
                make_error(Code::internal, "compress ghost (zstd)", {}, ZSTD_getErrorName(packed));
    } else {
        const auto preferences = lz4_preferences(level_, slot.size);
        slot.coded.resize(LZ4F_compressFrameBound(slot.size, &preferences));
        packed = LZ4F_compressFrame(slot.coded.data(), slot.coded.size(), slot.raw.data(),
                                    slot.size, &preferences);
        if (LZ4F_isError(packed))
            slot.error =
                make_error(Code::internal, "compress ghost (lz4)", {}, LZ4F_getErrorName(packed));
    }
    if (!slot.error) slot.coded.resize(packed);
}

Status CompressResource::emit(Slot& slot) {
    FrameHeader header;
    header.raw = static_cast<uint32_t>(slot.size);
    header.packed = static_cast<uint32_t>(slot.coded.size());
    header.algorithm = static_cast<uint32_t>(algorithm_);
    std::array<iovec, 2> pieces = {iovec{&header, sizeof header},
                                   iovec{slot.coded.data(), slot.coded.size()}};
    return inner_->write_gather(pieces.data(), pieces.size());
}

Status CompressResource::close() {
    FrameHeader end;
    end.algorithm = static_cast<uint32_t>(algorithm_);
    GHOST_TRY(inner_->write(&end, sizeof end));
    return inner_->finalize();
}

Result<bool> CompressResource::load(Slot& slot) {
    FrameHeader header;
    GHOST_TRY(inner_->read_all(&header, sizeof header));
    if (header.magic != skippable || header.length != 16 || header.mark != tag ||
        header.raw > unit_bytes || header.packed > 2 * unit_bytes ||
        (header.algorithm != static_cast<uint32_t>(Compression::lz4) &&
         header.algorithm != static_cast<uint32_t>(Compression::zstd)))
        return damaged("its header", slot.number);
    if (header.raw == 0) {
        char more = 0;
        auto rest = inner_->read(&more, 1);
        if (!rest) return rest.error();
        if (header.packed != 0 || *rest != 0)
            return damaged("something follows the end", slot.number);
        return false;
    }
    auto& tools = tools_[slot.index];
    tools.algorithm = static_cast<Compression>(header.algorithm);
    tools.raw = header.raw;
    slot.coded.resize(header.packed);
    GHOST_TRY(inner_->read_all(slot.coded.data(), slot.coded.size()));
    return true;
}

void CompressResource::unpack(Slot& slot) {
    auto& tools = tools_[slot.index];
    size_t got = unit_bytes, used = slot.coded.size();
    bool good = false;
    if (tools.algorithm == Compression::zstd) {
        if (tools.unpack == nullptr) tools.unpack = ZSTD_createDCtx();
        got =
            ZSTD_decompressDCtx(tools.unpack, slot.raw.data(), unit_bytes, slot.coded.data(), used);
        good = !ZSTD_isError(got);
    } else {
        if (tools.lz4 == nullptr) LZ4F_createDecompressionContext(&tools.lz4, LZ4F_VERSION);
        LZ4F_resetDecompressionContext(tools.lz4);
        const size_t left =
            LZ4F_decompress(tools.lz4, slot.raw.data(), &got, slot.coded.data(), &used, nullptr);
        good = left == 0 && used == slot.coded.size();
    }
    if (!good || got != tools.raw)
        slot.error = damaged("what it unpacks to", slot.number);
    else
        slot.size = got;
}

}  // namespace ghost::core
