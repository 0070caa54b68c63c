// SPDX-License-Identifier: BSD-3-Clause
// A terminal that is a screen, by ncurses: lines that scroll, and keys. However the program ends,
// but for SIGKILL, the terminal is as it was.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "tools/top_frame.hpp"

namespace ghost::tools {

// One at a time; one thread.
class Screen {
  public:
    // From now on the terminal is one; a signal that ends the program restores it first, whatever
    // the program does then. unsupported: it is none that ncurses knows.
    static Status begin();
    // The terminal is as before; may be called without begin(), and again.
    static void end();

    // Shows what fits from the line that was scrolled to, and `status` in the last line.
    void show(const std::vector<FrameLine>& lines, const std::string& status);
    // Waits so long for keys, and acts upon them. False: the user wants to end, or the terminal is
    // gone.
    bool wait(int timeout_ms);

  private:
    void draw() const;
    bool key(int code);

    std::vector<FrameLine> lines_;
    std::string status_;
    int first_ = 0;  // line on top
};

}  // namespace ghost::tools
