// SPDX-License-Identifier: BSD-3-Clause
// What each filter of streams costs: encoding and decoding one message of some sizes, of bytes that
// compress (text-like) and bytes that do not. One filter, one direction a benchmark, by itself.
//
//   filter_speed [--benchmark_filter=crypto] [--filter=so:/PATH]   (--filter: one more)
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "kernet-btl/filter/list.hpp"

namespace {

using namespace kernet::filter;
using Bytes = std::vector<uint8_t>;

// A quarter of the bytes are random, the others repeat: lz4 and zstd halve it and more.
Bytes content(size_t size, bool compresses) {
    std::mt19937 random(1);
    Bytes out(size);
    for (size_t i = 0; i < size; i++) {
        const bool repeats = compresses && i >= 64 && i % 64 < 48;
        out[i] = repeats ? out[i - 64] : static_cast<uint8_t>(random());
    }
    return out;
}

SocketId socket_id(uint32_t rank, uint32_t peer) {
    SocketId id;
    id.job = "1";
    id.rank = rank;
    id.peer = peer;
    return id;
}

struct Setting {
    std::string filters;
    bool compresses;
    bool encodes;
};

void run(benchmark::State& state, const Setting& setting) {
    auto list = List::parse(setting.filters);
    if (!list.ok() || !list->prepare()) {
        state.SkipWithError("cannot be used here");
        return;
    }
    Chain sender = list->chain(socket_id(0, 1)), receiver = list->chain(socket_id(1, 0));
    Scratch scratch;
    MessageId id{0, 1, 1, 65, Part::whole};
    const auto size = static_cast<size_t>(state.range(0));
    const Bytes plain = content(size, setting.compresses);
    Bytes encoded(sender.bound(size)), decoded(size);
    size_t made = sender.encode(id, plain.data(), size, encoded.data(), scratch);
    for (auto _ : state) {
        if (setting.encodes) {
            made = sender.encode(id, plain.data(), size, encoded.data(), scratch);
        } else if (!receiver.decode(id, encoded.data(), made, decoded.data(), size, scratch)) {
            state.SkipWithError("decodes wrongly");
            return;
        }
        benchmark::ClobberMemory();
    }
    if (!setting.encodes && decoded != plain) state.SkipWithError("decodes to something else");
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * size));
    state.counters["encoded/plain"] = static_cast<double>(made) / static_cast<double>(size);
}

void add(const std::string& filters, const std::string& name) {
    for (const bool compresses : {true, false}) {
        for (const bool encodes : {true, false}) {
            const std::string title =
                name + (compresses ? "/text" : "/noise") + (encodes ? "/encode" : "/decode");
            benchmark::RegisterBenchmark(title.c_str(), run, Setting{filters, compresses, encodes})
                ->Arg(64)
                ->Arg(1024)
                ->Arg(65536);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    char folder[] = "/dev/shm/filter-speed-XXXXXX";
    for (const char* filters :
         {"crypto", "crypto=aes256gcm", "compress=lz4", "compress=zstd", "crypto,compress"})
        add(filters, filters);
    const bool have_folder = mkdtemp(folder) != nullptr;
    if (have_folder) add(std::string("backup=") + folder, "backup");
    benchmark::Initialize(&argc, argv);
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        if (word.starts_with("--filter=")) add(word.substr(9), word.substr(9));
    }
    benchmark::RunSpecifiedBenchmarks();
    std::error_code ignored;
    if (have_folder) std::filesystem::remove_all(folder, ignored);
    return 0;
}
