// SPDX-License-Identifier: BSD-3-Clause
// A program that has made a screen of its terminal is ended by a signal: the terminal is as it was.
// Apart from screen.cpp, for term.h takes ordinary words for its macros.
#pragma once

namespace ghost::tools {

// From now on SIGINT, SIGTERM, SIGHUP and SIGQUIT, unless they are ignored, give the terminal of
// standard output back as it is now before they end the program, whatever it is doing then. False:
// terminfo knows none by the name in TERM that has a screen, and nothing has changed.
bool restore_on_signals();

}  // namespace ghost::tools
