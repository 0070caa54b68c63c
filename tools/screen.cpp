// SPDX-License-Identifier: BSD-3-Clause
#include "tools/screen.hpp"

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <curses.h>
#include <unistd.h>
#include <utility>

#include "base/clock.hpp"
#include "tools/terminal_signals.hpp"

namespace ghost::tools {
namespace {

// getch() does not wake up for a new size that comes just before it waits: then it is seen so late.
constexpr int look_ms = 500;

bool on = false;
SCREEN* the_screen = nullptr;

int rows() {
    return std::max(1, getmaxy(stdscr) - 1);
}

attr_t look_of(LineStyle style) {
    switch (style) {
        case LineStyle::title:
            return A_REVERSE;
        case LineStyle::heading:
        case LineStyle::busy:
            return A_BOLD;
        case LineStyle::bad:
            return A_BOLD | A_UNDERLINE;
        case LineStyle::plain:
            break;
    }
    return A_NORMAL;
}

}  // namespace

Status Screen::begin() {
    std::setlocale(LC_CTYPE, "");
    // before ncurses, which then leaves the signals alone
    if (restore_on_signals()) the_screen = newterm(nullptr, stdout, stdin);
    if (the_screen == nullptr)
        return make_error(Code::unsupported, "show a screen on the terminal", "$TERM",
                          "ncurses knows none by that name that has one; --once prints as plain "
                          "text");
    on = true;
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    return {};
}

void Screen::end() {
    if (!std::exchange(on, false)) return;
    endwin();
    delscreen(the_screen);
    the_screen = nullptr;
}

void Screen::show(const std::vector<FrameLine>& lines, const std::string& status) {
    lines_ = lines;
    status_ = status;
    draw();
}

void Screen::draw() const {
    erase();
    const int last = std::max(0, static_cast<int>(lines_.size()) - rows());
    const int first = std::clamp(first_, 0, last);
    for (int row = 0; row < rows(); ++row) {
        const auto at = static_cast<size_t>(first + row);
        if (at >= lines_.size()) break;
        attrset(look_of(lines_[at].style));
        mvaddnstr(row, 0, lines_[at].text.c_str(), getmaxx(stdscr));
    }
    attrset(A_DIM);
    mvaddnstr(getmaxy(stdscr) - 1, 0, status_.c_str(), getmaxx(stdscr) - 1);
    attrset(A_NORMAL);
    refresh();
}

bool Screen::key(int code) {
    const int last = std::max(0, static_cast<int>(lines_.size()) - rows());
    switch (code) {
        case 'q':
        case 'Q':
            return false;
        case KEY_UP:
            --first_;
            break;
        case KEY_DOWN:
            ++first_;
            break;
        case KEY_PPAGE:
            first_ -= rows();
            break;
        case KEY_NPAGE:
            first_ += rows();
            break;
        case KEY_HOME:
            first_ = 0;
            break;
        case KEY_END:
            first_ = last;
            break;
        case 'L' - '@':  // Ctrl-L
            clearok(curscr, TRUE);
            break;
        default:
            break;  // also KEY_RESIZE: it is drawn anew
    }
    first_ = std::clamp(first_, 0, last);
    draw();
    return true;
}

bool Screen::wait(int timeout_ms) {
    const int64_t until = monotonic_us() + int64_t{timeout_ms} * 1000;
    for (;;) {
        const int64_t left = until - monotonic_us();
        if (left <= 0) return true;
        timeout(static_cast<int>(std::min<int64_t>(left / 1000, look_ms)) + 1);
        const int code = getch();
        // A terminal that is gone gives no key, at once.
        if (code == ERR && ::isatty(STDIN_FILENO) != 1) return false;
        if (code != ERR && !key(code)) return false;
    }
}

}  // namespace ghost::tools
