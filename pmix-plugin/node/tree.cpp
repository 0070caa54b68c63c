// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/tree.hpp"

#include <csignal>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ghost::plugin {

void take_tree(RankSlot& slot, pid_t init) {
    if (init <= 1) return;
    slot.init = init;
    slot.tree.reset(static_cast<int>(::syscall(SYS_pidfd_open, init, 0)));
}

bool tree_alive(const RankSlot& slot, const TreeControl& control) {
    if (slot.init <= 1 || slot.ended) return false;
    if (control.alive) return control.alive(slot.init);
    if (!slot.tree.valid()) return false;
    pollfd p{slot.tree.get(), POLLIN, 0};
    return ::poll(&p, 1, 0) == 0;  // readable: it has ended (pidfd_open(2))
}

void kill_tree(const RankSlot& slot, const TreeControl& control) {
    if (slot.init <= 1) return;
    if (control.kill) return control.kill(slot.init);
    if (slot.tree.valid()) {
        ::syscall(SYS_pidfd_send_signal, slot.tree.get(), SIGKILL, nullptr, 0);
    }
}

}  // namespace ghost::plugin
