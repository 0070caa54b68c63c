// SPDX-License-Identifier: BSD-3-Clause
// Sets of pages as sorted lists of runs that neither overlap nor touch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ghost-core/format/format.hpp"

namespace ghost::core {

using PageRuns = std::vector<PageRun>;

// Makes a set of any list: sorts it, joins runs that overlap or touch, drops empty ones.
void make_set(PageRuns& runs);

// Each argument and result is a set; time is linear in their sizes.
PageRuns unite(std::span<const PageRun> a, std::span<const PageRun> b);
PageRuns intersect(std::span<const PageRun> a, std::span<const PageRun> b);
PageRuns subtract(std::span<const PageRun> a, std::span<const PageRun> b);

// The part of a set that lies in [start, end), found in logarithmic time.
PageRuns cut(std::span<const PageRun> set, uint64_t start, uint64_t end);

// Adds a run behind all others.
void append(PageRuns& set, uint64_t start, uint64_t end);

// A run in pieces that end at multiples of so many bytes. If those are a multiple of 2 MiB no huge
// page is cut.
PageRuns pieces_of(const PageRun& run, uint64_t bytes);

uint64_t bytes_of(std::span<const PageRun> set);

}  // namespace ghost::core
