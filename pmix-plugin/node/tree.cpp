#include "pmix-plugin/node/tree.hpp"

#include <csignal>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ghost::plugin {

void take_tree(Seat& seat, pid_t init) {
    if (init <= 1) return;
    seat.init = init;
    seat.tree.reset(static_cast<int>(::syscall(SYS_pidfd_open, init, 0)));
}

bool tree_alive(const Seat& seat, const TreeControl& control) {
    if (seat.init <= 1 || seat.ended) return false;
    if (control.alive) return control.alive(seat.init);
    if (!seat.tree.valid()) return false;
    pollfd p{seat.tree.get(), POLLIN, 0};
    return ::poll(&p, 1, 0) == 0;  // readable: it has ended (pidfd_open(2))
}

void kill_tree(const Seat& seat, const TreeControl& control) {
    if (seat.init <= 1) return;
    if (control.kill) return control.kill(seat.init);
    if (seat.tree.valid()) {
        ::syscall(SYS_pidfd_send_signal, seat.tree.get(), SIGKILL, nullptr, 0);
    }
}

}  // namespace ghost::plugin
