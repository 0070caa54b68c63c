// SPDX-License-Identifier: BSD-3-Clause
// Pages out of a process and into a userfaultfd.
#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ghost-core/format/host.hpp"
#include "ghost-core/memory/buffers.hpp"
#include "ghost-core/memory/pages.hpp"
#include "ghost-core/memory/userfault.hpp"
#include "ghost-core/criu/criu_images.hpp"

namespace ghost::core {
namespace {

char* map_pages(size_t pages) {
    void* base = mmap(nullptr, pages * this_page_size(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(base, MAP_FAILED);
    return static_cast<char*>(base);
}

TEST(Pages, RangeEndsAreReadFirst) {
    constexpr uint64_t kb = 1024, mb = 1024 * kb;
    const TaskPages first{1, 10, {{0, 12 * kb}, {1 * mb, 10 * mb}}};
    // Little is between these: one range with holes.
    TaskPages second{2, 20, {}};
    for (uint64_t at = 0; at < 32; at++) second.ranges.push_back({at * 32 * kb, 28 * kb});
    const auto order = ends_first({first, second});
    ASSERT_EQ(order.size(), 4U);
    const std::vector<PageRun> ends = {
        {0, 12 * kb}, {1 * mb, 64 * kb}, {11 * mb - 64 * kb, 64 * kb}};
    EXPECT_EQ(order[0].ranges, ends);
    const std::vector<PageRun> holes = {
        {0, 28 * kb}, {32 * kb, 28 * kb}, {30 * 32 * kb, 28 * kb}, {31 * 32 * kb, 28 * kb}};
    EXPECT_EQ(order[1].ranges, holes);
    const std::vector<PageRun> between = {{1 * mb + 64 * kb, 10 * mb - 128 * kb}};
    EXPECT_EQ(order[2].ranges, between);
    EXPECT_EQ(order[3].ranges.size(), 28U);
    for (const auto& [part, task] :
         {std::pair{0, first}, std::pair{1, second}, std::pair{2, first}, std::pair{3, second}}) {
        EXPECT_EQ(order[part].inner_pid, task.inner_pid);
        EXPECT_EQ(order[part].pid, task.pid);
    }
    EXPECT_EQ(order[0].bytes() + order[2].bytes(), first.bytes());
    EXPECT_EQ(order[1].bytes() + order[3].bytes(), second.bytes());
    EXPECT_TRUE(ends_first({}).empty());
}

TEST(Pages, ReadOfProcessOmitsZeroPages) {
    const size_t page = this_page_size(), count = 700;
    char* base = map_pages(count);
    for (size_t i = 0; i < count; i++)
        if (i % 3 != 0) std::memset(base + i * page, static_cast<int>(i % 251 + 1), page);
    mprotect(base + 4 * page, page, PROT_NONE);  // only readable by force
    const pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(child, nullptr, WUNTRACED);
    TaskPages task{7, child, {{reinterpret_cast<uint64_t>(base), count * page}}};
    ProcessPages source({task});
    EXPECT_EQ(source.total(), count * page);
    std::vector<char> buffer(BufferPool::buffer_size());
    uint64_t bytes = 0, zeros = 0;
    for (;;) {
        PageBatch batch;
        batch.buffer = buffer.data();
        auto more = source.next(batch);
        ASSERT_TRUE(more.ok()) << more.error().message();
        if (!*more) break;
        EXPECT_EQ(batch.inner_pid, 7);
        bytes += batch.bytes;
        zeros += batch.zero_bytes;
        std::string flat;
        for (const auto& piece : batch.contents)
            flat.append(static_cast<char*>(piece.iov_base), piece.iov_len);
        size_t at = 0;
        for (const auto& run : batch.runs)
            for (uint64_t x = 0; x < run.bytes; x += page, at += page) {
                const size_t i = (run.start + x - reinterpret_cast<uint64_t>(base)) / page;
                ASSERT_EQ(flat[at], static_cast<char>(i % 251 + 1)) << "page " << i;
            }
        EXPECT_EQ(at, flat.size());
    }
    EXPECT_EQ(bytes + zeros, count * page);
    EXPECT_EQ(zeros, (count + 2) / 3 * page);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    munmap(base, count * page);
}

TEST(Pages, PagesWaitForTheirMapping) {
    Fd userfault(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    if (!userfault) GTEST_SKIP() << "no userfaultfd here";
    uffdio_api api{};
    api.api = UFFD_API;
    ASSERT_EQ(ioctl(userfault.get(), UFFDIO_API, &api), 0);
    const int fd = userfault.get();
    const size_t page = this_page_size();
    char* base = map_pages(4);
    std::vector<char> contents(3 * page, 'c');
    const PageRun runs[] = {{reinterpret_cast<uint64_t>(base), page},
                            {reinterpret_cast<uint64_t>(base) + 2 * page, 2 * page}};
    FaultFiller filler;
    auto early = filler.put(1, runs, contents.data(), 0);
    ASSERT_TRUE(early.ok());
    EXPECT_EQ(*early, 0U);  // no such process yet
    filler.add(1, std::move(userfault));
    early = filler.put(1, runs, contents.data(), 0);
    ASSERT_TRUE(early.ok()) << early.error().message();
    EXPECT_EQ(*early, 0U);  // not registered yet
    uffdio_register place{};
    place.range = {reinterpret_cast<uint64_t>(base), 3 * page};  // the last page has none
    place.mode = UFFDIO_REGISTER_MODE_MISSING;
    ASSERT_EQ(ioctl(fd, UFFDIO_REGISTER, &place), 0);
    auto most = filler.put(1, runs, contents.data(), 0);
    ASSERT_TRUE(most.ok());
    EXPECT_EQ(*most, 2 * page);
    EXPECT_EQ(filler.filled(), 2 * page);
    filler.all_there();
    EXPECT_FALSE(filler.put(1, runs, contents.data(), *most).ok());
    EXPECT_FALSE(filler.put(2, runs, contents.data(), 0).ok());  // no such process
    ASSERT_TRUE(filler.complete().ok());
    filler.release();
    EXPECT_EQ(base[0], 'c');
    EXPECT_EQ(base[page], 0);
    EXPECT_EQ(base[2 * page + 5], 'c');
    munmap(base, 4 * page);
}

TEST(PageMap, DamagedPageMapIsRefused) {
    EXPECT_EQ(pagemap_owner("pagemap-17.img"), 17);
    EXPECT_EQ(pagemap_owner("pagemap-shmem-17.img"), 0);
    EXPECT_EQ(pagemap_owner("pages-1.img"), 0);
    // Two magics, a head {1: 1}, one entry {1: 0x10000, 2: 2, 4: lazy}.
    const std::string good("\0\0\0\0\0\0\0\0\2\0\0\0\x08\1\x08\0\0\0\x08\x80\x80\4\x10\2\x20\2",
                           26);
    auto ranges = lazy_ranges(good);
    ASSERT_TRUE(ranges.ok());
    ASSERT_EQ(ranges->size(), 1U);
    EXPECT_EQ(ranges->front().start, 0x10000U);
    EXPECT_EQ(ranges->front().bytes, 2 * this_page_size());
    for (size_t size = 0; size < good.size(); size++) {
        if (size == 8 || size == 14) continue;  // the ends of the magics and of the head
        EXPECT_FALSE(lazy_ranges(std::string_view(good).substr(0, size)).ok()) << size;
    }
}

TEST(CriuImages, ThreadsAreTakenApart) {
    const auto word = [](uint32_t value) {
        return std::string(reinterpret_cast<const char*>(&value), sizeof value);
    };
    const std::string first = "magics, and a thread", second = "magics, another";
    const auto good = word(7) + word(static_cast<uint32_t>(first.size())) + first + word(4711) +
                      word(static_cast<uint32_t>(second.size())) + second;
    const auto cores = cores_in(good);
    ASSERT_TRUE(cores.ok()) << cores.error().message();
    ASSERT_EQ(cores->size(), 2U);
    EXPECT_EQ(cores->front(), std::pair(std::string("core-7.img"), first));
    EXPECT_EQ(cores->back(), std::pair(std::string("core-4711.img"), second));
    const size_t whole = 2 * sizeof(uint32_t) + first.size();
    for (size_t size = 1; size < good.size(); size++)
        EXPECT_EQ(cores_in(std::string_view(good).substr(0, size)).ok(), size == whole) << size;
}

}  // namespace
}  // namespace ghost::core
