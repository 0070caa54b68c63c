// SPDX-License-Identifier: BSD-3-Clause
// A program in a PID name space of its own, under a tiny init (init.cpp): the shape in which a tree
// can be put anywhere without meeting a number that is taken. Its /proc shows that name space.
#pragma once

#include <array>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/child.hpp"
#include "base/result.hpp"
#include "ghost-core/criu/signals.hpp"

namespace ghost::core {

struct NestedProgram {
    std::string init;             // path of ghost-init
    std::string criu;             // that is to move it: see knows_own_proc()
    std::string number = "0";     // the program's wanted number, see init_protocol.hpp
    char* const* argv = nullptr;  // the program and its arguments, found by PATH
    // "NAME=value", in place of ours
    std::vector<std::string> environment = {};
    // Become its descriptors 0 to 2; by default ours stay.
    std::array<int, 3> stdio = {inherited, inherited, inherited};
    bool only_stdio = true;  // else it inherits the others that are not close-on-exec, too
    bool own_ipc = false;    // System V IPC objects of its own: only then can they go along
};

// The new name space's init, our child; the program is its first child and gets `signals`, which
// ours may not be (Signals::block()). unsupported: no right to make name spaces, or no ghost-init.
Result<pid_t> spawn_nested(const NestedProgram& program, const SignalState& signals);

// ghost-init, which lies beside ghost-wrapper (`program`: a path of
// that; else empty).
std::string init_beside(const std::string& program);

// Waits until the init of spawn_nested() runs the program, or has failed to; that one's number, or
// 0. Who is told it finds the program there, not yet the init it was forked from.
pid_t wait_for_program(pid_t root);

// Waits for the init's end and reaps it; how the program ended, as of wait(2). The init's name
// tells when it was a signal.
int reap_nested(pid_t root);

// The program: the init's oldest child; 0 if it has none.
pid_t program_of(pid_t root);

// Whether the tree sees the /proc of its PID name space: its mount name space is a copy of ours.
bool has_own_proc(pid_t root);

// A number for a program that is the same inside and outside, and hardly the same as another one's
// elsewhere: "N:N" with a random N.
std::string random_number();

}  // namespace ghost::core
