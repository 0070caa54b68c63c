// What ghost-wrapper and ghost-init know of each other. Both are always of one build.
#pragma once

namespace ghost::plugin {

// Positions in ghost-init's argv.
struct init_argument {
    static constexpr int inner_pid = 1;     // wanted number of the program, 0: any
    static constexpr int mask = 2;          // its signal mask, 64 bits in hex, bit 0 is signal 1
    static constexpr int chld_ignored = 3;  // "1": it starts with SIGCHLD ignored
    static constexpr int program = 4;
};

// ghost-init's name (comm) when it ends because the program died of a signal: this and the number.
// The exit status alone, 128 + number, may also be an exit code of the program.
inline constexpr const char* init_died_of = "ghost-sig-";

// Rank r is process number first_inner_pid + r in its name space, so that getpid() is unique in a
// job as programs expect that name files after it.
inline constexpr int first_inner_pid = 1000;

}  // namespace ghost::plugin
