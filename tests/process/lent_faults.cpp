// SPDX-License-Identifier: BSD-3-Clause
// For tests/hostile/lender.py: an ordinary user takes a userfaultfd of a process of his, for all
// faults, and serves one of the kernel's with it. Prints "served", or why it cannot.
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <set>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/await.hpp"
#include "base/fork.hpp"
#include "base/proc.hpp"
#include "base/user_space.hpp"
#include "ghost-core/memory/injection.hpp"

using namespace ghost;

namespace {

int fail(const std::string& why) {
    std::printf("%s\n", why.c_str());
    return 1;
}

// What the process has open, and where it leads.
std::set<std::string> open_in(pid_t pid) {
    std::set<std::string> out;
    const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
    for (const int fd : numbers_in(folder))
        out.insert(std::to_string(fd) + " " + link_of(folder + "/" + std::to_string(fd)));
    return out;
}

Status serve(const Fd& userfault, void* page, size_t size) {
    uffdio_api api{};
    api.api = UFFD_API;
    uffdio_register area{};
    area.range = {reinterpret_cast<uintptr_t>(page), size};
    area.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (ioctl(userfault.get(), UFFDIO_API, &api) != 0 ||
        ioctl(userfault.get(), UFFDIO_REGISTER, &area) != 0)
        return sys_error("register the page");
    return {};
}

}  // namespace

int main() {
    if (const auto inside = enter_own_user_space(); !inside) return fail(inside.error().message());
    const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int words[2];
    if (page == MAP_FAILED || pipe2(words, O_CLOEXEC) != 0) return fail("no page or pipe");
    const pid_t child = fork_process();
    // the kernel writes to the page for it: EFAULT if nobody may serve that
    if (child == 0) _exit(read(words[0], page, 1) == 1 ? 0 : errno);
    const auto before = open_in(child);
    // not in its read(): that has to find the page registered
    const auto taken = core::take_userfault(child, 2000000, core::Faults::all);
    std::string said = taken ? "served" : taken.error().message();
    if (taken)
        if (const auto status = serve(*taken, page, size); !status) said = status.error().message();
    if (open_in(child) != before) said = "the process has other descriptors now";
    if (write(words[1], "x", 1) != 1) said = "no word";
    if (taken && await_readable(taken->get(), 5000)) {
        uffdio_zeropage zero{};
        zero.range = {reinterpret_cast<uintptr_t>(page), size};
        if (ioctl(taken->get(), UFFDIO_ZEROPAGE, &zero) != 0) said = "the page cannot be filled";
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) said = "the process was not served";
    return fail(said) - (said == "served" ? 1 : 0);
}
