// SPDX-License-Identifier: BSD-3-Clause
#include "base/json.hpp"

template class nlohmann::basic_json<>;
