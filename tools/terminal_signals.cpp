// SPDX-License-Identifier: BSD-3-Clause
#include "tools/terminal_signals.hpp"

#include <csignal>
#include <curses.h>
#include <string>
#include <term.h>
#include <termios.h>
#include <unistd.h>

namespace ghost::tools {
namespace {

// What a signal needs to leave the terminal as it was.
termios mode_before;
std::string leave_text;

int add_to_leave_text(int c) {
    leave_text += static_cast<char>(c);
    return c;
}

void leave(const char* capability) {
    // terminfo's functions take char*, and change nothing
    const char* text = tigetstr(const_cast<char*>(capability));
    if (text != nullptr && text != reinterpret_cast<char*>(-1)) tputs(text, 1, add_to_leave_text);
}

// The terminal is one that has a screen; what brings it back from there is known.
bool learn_terminal() {
    int found = 0;
    if (setupterm(nullptr, STDOUT_FILENO, &found) != OK) return false;
    const bool has_screen = cursor_address != nullptr;
    leave_text.clear();
    for (const char* capability : {"sgr0", "rmkx", "cnorm", "rmcup"}) leave(capability);
    leave_text += "\r\n";
    del_curterm(cur_term);
    return has_screen && ::tcgetattr(STDOUT_FILENO, &mode_before) == 0;
}

// Whatever the program is doing: only what signal-safety(7) lists. While the program is in the
// background the terminal is somebody else's.
void end_by(int signum) {
    if (::tcgetpgrp(STDOUT_FILENO) == ::getpgrp()) {
        ::tcflow(STDOUT_FILENO, TCOON);
        const auto written = ::write(STDOUT_FILENO, leave_text.data(), leave_text.size());
        (void)written;
        ::tcsetattr(STDOUT_FILENO, TCSANOW, &mode_before);
    }
    std::signal(signum, SIG_DFL);
    ::raise(signum);
}

void catch_signals() {
    struct sigaction action {};
    action.sa_handler = end_by;
    for (const int signum : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTOU})
        sigaddset(&action.sa_mask, signum);
    for (const int signum : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
        struct sigaction before {};
        ::sigaction(signum, nullptr, &before);
        if (before.sa_handler != SIG_IGN) ::sigaction(signum, &action, nullptr);
    }
}

}  // namespace

bool restore_on_signals() {
    if (!learn_terminal()) return false;
    catch_signals();
    return true;
}

}  // namespace ghost::tools
