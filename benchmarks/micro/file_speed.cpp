// SPDX-License-Identifier: BSD-3-Clause
// How fast ghosts go to a file and come back from it cold, against plain sequential transfers of
// the same device in the same run. Run by hand (make benchmarks/micro/file_speed), not a test.
//
// usage: file_speed FOLDER [MIB [ROUNDS]]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "ghost-core/resource/buffer.hpp"
#include "ghost-core/resource/registry.hpp"

namespace {

using namespace ghost;
using namespace ghost::core;

constexpr size_t block = 4 << 20;

double rate(uint64_t bytes, int64_t us) {
    return static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(us, 1));  // MB/s
}

// As dd oflag=direct conv=fsync bs=4M does.
double plain_write(const std::string& path, char* data, uint64_t bytes) {
    unlink(path.c_str());
    const auto begin = monotonic_us();
    const Fd fd(open(path.c_str(), O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600));
    for (uint64_t at = 0; at < bytes; at += block)
        if (pwrite(fd.get(), data, block, static_cast<off_t>(at)) < 0) std::perror("pwrite");
    fsync(fd.get());
    return rate(bytes, monotonic_us() - begin);
}

double plain_read(const std::string& path, char* data, uint64_t bytes) {
    const auto begin = monotonic_us();
    const Fd fd(open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    for (uint64_t at = 0; at < bytes; at += block)
        if (pread(fd.get(), data, block, static_cast<off_t>(at)) < 0) std::perror("pread");
    return rate(bytes, monotonic_us() - begin);
}

// In pieces of a chunk, as a ghost's writer gives them.
double ghost_write(const ResourceRegistry& registry, const std::string& what, const char* data,
                   uint64_t bytes) {
    const auto begin = monotonic_us();
    auto out = registry.make(what, Use::write);
    Status status = out.ok() ? (*out)->init() : Status(out.error());
    for (uint64_t at = 0; status.ok() && at < bytes; at += 1 << 20)
        status = (*out)->write(data + at % block, 1 << 20);
    if (status.ok()) status = (*out)->finalize();
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.error().message().c_str());
    return rate(bytes, monotonic_us() - begin);
}

double ghost_read(const ResourceRegistry& registry, const std::string& what, char* data,
                  uint64_t bytes) {
    const auto begin = monotonic_us();
    auto in = registry.make(what, Use::read);
    Status status = in.ok() ? (*in)->init() : Status(in.error());
    for (uint64_t at = 0; status.ok() && at < bytes; at += 1 << 20)
        status = (*in)->read_all(data, 1 << 20);
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.error().message().c_str());
    return rate(bytes, monotonic_us() - begin);
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    const std::string folder = argv[1];
    const uint64_t bytes = (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1024) << 20;
    const int rounds = argc > 3 ? std::atoi(argv[3]) : 3;
    AlignedMemory memory;
    if (!memory.allocate(block).ok()) return 1;
    for (size_t i = 0; i < block; i++) memory.data()[i] = static_cast<char>(i * 2654435761U >> 13);
    const ResourceRegistry registry;
    const auto plain = folder + "/speed.plain", ghost = folder + "/speed.ghost";
    std::vector<double> pw, gw, pr, gr;
    for (int round = 0; round < rounds; round++) {  // A B A B
        unlink(ghost.c_str());                      // giving its blocks back takes time too
        pw.push_back(plain_write(plain, memory.data(), bytes));
        gw.push_back(ghost_write(registry, ghost, memory.data(), bytes));
        pr.push_back(plain_read(plain, memory.data(), bytes));
        gr.push_back(ghost_read(registry, ghost, memory.data(), bytes));
    }
    std::printf("write: plain %.0f MB/s, ghost %.0f, ratio %.2f\n", median(pw), median(gw),
                median(gw) / median(pw));
    std::printf("read (cold): plain %.0f MB/s, ghost %.0f, ratio %.2f\n", median(pr), median(gr),
                median(gr) / median(pr));
    unlink(plain.c_str());
    unlink(ghost.c_str());
    return 0;
}
