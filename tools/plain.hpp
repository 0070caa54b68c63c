// SPDX-License-Identifier: BSD-3-Clause
// What the verbs for processes outside of MPI share: a sure end of an export, the life as the
// parent of a tree, and where standard input and output lead.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "ghost-core/engine/plain.hpp"
#include "ghost-core/criu/signals.hpp"
#include "ghost-core/supervisor/work_folder.hpp"

namespace ghost::tools {

// criu, called in a folder.
core::CriuSettings criu_in(const core::WorkFolder& folder);

// Where ghost-init is.
std::string init_program();

// What a ghost's standard descriptors outside of its tree become here: ours, if they are of the
// same kind, else new ends that relays connect with ours.
class StdioEnds {
  public:
    static Result<StdioEnds> make(const Json& metadata);
    const std::vector<core::InheritFd>& heirs() const { return heirs_; }
    // Gives the tree's ends up and moves bytes in threads of its own; call after the import.
    void start();
    // Output that is still in the relays has been written.
    void drain();

  private:
    struct Relay;
    Status add(const core::StdioEnd& end, const std::vector<int>& numbers);
    Status add_relay(const core::StdioEnd& end, const std::vector<int>& numbers);
    void relay(int from, int to);
    std::vector<Fd> given_;  // the tree's ends, until it has them
    std::vector<Fd> kept_;   // the relays' ends
    std::vector<core::InheritFd> heirs_;
    std::vector<std::shared_ptr<Relay>> relays_;
};

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

// Passes everything to `inner` and fails once this process is to end, so that what is frozen is let
// go in order.
class Interruptible : public core::Resource {
  public:
    explicit Interruptible(core::Resource& inner) : inner_(inner) {}
    core::ResourceClass class_id() const override { return inner_.class_id(); }
    Status init() override { return inner_.init(); }
    Status write(const void* data, size_t size) override;
    Status write_gather(iovec* pieces, size_t count) override;
    Result<size_t> read(void* data, size_t size) override;
    Status finalize() override { return inner_.finalize(); }
    void interrupt() override { inner_.interrupt(); }
    Result<char*> room(size_t size) override { return inner_.room(size); }
    core::Space* space() override { return inner_.space(); }
    bool holds(const void* data) const override { return inner_.holds(data); }
    // From now on it goes on whatever comes: half of what is done would be worse.
    void go_through() { goes_through_ = true; }

  private:
    core::Resource& inner_;
    bool goes_through_ = false;
};

// Everything that keeps the tree from being exported as one Error; nothing if it can be.
Status check_exportable(const core::PlainTree& tree);

}  // namespace ghost::tools
