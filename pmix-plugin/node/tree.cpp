// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/node/tree.hpp"

#include <csignal>

#include "base/pidfd.hpp"

namespace ghost::plugin {

void take_tree(RankSlot& slot, pid_t init) {
    if (init <= 1) return;
    slot.init = init;
    slot.tree = open_pidfd(init);
}

bool tree_alive(const RankSlot& slot, const TreeControl& control) {
    if (slot.init <= 1 || slot.ended) return false;
    if (control.alive) return control.alive(slot.init);
    if (!slot.tree.valid()) return false;
    return !await_pidfd(slot.tree.get(), 0);
}

void kill_tree(const RankSlot& slot, const TreeControl& control) {
    if (slot.init <= 1) return;
    if (control.kill) return control.kill(slot.init);
    if (slot.tree.valid()) signal_pidfd(slot.tree.get(), SIGKILL);
}

}  // namespace ghost::plugin
