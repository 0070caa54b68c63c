// SPDX-License-Identifier: BSD-3-Clause
// Signals of a wrapper, and its end: as for the parent of any tree.
#pragma once

#include "ghost-core/criu/signals.hpp"

namespace ghost::plugin {

using core::end_like;
using core::Signals;

}  // namespace ghost::plugin
