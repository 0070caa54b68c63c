// SPDX-License-Identifier: BSD-3-Clause
// What the verbs for processes outside of MPI share: a sure end of an export, and the life as the
// parent of a tree.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/plain.hpp"
#include "ghost-core/criu/signals.hpp"

namespace ghost::tools {

// Lives as the parent of a tree until that ends: passes signals on, stops and goes on with it.
// Returns its wait status.
int attend(const core::PlainTree& tree, const core::Signals& signals);

// A terminal, pipe or socket: who it leads to waits for its end, or takes it away.
bool ends_with_caller(int fd);

// A standard descriptor that is a file opened in another mount name space (by `ghost lab exec`,
// say) is opened again here: as it is it could not leave this node.
void reopen_foreign_stdio();

// Makes a background process of this one, without a terminal and without the pipes that lead to the
// caller (`pid=$(ghost run --detach …)` waits for the end of its pipe): /dev/null takes the place
// of what ends_with_caller(). The foreground's part never returns: it waits for report() in the
// other one, prints what that says and ends.
class Detached {
  public:
    static Result<Detached> start();
    // The foreground prints `text` on standard output (or error) and ends with `exit_status`.
    void report(int exit_status, const std::string& text, const std::string& error = {});

  private:
    Fd pipe_;
};

// Does the work in a process of its own, in a session of its own, and ends as it ends. This one
// only passes signals on: killed at whatever moment, it leaves the other one to put things in order
// (a tracer that dies while it makes a process do something kills it). Call it before any thread
// is.
int in_worker(const std::function<int()>& work);

// From here on INT, TERM and HUP wait until they are looked for.
void hold_interruptions();
// The number of one of them that has come; 0: none.
int interruption();

// An error once this process is to end, so that what is frozen is let go in order: for
// core::Stoppable.
Status go_on_uninterrupted();

}  // namespace ghost::tools
