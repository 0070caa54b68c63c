// SPDX-License-Identifier: BSD-3-Clause
// What ghost-init and who starts it know of each other. Both are always of one build.
#pragma once

namespace ghost::core {

// Positions in ghost-init's argv.
struct init_argument {
    // Wanted number of the program, 0: any. "1000:1000": the second one is for the name space
    // above, and is given up if it is taken there.
    static constexpr int inner_pid = 1;
    static constexpr int mask = 2;          // its signal mask, 64 bits in hex, bit 0 is signal 1
    static constexpr int chld_ignored = 3;  // "1": it starts with SIGCHLD ignored
    static constexpr int own_proc = 4;      // "1": /proc becomes that of its PID name space
    static constexpr int program = 5;
};

// ghost-init's name (comm) when it ends because the program died of a signal: this and the number.
// The exit status alone, 128 + number, may also be an exit code of the program.
inline constexpr const char* init_died_of = "ghost-sig-";

}  // namespace ghost::core
