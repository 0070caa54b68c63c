// Facts about a machine that decide whether a ghost made on it can live on another one.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace ghost::core {

uint32_t this_machine();    // e_machine of this program, elf(5)
uint32_t this_page_size();  // bytes

// JSON: {"arch", "kernel", "page_size", "cpu", "flags": [CPU features a program may have found]}.
std::string host_facts();

// Whether a ghost with these facts may run here. unsupported names what is missing; corrupt.
Status check_host(const std::string& facts_json);

}  // namespace ghost::core
