// SPDX-License-Identifier: BSD-3-Clause
// JSON values, as nlohmann::json has them; to be included instead of its own header.
//
// What every value needs is compiled once (base/json.cpp), not in each of the files that use it: a
// quarter of the time these take.
#pragma once

#include <nlohmann/json.hpp>

extern template class nlohmann::basic_json<>;
