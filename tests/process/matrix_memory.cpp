// SPDX-License-Identifier: BSD-3-Clause
// Cases: address spaces.
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/process/matrix_subject.hpp"

namespace matrix {
namespace {

constexpr size_t page = 4096;
constexpr size_t gigabyte = size_t{1} << 30;

char* map(size_t bytes, int access = PROT_READ | PROT_WRITE, int more = 0) {
    void* at = mmap(nullptr, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | more, -1, 0);
    need(at != MAP_FAILED, "mmap");
    return static_cast<char*>(at);
}

uint64_t word(uint64_t i) {
    return (i + 1) * 0x9e3779b97f4a7c15ULL;
}

void put(char* at, uint64_t value) {
    std::memcpy(at, &value, sizeof value);
}

Check sparse(const std::string&) {
    // As much as an AddressSanitizer or a garbage collector reserves.
    constexpr size_t apart = 256 * gigabyte;
    static char* area = map(64 * apart, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    madvise(area, 64 * apart, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < 64; i++) put(area + i * apart + i * 3 * page, word(i));
    return []() -> std::string {
        for (uint64_t i = 0; i < 64; i++) {
            uint64_t got = 0;
            std::memcpy(&got, area + i * apart + i * 3 * page, 8);
            if (got != word(i)) return "a page differs";
            if (area[i * apart + apart / 2] != 0) return "a hole is none";
        }
        return {};
    };
}

Check many_mappings(const std::string&) {
    constexpr size_t count = 10000;
    static char* area = map(count * page);
    for (size_t i = 0; i < count; i++) {
        put(area + i * page, word(i));
    }
    // Neighbours with different rights do not become one mapping.
    for (size_t i = 0; i < count; i += 2)
        need(mprotect(area + i * page, page, PROT_READ) == 0, "mprotect");
    return []() -> std::string {
        for (size_t i = 0; i < count; i++) {
            uint64_t got = 0;
            std::memcpy(&got, area + i * page, 8);
            if (got != word(i)) return "a page differs";
            if (i % 2 == 1) area[i * page] = 1;
        }
        return {};
    };
}

Check huge_pages(const std::string&) {
    constexpr size_t huge = 2 << 20;
    static char* start = map(6 * huge);
    static char* area = start + (huge - reinterpret_cast<uintptr_t>(start) % huge);
    madvise(area, 4 * huge, MADV_HUGEPAGE);
    for (size_t i = 0; i < 4 * huge; i += page) {
        put(area + i, word(i));
    }
    return []() -> std::string {
        for (size_t i = 0; i < 4 * huge; i += page) {
            uint64_t got = 0;
            std::memcpy(&got, area + i, 8);
            if (got != word(i)) return "a page differs";
        }
        return {};
    };
}

// Without touching it: it needs no page then.
Check private_huge_pages(const std::string&) {
    map(2 << 20, PROT_READ | PROT_WRITE, MAP_HUGETLB | MAP_NORESERVE);
    return []() -> std::string { return {}; };
}

Check mappings(const std::string& folder) {
    static const std::string path = folder + "/mappings.data";
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
    const std::string text(8 * page, 'f');
    need(write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()), "write");
    static char* own =
        static_cast<char*>(mmap(nullptr, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    static char* shared =
        static_cast<char*>(mmap(nullptr, 8 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    need(own != MAP_FAILED && shared != MAP_FAILED, "map a file");
    own[3 * page] = 'o';     // a copy of that page
    shared[5 * page] = 's';  // in the file
    static char* hidden = map(3 * page);
    hidden[page] = 'h';
    need(mprotect(hidden + page, page, PROT_NONE) == 0, "mprotect");
    static char* code = map(page);
    std::memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6);  // mov eax, 42; ret
    need(mprotect(code, page, PROT_READ | PROT_EXEC) == 0, "mprotect");
    static char* locked = map(2 * page);
    locked[0] = 'l';
    need(mlock(locked, 2 * page) == 0, "mlock");
    static char* dropped = map(2 * page);
    dropped[0] = 'd';
    madvise(dropped, page, MADV_DONTNEED);
    return []() -> std::string {
        if (own[0] != 'f' || own[3 * page] != 'o') return "a private mapping of a file";
        if (shared[5 * page] != 's') return "a shared mapping of a file";
        shared[6 * page] = 'n';
        const int file = open(path.c_str(), O_RDONLY);
        char byte = 0;
        if (pread(file, &byte, 1, 6 * page) != 1 || byte != 'n') return "not the file any more";
        mprotect(hidden + page, page, PROT_READ);
        if (hidden[page] != 'h') return "a hidden page";
        if (locked[0] != 'l' || dropped[0] != 0) return "a locked or a dropped page";
#if defined(__x86_64__)
        if (reinterpret_cast<int (*)()>(code)() != 42) return "made code";
#endif
        return {};
    };
}

// Whether this page can be read, without being ended by the attempt.
bool is_readable(char* at) {
    char byte = 0;
    const iovec to{&byte, 1}, from{at, 1};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

Check guards(const std::string&) {
    constexpr int guard_install = 102, guard_remove = 103;  // MADV_GUARD_..., Linux 6.13
    static char* area = map(64 * page);
    for (size_t i = 0; i < 64; i++) put(area + i * page, word(i));
    // An older kernel has none.
    static const bool known = madvise(area, page, guard_install) == 0;
    for (size_t i = 9; known && i < 64; i += 9)
        need(madvise(area + i * page, page, guard_install) == 0, "guard pages");
    if (known) need(madvise(area + 9 * page, page, guard_remove) == 0, "remove a guard page");
    return []() -> std::string {
        for (size_t i = 0; i < 64; i++) {
            const bool guarded = known && i % 9 == 0 && i != 9;
            if (is_readable(area + i * page) == guarded)
                return guarded ? "a guard page is gone" : "a page has become a guard page";
            uint64_t got = 0;
            if (!guarded) std::memcpy(&got, area + i * page, 8);
            if (!guarded && got != (known && i == 9 ? 0 : word(i))) return "a page differs";
        }
        return {};
    };
}

Check heap_and_stack(const std::string&) {
    static std::vector<std::vector<uint64_t>> blocks;
    for (size_t i = 0; i < 2000; i++) blocks.emplace_back(i + 1, word(i));
    static void* top = sbrk(0);
    return []() -> std::string {
        if (sbrk(0) != top) return "another break";
        for (size_t i = 0; i < blocks.size(); i++)
            for (const uint64_t value : blocks[i])
                if (value != word(i)) return "a block differs";
        volatile char deep[1 << 20];  // the stack still grows by itself
        deep[0] = 1;
        blocks.emplace_back(100000, deep[0]);
        return {};
    };
}

}  // namespace

const std::vector<Case> memory_cases = {
    {"sparse", "32 GiB of address space with few pages", nullptr, sparse},
    {"many_mappings", "10,000 mappings", nullptr, many_mappings},
    {"huge_pages", "transparent huge pages", nullptr, huge_pages},
    {"private_huge_pages", "private memory in huge pages of hugetlbfs",
     "it is private memory in huge pages of hugetlbfs", private_huge_pages},
    {"mappings", "mappings of files, hidden, locked, dropped and executable pages", nullptr,
     mappings},
    {"guards", "guard pages (MADV_GUARD_INSTALL, Linux 6.16)", nullptr, guards},
    {"heap_and_stack", "heap and stack", nullptr, heap_and_stack},
};

}  // namespace matrix
