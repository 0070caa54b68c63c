// SPDX-License-Identifier: BSD-3-Clause
// Keepers (pmix-plugin/keeper/keeper.hpp): where they ask, in mpirun, and who starts them, in the
// daemons of a job that recovers.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <sys/socket.h>

#include "base/doorway.hpp"
#include "base/fd.hpp"
#include "pmix-plugin/runtime/orte41/children.hpp"

namespace ghost::plugin::orte41 {

// mpirun's side. Its kernel answers keepers, so that it is enough to look now and then. Nobody has
// to prove anything here: what is said is thrown away, and who is crowded out comes again, which is
// an answer too. ORTE's main thread only.
class LeaseListener {
  public:
    // Where it listens from now on. 0: it cannot; there are no keepers then.
    uint16_t port();
    // To be called several times a second.
    void look();

  private:
    static constexpr Doorway::Limits limits{.most = 512};

    Fd listener_;
    uint16_t port_ = 0;
    Doorway door_{limits};
    std::map<uint64_t, Fd> keepers_;
    uint64_t last_ = 0;
};

// A daemon's side. ORTE's main thread only.
class OwnKeeper {
  public:
    explicit OwnKeeper(Children& children) : children_(children) {}
    ~OwnKeeper() { stop(); }
    OwnKeeper(const OwnKeeper&) = delete;
    OwnKeeper& operator=(const OwnKeeper&) = delete;

    // It is not there, or has ended; a second start() is a new one.
    bool is_missing() const { return pid_ == 0; }
    // `program`: ghost-keeper. mpirun's address is that of the connection to it.
    void start(const std::string& program, sockaddr_storage mpirun, uint16_t port,
               int64_t limit_us);
    void stop();

  private:
    Children& children_;
    pid_t pid_ = 0;
    ControlSocket control_;
};

}  // namespace ghost::plugin::orte41
